"""For each GPU of this machine, what a node does with it: `scripts/gpu_check`. The last line is one JSON object, or
"no GPU" (exit code 0).

Two nodes' executors, a worker's and an auditor's, each try the card as at a node's start (proving.py, in the sandbox
that jobs get). Both have to find the same class. Then one unit of a training job runs at the worker's and is audited at
the auditor's, probe and all, which has to end with the same bytes. Exit code 1 and a sentence where a card would not be
sold, or the two differ.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import gpu_work
import msgspec
import torch
import trio

from tallymesh.ids import BlobId
from tallymesh.plan import Plan
from tallymesh.prepare import PreparedJob
from tallymesh.units import Unit
from tallymesh_learning.prepare import prepare_training
from tallymesh_learning.runtime import profile
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.capacity import Canary
from tallymesh_node.gpus import Card, cards, obstacle
from tallymesh_node.interfaces import Outcome
from tallymesh_node.machine import gpus
from tallymesh_node.proving import Proven, Unsold, prove
from tallymesh_node.sandbox import SandboxExecutor
from tallymesh_node.sandbox.cards import PROOF
from tallymesh_node.unit_inputs import names_of

EXAMPLES = 256
KEY = b"k" * 32  # an auditor's, for the probe
PATIENCE_S = 3600.0


class Place(NamedTuple):
    """One node's executor and store."""

    executor: SandboxExecutor
    store: BlobStore

    async def run(self, unit: Unit, probe_key: bytes = b"") -> Outcome:
        inputs = {name: self.store.path(name) for name in names_of(unit)}
        return await self.executor.run(b"gpu_check", unit, inputs, PROOF, probe_key=probe_key)


@asynccontextmanager
async def node(folder: Path, found: tuple[Card, ...]) -> AsyncIterator[Place]:
    store = BlobStore(folder / "blobs")
    async with SandboxExecutor(folder / "spool", store.put, slots=1, cards=found) as executor:
        await executor.wait_ready()
        yield Place(executor, store)


def job(*, gpu: bool) -> PreparedJob:
    """A training in one segment."""
    generator = torch.Generator().manual_seed(1)
    data = torch.utils.data.TensorDataset(
        torch.randn(EXAMPLES, 1, 28, 28, generator=generator), torch.randint(10, (EXAMPLES,), generator=generator)
    )
    local = {"optimizer": "adamw", "lr": 0.001, "batch": 32}
    return prepare_training(
        gpu_work.model, gpu_work.loss, data, algorithm="sequential", segments=1, local=local, gpu=gpu
    )


async def unit_and_audit(worker: Place, auditor: Place, prepared: PreparedJob) -> BlobId:
    """The unit's end. SystemExit where the audit ends with other bytes, or the two probes differ."""
    for place in (worker, auditor):
        for blob in prepared.blobs.values():
            place.store.put(blob)
    unit = next(Plan(prepared.spec).ready()).unit
    done = await worker.run(unit, KEY)
    audit = await auditor.run(unit, KEY)
    if (audit.output, audit.probe) != (done.output, done.probe):
        raise SystemExit(f"The unit ended with {done.output.hex()[:16]}, its audit with {audit.output.hex()[:16]}.")
    return done.output


async def cores_of(place: Place) -> bytes:
    """The numeric class of this machine's cores."""
    found = msgspec.json.decode(await place.executor.run_task("canary"), type=Canary)
    return bytes.fromhex(found.numeric_class)


async def check(folder: Path, found: tuple[Card, ...], driver: str) -> None:
    async with node(folder / "worker", found) as worker, node(folder / "auditor", found) as auditor:
        problem = obstacle(found, bounded=worker.executor.bounds_memory)
        if problem is not None:
            raise SystemExit(f"{problem.sentence} {problem.remedy}")
        cores = await cores_of(worker)
        prepared = await trio.to_thread.run_sync(lambda: job(gpu=True))
        rows = []
        for card in found:
            mine, theirs = [await tried(place, card, driver, cores) for place in (worker, auditor)]
            if mine.numeric_class != theirs.numeric_class:
                raise SystemExit(f"{card.uuid}: two nodes on one card are of two classes.")
            for place in (worker, auditor):
                place.executor.cards.prove(card)
            end = await unit_and_audit(worker, auditor, prepared)
            for place in (worker, auditor):
                place.executor.cards.withdraw(card)
            report = mine.report
            print(
                f"{report.name} ({card.uuid}): {report.tflops:.1f} TFLOP/s, {report.to_gib_s:.1f} GiB/s to it and "
                f"{report.from_gib_s:.1f} back; class {mine.numeric_class.hex()[:16]}, unit and audit end with "
                f"{end.hex()[:16]}",
                flush=True,
            )
            about = {"class": mine.numeric_class.hex(), "state": end.hex(), "profile": prepared.spec.profile.hex()}
            rows.append({"uuid": card.uuid, **about, **msgspec.to_builtins(report)})
        classes = len({row["class"] for row in rows})
        print(json.dumps({"driver": driver, "torch": profile.version("torch"), "cards": rows, "classes": classes}))


async def tried(place: Place, card: Card, driver: str, cores: bytes) -> Proven:
    try:
        return await prove(place.executor, card, driver, cores)
    except Unsold as unsold:
        raise SystemExit(f"{card.uuid} would not be sold. {unsold.sentence} {unsold.remedy}") from None


def main() -> None:
    named, found = gpus(), cards()
    if not named and not found:
        print("no GPU")
        return
    if not named or not found:
        raise SystemExit(
            f"nvidia-smi names {len(named)} GPUs, and /proc/driver/nvidia shows {len(found)} cards: is the driver "
            "whole? (Cards that are split by MIG are not lent.)"
        )
    with tempfile.TemporaryDirectory(prefix="tallymesh-gpu-") as folder:
        os.chmod(folder, 0o755)  # sandboxes belong to another user where root runs this
        for each in ("worker", "auditor"):
            Path(folder, each).mkdir()

        async def bounded() -> None:
            with trio.fail_after(PATIENCE_S):
                await check(Path(folder), found, named[0].driver)

        try:
            trio.run(bounded)
        except BaseExceptionGroup as group:
            refused = group.subgroup(SystemExit)
            if refused is None:
                raise
            sys.exit(str(_first(refused)))


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


if __name__ == "__main__":
    main()
