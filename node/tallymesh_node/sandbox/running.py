"""One unit in its job's sandbox, from its inputs to its outcome: put in place, forked, heard, killed where it must be,
judged, and what it left stored.

Which sandbox that is, who may use it and how many units run at once is its caller's business (executor.py).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio

from tallymesh.errors import LocalError
from tallymesh.ids import BlobId
from tallymesh_node.gpus import Card
from tallymesh_node.interfaces import Failure, Limits, Outcome
from tallymesh_node.sandbox import groups, outputs
from tallymesh_node.sandbox.jobs import JobSandbox, RunningUnit
from tallymesh_node.sandbox.judging import judge
from tallymesh_node.sandbox.logs import Logs
from tallymesh_node.sandbox.pool import Pool
from tallymesh_node.sandbox.spool import NO_ROOM, Spool

GRACE_S = 5.0  # beyond the unit's own limit, before a job's process that does not enforce it is killed
# For a killed unit to be gone; measured 2 to 15 ms. On a starved machine the job's process answers late, and is not
# broken for that: a sandbox that is given up fails every unit in it.
KILL_S = 30.0
DRAIN_S = 10.0  # for the last lines, when all writers are dead: at once, on a machine that is not starved
PAUSE_S = 0.02  # between reads from a unit that floods its log: 64 KiB each, 3 MB/s
READ_BYTES = 65536  # a pipe's capacity
LATENCIES_KEPT = 1000
INLINE_BYTES = 1 << 20  # larger outputs are read and stored in a thread
NO_GROUP = "The machine makes no control group, which alone bounds the memory of a unit with a card."


class Counters(msgspec.Struct):
    """Since the start. `start_s`: seconds from inputs present to the last moment before foreign code, newest units."""

    units_run: int = 0
    units_failed: int = 0
    start_s: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))


class Place(NamedTuple):
    """Where a unit runs: a job's sandbox, of the pool that made it, and the card that it holds meanwhile."""

    pool: Pool
    sandbox: JobSandbox
    card: Card | None = None


class Task(NamedTuple):
    """What is run there: inputs by the names that they get, and bounds. `function` of the runtime is called instead of
    the unit's own step; `keep` takes the output instead of the store."""

    files: Mapping[str, bytes]
    blobs: Mapping[str, Path]
    limits: Limits
    logs: Logs
    function: str = ""
    keep: Callable[[bytes], None] | None = None


class Units:
    """Runs them. `put` stores an output and names it; `groups` bounds the memory of each, where the machine has any."""

    def __init__(
        self, spool: Spool, put: Callable[[bytes], BlobId], found: groups.Groups | None, counters: Counters
    ) -> None:
        self.groups = found
        self._spool = spool
        self._put = put
        self._counters = counters
        self._names = itertools.count(1)

    async def run(self, place: Place, task: Task) -> Outcome:
        """One unit from its inputs to its outcome."""
        name = f"u{next(self._names)}"
        unit, sandbox, limits, logs = RunningUnit(), place.sandbox, task.limits, task.logs
        try:
            await self._add(sandbox.name, name, task.files, task.blobs)
            present = time.monotonic()
            unit = await self._watch(place, name, task)
            over = time.monotonic()
            ended = judge(unit, limits, logs)
            assert unit.outputs is not None
            if ended.output_bytes > INLINE_BYTES:
                left, blob = await trio.to_thread.run_sync(self._collect, unit.outputs, limits, task.keep)
            else:
                left, blob = self._collect(unit.outputs, limits, task.keep)
        except Failure:
            self._counters.units_failed += 1
            raise
        finally:
            unit.close()
            self._spool.remove(sandbox.name, name)
        start_s = max(0.0, (logs.begin_s or over) - present)
        self._counters.units_run += 1
        self._counters.start_s.append(start_s)
        return Outcome(
            output=blob,
            metrics=left.metrics,
            seconds={**left.seconds, "start": start_s, "store": time.monotonic() - over},
            cpu_s=ended.cpu_s,
            steps=left.steps,
            probe=left.probe,
        )

    async def _add(self, job: str, name: str, files: Mapping[str, bytes], blobs: Mapping[str, Path]) -> None:
        try:
            await self._spool.add(job, name, files, blobs)
        except FileNotFoundError as error:
            raise Failure("inputs", f"An input is not here: {error.filename}.") from None
        except OSError as error:
            raise LocalError("disk", f"A unit's inputs cannot be put in place: {error}.", remedy=NO_ROOM) from None

    async def _watch(self, place: Place, name: str, task: Task) -> RunningUnit:
        """Fork the unit and pass on what it says until it and all that it started is dead."""
        limits, logs = task.limits, task.logs
        group = self.groups.open(limits.memory_mib, limits.disk_mib) if self.groups else None
        try:
            if place.card is not None and group is None:
                raise Failure("sandbox", NO_GROUP)
            unit, streams = await self._fork(place.sandbox, name, task, group)
        except BaseException:
            if group is not None:
                group.close()
            raise
        try:
            async with trio.open_nursery() as nursery:
                for pipe, stream in streams.items():
                    nursery.start_soon(_listen, pipe, stream, logs)
                with trio.move_on_after(limits.wall_s + GRACE_S):
                    await unit.over.wait()
                if not unit.over.is_set():
                    unit.overdue = True
                    await self._kill(place, name, unit)
                nursery.cancel_scope.deadline = trio.current_time() + DRAIN_S
        except BaseException:
            await self._kill(place, name, unit)
            unit.close()
            raise
        finally:
            unit.out_of_memory = group is not None and group.close()
        logs.finish()
        return unit

    @staticmethod
    async def _fork(
        sandbox: JobSandbox, name: str, task: Task, group: groups.Group | None
    ) -> tuple[RunningUnit, dict[str, trio.lowlevel.FdStream]]:
        """The unit, asked for, and what it will say. Failure `sandbox` where this process has no descriptors left."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as given:
            readers, writers = {}, []
            try:
                for pipe in ("events", "console"):
                    readers[pipe], writer = os.pipe2(os.O_CLOEXEC)
                    ours.callback(os.close, readers[pipe])
                    given.callback(os.close, writer)
                    writers.append(writer)
            except OSError as error:
                raise Failure("sandbox", f"The unit cannot be heard, so it was not run: {error.strerror}.") from None
            if group:
                given.callback(group.shut)
                writers.append(group.entrance)
            unit = await sandbox.start(name, task.limits, task.function, writers)
            ours.pop_all()
        return unit, {pipe: trio.lowlevel.FdStream(reader) for pipe, reader in readers.items()}

    async def _kill(self, place: Place, name: str, unit: RunningUnit) -> None:
        sandbox = place.sandbox
        with trio.CancelScope(shield=True):
            await sandbox.kill(name)
            with trio.move_on_after(KILL_S):
                await unit.over.wait()
            if not unit.over.is_set():
                for neighbour in sandbox.units.values():
                    neighbour.starved = unit.overdue
                await place.pool.discard(sandbox)

    def _collect(
        self, folder: int, limits: Limits, keep: Callable[[bytes], None] | None
    ) -> tuple[outputs.Left, BlobId]:
        left = outputs.read(folder, limits.output_mib << 20)
        if keep is not None:
            keep(left.output)
            return left, BlobId(b"")
        return left, self._put(left.output)


async def _listen(pipe: str, stream: trio.lowlevel.FdStream, logs: Logs) -> None:
    async with stream:
        while data := await stream.receive_some(READ_BYTES):
            logs.feed(pipe, data)
            if logs.flooded:
                await trio.sleep(PAUSE_S)
