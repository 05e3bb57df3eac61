"""The node's executor: runs units in bubblewrap sandboxes, one sandbox a job, all forked from one warm template.

It bounds how many units run at once (the cores that the owner sells) and gives each its place: a job's sandbox, and a
card where it asks for one. What happens there is in running.py. Where no sandbox works it refuses: LocalError
`no_sandbox`. It never falls back to anything weaker.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from tallymesh import wheels
from tallymesh.errors import LocalError, RemoteError
from tallymesh.ids import BlobId
from tallymesh.units import Unit, encode
from tallymesh.wheels import Wheel
from tallymesh_learning.runtime import profile
from tallymesh_node.gpus import DEVICES, Card, binds, names
from tallymesh_node.interfaces import Failure, Limits, OnLine, OnMetric, Outcome
from tallymesh_node.sandbox import groups
from tallymesh_node.sandbox.cards import PROOF, Cards
from tallymesh_node.sandbox.command import Command, build
from tallymesh_node.sandbox.logs import Logs
from tallymesh_node.sandbox.packages import BASE_ONLY, Packages
from tallymesh_node.sandbox.pool import Pool
from tallymesh_node.sandbox.running import Counters, Place, Task, Units
from tallymesh_node.sandbox.spool import SET, Spool
from tallymesh_node.sandbox.status import SandboxStatus
from tallymesh_node.sandbox.strict import StrictPool
from tallymesh_node.sandbox.zygote import CONTROL, Zygote

FORM_CHECK = "tallymesh:loss_check"  # the step that says `form` of another unit's output
TASKS = {"canary": "tallymesh_learning.runtime.canary:run"}  # functions of the runtime that `run_task` may name
CARD_TASKS = {  # and those of `run_card_task`
    name: f"tallymesh_learning.runtime.card:{name}" for name in ("measure", "fill", "leftovers", "others", "greedy")
}
CARD_WARM = "tallymesh_learning.runtime.warm:load"  # what a card's template does first: nothing that wakes CUDA
BAD_CARD = "The card that the unit computed on does not compute as it did: it is lent no more."


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
        self._units: Units | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """LocalError `spool_busy` where another node uses the folder. Does not wait for the template."""
        async with AsyncExitStack() as stack:
            self._spool = Spool(self._folder, foreign=os.geteuid() == 0)
            stack.callback(self._spool.close)
            self._units = Units(self._spool, self._put, self._groups, self.counters)
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
    def units(self) -> Units:
        """What runs one unit in its place."""
        assert self._units is not None, "the executor is used outside `async with`"
        return self._units

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
                return await self._run(Task(files, blobs, limits, logs), self._place(job, kind))
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
        task = Task({"payload": payload}, {}, limits or Limits(), logs, TASKS[name], kept.append)
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
        task = Task({"payload": payload}, {}, limits, logs, CARD_TASKS[name], kept.append)
        job, pool = f"card/{name}/{next(self._names)}".encode(), self._card_pools[card]
        try:
            async with pool.job(job) as sandbox:
                await self.units.run(Place(pool, sandbox, card), task)
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
    async def _place(self, job: bytes, kind: str) -> AsyncIterator[Place]:
        """Where a unit of this profile runs, held as long as it does."""
        if kind == profile.CPU:
            async with self.pool.job(job) as sandbox:
                yield Place(self.pool, sandbox)
            return
        async with self.cards.one() as card, AsyncExitStack() as stack:
            pool = self._card_pools[card]
            try:
                sandbox = await stack.enter_async_context(pool.job(job))
            except LocalError as error:  # such as a file of the driver that is not there any more
                if error.code != "no_sandbox" or await self._is_sound(card):
                    raise
                raise Failure("sandbox", BAD_CARD) from None
            yield Place(pool, sandbox, card)

    async def _run(self, task: Task, place: AbstractAsyncContextManager[Place]) -> Outcome:
        """Within a slot, in its place."""
        async with self._slots, place as found:
            try:
                return await self.units.run(found, task)
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
