"""Bar 22: milliseconds from a unit's inputs being here to its first instruction, in the node's real sandboxes.

From the call of the executor, with the inputs in the store and a core free, to the first line of the user's function:
fork, isolation, reading and importing the program are all in it. The template is warm and the job's sandbox open, as
they are for every unit of a job but its first, which is shown beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import trio
from bench import Result

from benches import mark, probes
from tallymesh.ids import BlobId
from tallymesh.plan import Plan
from tallymesh.prepare import prepare_map
from tallymesh.units import Unit
from tallymesh_learning.runtime import profile
from tallymesh_node.blobs import BlobStore
from tallymesh_node.interfaces import Limits
from tallymesh_node.sandbox import SandboxExecutor

JOBS = 5  # whose first unit opens a sandbox


def run(folder: Path, *, quick: bool) -> Result:
    return trio.run(_measure, folder, 50 if quick else 300)


async def _measure(folder: Path, count: int) -> Result:
    store = BlobStore(folder / "blobs")
    job = prepare_map(mark.mark, range(count), profile=profile.profile_hash())
    for data in job.blobs.values():
        store.put(data)
    units = [task.unit for task in Plan(job.spec).ready()]
    began = time.monotonic()
    async with SandboxExecutor(folder / "spool", store.put, slots=1) as executor:
        await executor.wait_ready()
        template = time.monotonic() - began
        opened = [await _one(executor, store, b"first %d" % number, units[0]) for number in range(JOBS)]
        await _one(executor, store, b"job", units[0])
        warm = [await _one(executor, store, b"job", unit) for unit in units]
        isolated = list(executor.counters.start_s)[-len(units) :]
    assert len(warm) == count
    begin, over = _column(warm, 0), _column(warm, 1)
    return Result(
        statistics.median(begin),
        "ms",
        50.0,
        details={
            "p99_ms": probes.quantile(begin, 0.99),
            "quickest_ms": min(begin),
            "isolated_after_ms": 1000 * statistics.median(isolated),
            "whole_unit_ms": statistics.median(over),
            "unit_cpu_ms": statistics.median(_column(warm, 2)),
            "first_unit_of_a_job_ms": statistics.median(_column(opened, 0)),
            "template_warm_s": template,
            "units": count,
        },
    )


def _column(rows: Sequence[tuple[float, float, float]], index: int) -> list[float]:
    return [1000 * row[index] for row in rows]


async def _one(executor: SandboxExecutor, store: BlobStore, job: bytes, unit: Unit) -> tuple[float, float, float]:
    """Seconds from the call to the first instruction, to the outcome, and of CPU in the unit's own process."""
    names = [BlobId(unit.program), *(BlobId(item.blob) for item in unit.inputs)]
    lines: list[str] = []
    began = time.monotonic()
    outcome = await executor.run(job, unit, {name: store.path(name) for name in names}, Limits(), on_line=lines.append)
    over = time.monotonic()
    clock = next(filter(None, map(mark.began_at, lines)))
    return clock - began, over - began, outcome.cpu_s
