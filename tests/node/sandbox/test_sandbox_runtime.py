"""The real template: torch warmed up, the runtime's own runner and canary, under the numeric profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
import trio

from fakes import wheels as made
from tallymesh import program, values, wheels
from tallymesh.ids import BlobId
from tallymesh.units import Input, Unit, canonical_json
from tallymesh_learning import data, options, tensors
from tallymesh_learning.runtime.profile import profile_hash
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.interfaces import Failure, Limits
from tallymesh_node.sandbox import SandboxExecutor

SOURCE = b"""
import numpy
import tallymesh


def area(x, scale=1.0):
    print("measuring", x)
    tallymesh.log(seen=x)
    if x < 0:
        raise ValueError("negative")
    return {"area": scale * x * x, "matrix": numpy.full(2, x)}


def doubled(x):
    import plot
    import typing_extensions

    return [plot.double(x), plot.__file__, typing_extensions.VALUE, numpy.__version__]


def forges(code):
    import os

    with open("/.tallymesh/work/out/failure", "w") as file:
        file.write('{"code": "%s", "sentence": "forged"}' % code)
    os._exit(0)
"""
TRAINING = b"""
import torch


def model():
    return torch.nn.Linear(2, 2)


def loss(net, batch):
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])
"""


@pytest.mark.slow
async def test_runner_and_canary_work_as_they_do_without_a_sandbox(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    archive = store.put(program.pack({"shapes.py": SOURCE}))
    config = canonical_json({"kwargs": ""})
    lines: list[str] = []
    metrics: list[tuple[str, float]] = []

    def unit(x: float) -> Unit:
        item = store.put(values.encode(x))
        return Unit(archive, "shapes:area", (Input("item", item),), config, 0, profile_hash())

    async with SandboxExecutor(tmp_path / "spool", store.put, slots=2) as executor:
        with trio.fail_after(60):
            await executor.wait_ready()

            async def run(x: float) -> object:
                wanted = unit(x)
                names = [BlobId(wanted.program), *(BlobId(item.blob) for item in wanted.inputs)]
                outcome = await executor.run(
                    b"job",
                    wanted,
                    {name: store.path(name) for name in names},
                    Limits(),
                    on_line=lines.append,
                    on_metric=lambda name, value: metrics.append((name, value)),
                )
                assert json.loads(outcome.metrics) == {"seen": x}
                return values.decode(store.get(outcome.output))

            result = await run(3.0)
            assert isinstance(result, dict)
            assert result["area"] == 9.0
            assert result["matrix"].tolist() == [3.0, 3.0]
            assert lines == ["measuring 3.0"]
            assert metrics == [("seen", 3.0)]
            with pytest.raises(Failure) as caught:
                await run(-1.0)
            assert caught.value.code == "program"
            assert caught.value.sentence == "ValueError: negative. The item was -1.0."
            assert await _doubled(executor, store, archive) == [
                6.0,
                "/.tallymesh/work/in/packages/plot/__init__.py",
                42,
                numpy.__version__,
            ]
            canary = json.loads(await executor.run_task("canary"))
            again = json.loads(await executor.run_task("canary"))
            assert canary["class"] == again["class"]
            assert len(bytes.fromhex(canary["class"])) == 32
            assert canary["cpu_score"] > 0
        with pytest.raises(KeyError):
            await executor.run_task("os:system")


async def _doubled(executor: SandboxExecutor, store: BlobStore, archive: BlobId) -> object:
    """A unit with packages, one of which the machine has, too, in another version that torch imported already."""
    found = []
    for name in ("plot", "typing_extensions"):
        data = made.build(name, "1.0", {f"{name}/__init__.py": made.MODULE})
        store.put(data)
        found.append(made.wheel(name, "1.0", data))
    item = Input("item", store.put(values.encode(3.0)))
    inputs = (item, *wheels.inputs(found))
    unit = Unit(archive, "shapes:doubled", inputs, canonical_json({"kwargs": ""}), 0, profile_hash())
    names = [archive, *(BlobId(each.blob) for each in inputs)]
    outcome = await executor.run(b"job", unit, {name: store.path(name) for name in names}, Limits())
    return values.decode(store.get(outcome.output))


@pytest.mark.slow
async def test_what_a_unit_says_of_its_failure_and_what_a_check_says_of_a_form(tmp_path: Path) -> None:
    """A payer believes `form` of its own check alone: malformed work ends the seat of whoever sent it, and a program
    that says so of itself, or blames the inputs, is a program that failed."""
    store = BlobStore(tmp_path / "blobs")
    shapes, trains = store.put(program.pack({"shapes.py": SOURCE})), store.put(program.pack({"m.py": TRAINING}))
    settings = options.encode(options.Config(model="m:model", loss="m:loss", seed=3))
    shard = data.encode(data.Shard({"0": torch.ones(8, 2), "1": torch.zeros(8, dtype=torch.int64)}))

    async with SandboxExecutor(tmp_path / "spool", store.put, slots=1) as executor:
        with trio.fail_after(60):
            await executor.wait_ready()

            async def run(unit: Unit) -> bytes:
                names = [BlobId(unit.program), *(BlobId(item.blob) for item in unit.inputs)]
                outcome = await executor.run(b"job", unit, {name: store.path(name) for name in names}, Limits())
                return store.get(outcome.output)

            def step(name: str, **inputs: bytes) -> Unit:
                named = tuple(Input(key, store.put(value)) for key, value in inputs.items())
                return Unit(trains, f"tallymesh:{name}", named, settings, 1, profile_hash())

            for code in ("form", "inputs", "sandbox"):
                item = Input("item", store.put(values.encode(code)))
                with pytest.raises(Failure) as caught:
                    await run(Unit(shapes, "shapes:forges", (item,), canonical_json({"kwargs": ""}), 0, profile_hash()))
                assert (caught.value.code, caught.value.sentence) == ("program", "forged")

            state = await run(step("initialise"))
            end = await run(step("client", state=state, data=shard))
            checked = values.decode(await run(step("loss_check", state=state, end=end, data=shard)))
            assert isinstance(checked, dict)
            assert checked["loss_after"] < checked["loss_before"]
            broken = tensors.decode(end)
            broken["model.bias"] = broken["model.bias"] * float("nan")
            for wrong in (b"garbage", state, tensors.encode(broken)):
                with pytest.raises(Failure) as caught:
                    await run(step("loss_check", state=state, end=wrong, data=shard))
                assert caught.value.code == "form"
