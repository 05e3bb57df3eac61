"""The node's executor: runs units in bubblewrap sandboxes, one sandbox a job, all forked from one warm template.

It bounds how many units run at once (the cores that the owner sells), puts inputs in the spool, passes on what units
say, judges how they ended, stores what they left, and kills on cancellation. Where no sandbox works it refuses:
LocalError `no_sandbox`. It never falls back to anything weaker.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import trio

from tallymesh import wheels
from tallymesh.errors import LocalError, RemoteError
from tallymesh.ids import BlobId
from tallymesh.units import Unit, encode
from tallymesh.wheels import Wheel
from tallymesh_learning.runtime import profile
from tallymesh_node.gpus import DEVICES, Card, binds, names
from tallymesh_node.interfaces import Failure, Limits, OnLine, OnMetric, Outcome
from tallymesh_node.sandbox import groups, outputs
from tallymesh_node.sandbox.cards import PROOF, Cards
from tallymesh_node.sandbox.command import Command, build
from tallymesh_node.sandbox.jobs import JobSandbox, RunningUnit
from tallymesh_node.sandbox.judging import judge
from tallymesh_node.sandbox.logs import Logs
from tallymesh_node.sandbox.packages import BASE_ONLY, Packages
from tallymesh_node.sandbox.pool import Pool
from tallymesh_node.sandbox.spool import NO_ROOM, SET, Spool
from tallymesh_node.sandbox.status import SandboxStatus
from tallymesh_node.sandbox.strict import StrictPool
from tallymesh_node.sandbox.zygote import CONTROL, Zygote

GRACE_S = 5.0  # beyond the unit's own limit, before a job's process that does not enforce it is killed
# For a killed unit to be gone; measured 2 to 15 ms. On a starved machine the job's process answers late, and is not
# broken for that: a sandbox that is given up fails every unit in it.
KILL_S = 30.0
DRAIN_S = 10.0  # for the last lines, when all writers are dead: at once, on a machine that is not starved
PAUSE_S = 0.02  # between reads from a unit that floods its log: 64 KiB each, 3 MB/s
READ_BYTES = 65536  # a pipe's capacity
LATENCIES_KEPT = 1000
INLINE_BYTES = 1 << 20  # larger outputs are read and stored in a thread
FORM_CHECK = "tallymesh:loss_check"  # the step that says `form` of another unit's output
TASKS = {"canary": "tallymesh_learning.runtime.canary:run"}  # functions of the runtime that `run_task` may name
CARD_TASKS = {  # and those of `run_card_task`
    name: f"tallymesh_learning.runtime.card:{name}" for name in ("measure", "fill", "leftovers", "others", "greedy")
}
CARD_WARM = "tallymesh_learning.runtime.warm:load"  # what a card's template does first: nothing that wakes CUDA
NO_GROUP = "The machine makes no control group, which alone bounds the memory of a unit with a card."
BAD_CARD = "The card that the unit computed on does not compute as it did: it is lent no more."


class Counters(msgspec.Struct):
    """Since the start. `start_s`: seconds from inputs present to the last moment before foreign code, newest units."""

    units_run: int = 0
    units_failed: int = 0
    start_s: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))


class _Place(NamedTuple):
    """Where a unit runs: a job's sandbox, of the pool that made it, and the card that it holds meanwhile."""

    pool: Pool
    sandbox: JobSandbox
    card: Card | None = None


class _Task(NamedTuple):
    """What is run there: inputs by the names that they get, and bounds. `function` of the runtime is called instead of
    the unit's own step; `keep` takes the output instead of the store."""

    files: Mapping[str, bytes]
    blobs: Mapping[str, Path]
    limits: Limits
    logs: Logs
    function: str = ""
    keep: Callable[[bytes], None] | None = None


RunTask = Callable[[str], Awaitable[bytes]]


