"""A program with type hints: checked by `mypy --strict` with the project itself (pyproject.toml names it there).

Each expected error is written beside its line: one that mypy no longer finds is an unused comment, which is an error too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, assert_type

import tallymesh


def area(x: float, scale: float = 1.0) -> dict[str, float]:
    return {"area": scale * x * x}


def mapping() -> None:
    job = tallymesh.map(area, range(3), scale=2.0, budget="2.0", require=tallymesh.Require(cores=2, memory_gib=4.0))
    assert_type(job, tallymesh.Job)
    for unit in job.stream():
        print(unit.index, unit.output["area"], unit.peer)
    assert_type(job.results(), list[Any])
    assert_type(job.id, str)
    assert_type(job.status, str)
    assert_type(job.cost, str)
    assert_type(job.cost_wei, int)
    assert_type(job.why(), list[str])
    assert_type(job.report(), str)
    for receipt in job.receipts:
        assert_type(receipt.account, str)
    for audit in job.audits:
        assert_type(audit.result, str)
    for line in job.logs(follow=True):
        assert_type(line.text, str)
    job.cancel()


def training(model: Any, loss: Any, data: Sequence[tuple[list[float], int]]) -> str:
    job = tallymesh.train(model, loss, data, test=data, rounds=20, clients=10, partition="dirichlet:0.5", budget="5.0")
    assert_type(job.wait(progress=False), tallymesh.Job)
    assert_type(job.metrics, dict[str, float])
    assert_type(job.result, tallymesh.Result)
    assert_type(job.result.card, str)
    job.result.load().train(False)
    return job.result.model_sha


async def waiting(job_id: str) -> str:
    job = await tallymesh.attach(job_id)
    assert_type(job, tallymesh.Job)
    return job.status


def mistakes() -> None:
    tallymesh.map(area, range(3), budget=2.0)  # type: ignore[arg-type]
    tallymesh.train(mapping, rounds=3)  # type: ignore[call-arg]
    tallymesh.map(area, 3, budget="1")  # type: ignore[arg-type]
    tallymesh.Require(cpus=2)  # type: ignore[call-arg]
    tallymesh.attach("ab").outputs()  # type: ignore[attr-defined]
    tallymesh.log(loss="low")  # type: ignore[arg-type]
    tallymesh.attach("ab").result.model_sha + 1  # type: ignore[operator]


if __name__ == "__main__":
    try:
        print(asyncio.run(waiting("3fa2c1")))
    except tallymesh.CallerError as error:
        assert_type(error.remedy, str)
        print(error.code)