class SandboxExecutor:
    """Implements `Executor`. Use as an async context manager; inside it a template is kept alive, from the beginning
    or, without `at_once`, from when something is to run first: that one waits two seconds, and until then nothing costs
    any.

    `spool` is a folder of its own in the node's data folder; `put` stores an output and names it (it may be called
    from a thread); `slots` units run side by side. All jobs together stay on the cores
    `cpus`, whatever they start (without it on any). `run` and `warm` name other functions than the runtime's, and
    `extra` the folders that they are imported from: for other runtimes, and for tests of what a hostile unit can do.
    `strict`: no two jobs are forks of one template (strict.py). `admit` is asked before packages of jobs are unpacked
    (packages.py); a unit that has some is refused where `base_only` says so of its job.

    `cards`: those that units of the `GPU` profile may have once they are proven. Each has a template of its own, in an
    outer sandbox that shows this card alone, whose files are in `devices`; `begin` and `card_warm` name other functions
    there as `run` and `warm` do. `doubt` is asked about a card on which a program failed: False withdraws it.
    """

    def __init__(
        self,
        spool: Path,
        put: Callable[[bytes], BlobId],
        *,
        slots: int,
        run: str = "",
        warm: str | None = None,
        extra: Sequence[Path] = (),
        cpus: Collection[int] = (),
        strict: bool = False,
        at_once: bool = True,
        admit: Callable[[int], None] = lambda size: None,
        base_only: Callable[[bytes], bool] = lambda job: False,
        cards: Sequence[Card] = (),
        devices: Path = DEVICES,
        begin: str | None = None,
        card_warm: str = CARD_WARM,
    ) -> None:
        self.counters = Counters()
        self.cards = Cards(cards)
        self.doubt: Callable[[Card, RunTask], Awaitable[bool]] | None = None
        self._devices = devices
        self._folder = spool
        self._put = put
        self._slots = trio.CapacityLimiter(slots)
        self._arguments = ["--control", CONTROL]
        self._arguments += ["--run", run] if run else []
        self._arguments += ["--cpus", ",".join(str(cpu) for cpu in sorted(cpus))] if cpus else []
        self._card_arguments = [*self._arguments, "--warm", card_warm]
        self._card_arguments += ["--begin", begin] if begin is not None else []
        self._arguments += ["--warm", warm] if warm is not None else []
        self._extra = tuple(extra)
        self._strict = strict
        self._at_once = at_once
        self._admit = admit
        self._base_only = base_only
        self._packages: Packages | None = None
        self._names = itertools.count(1)
        self._groups = groups.find()
        self._pool: Pool | None = None
        self._card_pools: dict[Card, Pool] = {}
        self._spool: Spool | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """LocalError `spool_busy` where another node uses the folder. Does not wait for the template."""
        async with AsyncExitStack() as stack:
            self._spool = Spool(self._folder, foreign=os.geteuid() == 0)
            stack.callback(self._spool.close)
            self._packages = Packages(self._folder.parent / f"{self._folder.name}-packages", self._admit)
            self._nursery = await stack.enter_async_context(trio.open_nursery())
            self._nursery.start_soon(self._packages.run)
            pool = StrictPool if self._strict else Pool
            self._pool = pool(self._spool, self._nursery, self._command, at_once=self._at_once)
            self._nursery.start_soon(self._pool.supervise)
            for card in self.cards.all:
                command, prefix = partial(self._card_command, card), f"c{card.minor}"
                of_card = pool(self._spool, self._nursery, command, at_once=False, prefix=prefix)
                self._card_pools[card] = of_card
                self._nursery.start_soon(of_card.supervise)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The body's exception is not shown to the nursery, which would wrap it in a group.
        self._nursery.cancel_scope.cancel()
        await self._stack.__aexit__(None, None, None)

    def __repr__(self) -> str:
        jobs = self._pool.open_jobs if self._pool else 0
        return f"<SandboxExecutor jobs={jobs} running={self.running}/{self._slots.total_tokens}>"

    @property
    def status(self) -> SandboxStatus | None:
        """What the last check found; None while the first one runs."""
        return self._pool.status if self._pool else None

    @property
    def running(self) -> int:
        """Units that run now."""
        return int(self._slots.borrowed_tokens)

    @property
    def pool(self) -> Pool:
        """The sandboxes behind it: counts for metrics, the template's process id."""
        assert self._pool is not None, "the executor is used outside `async with`"
        return self._pool

    @property
    def templates(self) -> list[Zygote]:
        """All that live, of cards, too."""
        return [each for pool in (self.pool, *self._card_pools.values()) for each in pool.templates]

    @property
    def bounds_memory(self) -> bool:
        """Whether the kernel bounds the memory of each unit by a control group: without that none has a card."""
        return self._groups is not None

    @property
    def packages(self) -> Packages:
        """The unpacked packages of jobs."""
        assert self._packages is not None, "the executor is used outside `async with`"
        return self._packages

    async def wait_ready(self) -> None:
        """Until a unit would start at once. LocalError `no_sandbox` where none can."""
        await self.pool.wait_ready()

    async def run(
        self,
        job: bytes,
        unit: Unit,
        inputs: Mapping[BlobId, Path],
        limits: Limits,
        *,
        probe_key: bytes = b"",
        on_line: OnLine | None = None,
        on_metric: OnMetric | None = None,
    ) -> Outcome:
        """See `Executor.run`. LocalError: `no_sandbox` where foreign code is refused, `disk` where there is no room."""
        wanted = {BlobId(unit.program), *(BlobId(item.blob) for item in unit.inputs)}
        missing = wanted - set(inputs)
        if missing:
            raise Failure("inputs", f"{len(missing)} of the unit's {len(wanted)} inputs are not here.")
        kind = profile.kind_of(unit.profile)
        if not kind:
            here, asked = profile.profile_hash().hex()[:8], unit.profile.hex()[:8]
            raise Failure("sandbox", f"The unit asks for the numeric profile {asked}, this machine has {here}.")
        files = {"unit": encode(unit), **({"probe": probe_key} if probe_key else {})}
        found = self._wheels_of(job, unit)
        blobs = {blob.hex(): inputs[blob] for blob in wanted - {wheel.blob for wheel in found}}
        logs = Logs(limits.lines, on_line, on_metric)
        try:
            async with self.packages.used(found, inputs) as name:
                files |= {SET: name.encode()} if name else {}
                return await self._run(_Task(files, blobs, limits, logs), self._place(job, kind))
        except Failure as failure:
            if failure.code == "form" and unit.entry != FORM_CHECK:  # only a check has a say on forms
                raise Failure("program", failure.sentence, failure.traceback) from None
            raise

    def _wheels_of(self, job: bytes, unit: Unit) -> tuple[Wheel, ...]:
        try:
            found = wheels.among(unit.inputs)
        except RemoteError as error:
            raise Failure("program", error.sentence) from None
        if found and self._base_only(job):
            raise Failure("sandbox", BASE_ONLY)
        return found

    async def run_task(self, name: str, payload: bytes = b"", *, limits: Limits | None = None) -> bytes:
        """Call a function of the runtime (KeyError: not one of TASKS) in a sandbox of its own; the bytes that it
        returns. It is called without an argument where the payload is empty. Failure and LocalError as for units."""
        kept: list[bytes] = []
        logs = Logs(0, None, None)
        task = _Task({"payload": payload}, {}, limits or Limits(), logs, TASKS[name], kept.append)
        job = f"task/{name}/{next(self._names)}".encode()
        try:
            await self._run(task, self._place(job, profile.CPU))
        finally:
            await self.close_job(job)
        return kept[0]

    async def run_card_task(
        self, card: Card, name: str, payload: bytes = b"", *, limits: Limits, on_line: OnLine | None = None
    ) -> bytes:
        """The same of CARD_TASKS, with `card` alone, proven or not: how the node tries it. Waits for it."""
        async with self._slots, self.cards.one(card):
            return await self._task_on(card, name, payload, limits, on_line)

    async def _task_on(self, card: Card, name: str, payload: bytes, limits: Limits, on_line: OnLine | None) -> bytes:
        """With slot and card in hand."""
        kept: list[bytes] = []
        logs = Logs(limits.lines, on_line, None)
        task = _Task({"payload": payload}, {}, limits, logs, CARD_TASKS[name], kept.append)
        job, pool = f"card/{name}/{next(self._names)}".encode(), self._card_pools[card]
        try:
            async with pool.job(job) as sandbox:
                await self._once(_Place(pool, sandbox, card), task)
        finally:
            await pool.close_job(job)
        return kept[0]

    async def prepare(self, job: bytes) -> None:
        """See `Executor.prepare`."""
        with contextlib.suppress(Failure, LocalError):
            async with self.pool.job(job):
                pass

    async def close_job(self, job: bytes) -> None:
        """See `Executor.close_job`. Units of the job that still run fail with code `sandbox`."""
        for pool in (self.pool, *self._card_pools.values()):
            await pool.close_job(job)

    @asynccontextmanager
    async def _place(self, job: bytes, kind: str) -> AsyncIterator[_Place]:
        """Where a unit of this profile runs, held as long as it does."""
        if kind == profile.CPU:
            async with self.pool.job(job) as sandbox:
                yield _Place(self.pool, sandbox)
            return
        async with self.cards.one() as card, AsyncExitStack() as stack:
            pool = self._card_pools[card]
            try:
                sandbox = await stack.enter_async_context(pool.job(job))
            except LocalError as error:  # such as a file of the driver that is not there any more
                if error.code != "no_sandbox" or await self._is_sound(card):
                    raise
                raise Failure("sandbox", BAD_CARD) from None
            yield _Place(pool, sandbox, card)

    async def _run(self, task: _Task, place: AbstractAsyncContextManager[_Place]) -> Outcome:
        """Within a slot, in its place."""
        async with self._slots, place as found:
            try:
                return await self._once(found, task)
            except Failure as failure:
                if found.card is None or not _doubtful(failure, task.logs) or await self._is_sound(found.card):
                    raise
                raise Failure("sandbox", BAD_CARD) from None

    async def _is_sound(self, card: Card) -> bool:
        """Whether a card that may be at fault computes as it did when it was proven; withdrawn where it does not."""
        if self.doubt is None:
            return True
        sound = await self.doubt(card, lambda task: self._task_on(card, task, b"", PROOF, None))
        if not sound:
            self.cards.withdraw(card)
        return sound

    async def _once(self, place: _Place, task: _Task) -> Outcome:
        """One unit from its inputs to its outcome."""
        name = f"u{next(self._names)}"
        assert self._spool is not None
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
            self.counters.units_failed += 1
            raise
        finally:
            unit.close()
            self._spool.remove(sandbox.name, name)
        start_s = max(0.0, (logs.begin_s or over) - present)
        self.counters.units_run += 1
        self.counters.start_s.append(start_s)
        return Outcome(
            output=blob,
            metrics=left.metrics,
            seconds={**left.seconds, "start": start_s, "store": time.monotonic() - over},
            cpu_s=ended.cpu_s,
            steps=left.steps,
            probe=left.probe,
        )

    async def _add(self, job: str, name: str, files: Mapping[str, bytes], blobs: Mapping[str, Path]) -> None:
        assert self._spool is not None
        try:
            await self._spool.add(job, name, files, blobs)
        except FileNotFoundError as error:
            raise Failure("inputs", f"An input is not here: {error.filename}.") from None
        except OSError as error:
            raise LocalError("disk", f"A unit's inputs cannot be put in place: {error}.", remedy=NO_ROOM) from None

    async def _watch(self, place: _Place, name: str, task: _Task) -> RunningUnit:
        """Fork the unit and pass on what it says until it and all that it started is dead."""
        limits, logs = task.limits, task.logs
        group = self._groups.open(limits.memory_mib, limits.disk_mib) if self._groups else None
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
        sandbox: JobSandbox, name: str, task: _Task, group: groups.Group | None
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

    async def _kill(self, place: _Place, name: str, unit: RunningUnit) -> None:
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

    def _command(self, folder: Path | None = None) -> Command:
        """How a template is started that sees `folder` of the spool, all of it by default."""
        assert self._spool is not None
        return build(
            folder or self._spool.folder,
            environment=profile.environment(),
            arguments=self._arguments,
            extra=self._extra,
            packages=self.packages.folder,
        )

    def _card_command(self, card: Card, folder: Path | None = None) -> Command:
        """The same of a template whose jobs have this card, and see no file of another."""
        assert self._spool is not None
        return build(
            folder or self._spool.folder,
            environment={**profile.environment(profile.GPU), **profile.shown(card.uuid)},
            arguments=[*self._card_arguments, "--devices", ",".join(names([card]))],
            extra=self._extra,
            packages=self.packages.folder,
            devices=binds([card], self._devices),
        )


def _doubtful(failure: Failure, logs: Logs) -> bool:
    """Whether the card that a unit had may be why it gave nothing: foreign code failed on it, or never began."""
    return failure.code in ("program", "limits") or (failure.code == "sandbox" and logs.begin_s is None)


async def _listen(pipe: str, stream: trio.lowlevel.FdStream, logs: Logs) -> None:
    async with stream:
        while data := await stream.receive_some(READ_BYTES):
            logs.feed(pipe, data)
            if logs.flooded:
                await trio.sleep(PAUSE_S)
