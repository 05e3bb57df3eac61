"""Keeps one warm template alive and a table of open job sandboxes forked from it. Knows nothing of units' outcomes.

A template that dies is started again with growing pauses; sandboxes of the dead one are opened anew on their next use.
The number of open sandboxes is bounded: a sandbox keeps nothing between units, so the longest idle one can go.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from tallymesh.errors import LocalError
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox.channel import Closed
from tallymesh_node.sandbox.command import Command
from tallymesh_node.sandbox.jobs import JobSandbox
from tallymesh_node.sandbox.spool import Spool
from tallymesh_node.sandbox.status import SandboxStatus, check_sandbox
from tallymesh_node.sandbox.zygote import Zygote

log = logging.getLogger(__name__)

JOBS_MAX = 32  # open sandboxes, 7 MB each; opening one again costs its job 30 ms
WARM_S = 120.0  # torch's import and one step of each kind: 3 s, much more on a machine that swaps
CLOSE_S = 60.0  # for a killed job to be gone; measured 2 to 15 ms, and too early would end every other job, too
RESTART_S = (0.1, 1.0, 5.0, 30.0)  # pauses before the template's second, third, … start; the last one stays
STABLE_S = 60.0  # a template that lived so long is forgiven its earlier deaths
RECHECK_S = 60.0  # the owner may have mended what was missing


class _Slot:
    """One job's place in the table; the lock makes its first units wait for one opening."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.sandbox: JobSandbox | None = None
        self.users = 0
        self.used_s = 0.0
        self.closed = False


class Pool:
    """`supervise` must run, in the `nursery` that also holds the readers of the jobs' channels."""

    def __init__(
        self,
        spool: Spool,
        nursery: trio.Nursery,
        command: Callable[[], Command],
        check: Callable[[], SandboxStatus] = check_sandbox,
        *,
        at_once: bool = True,
        prefix: str = "",
    ) -> None:
        """`at_once`: whether a template is started before anything asks for one. `prefix`: of the folders in the spool,
        where several pools share it."""
        self.wanted = trio.Event()
        if at_once:
            self.wanted.set()
        self.status: SandboxStatus | None = None  # None until the first check is over
        self.zygote: Zygote | None = None
        self.sandboxes_opened = 0
        self.templates_started = 0
        self._spool = spool
        self._nursery = nursery
        self._command = command
        self._check = check
        self._jobs: dict[bytes, _Slot] = {}
        self._prefix = prefix
        self._names = itertools.count(1)
        self._jobs_max = JOBS_MAX
        self._changed = trio.Event()

    @property
    def open_jobs(self) -> int:
        return sum(slot.sandbox is not None and not slot.sandbox.dead.is_set() for slot in self._jobs.values())

    @property
    def templates(self) -> list[Zygote]:
        """All that live: every process of every job descends from one of them."""
        return [self.zygote] if self.zygote is not None and self.zygote.alive else []

    async def supervise(self) -> None:
        """Check, start a template when one is wanted, start it again when it dies; for ever."""
        deaths = 0
        while True:
            await self._wait_available()
            await self.wanted.wait()
            started = trio.current_time()
            await self._live()
            deaths = 1 if trio.current_time() - started > STABLE_S else deaths + 1
            await trio.sleep(RESTART_S[min(deaths, len(RESTART_S)) - 1])

    async def wait_ready(self) -> Zygote:
        """The warm template, when there is one. LocalError `no_sandbox` where there can be none."""
        self.wanted.set()
        while True:
            if self.zygote is not None and self.zygote.alive:
                return self.zygote
            if self.status is not None and not self.status.available:
                raise LocalError("no_sandbox", self.status.sentence, remedy=self.status.remedy)
            await self._changed.wait()

    @asynccontextmanager
    async def job(self, key: bytes) -> AsyncIterator[JobSandbox]:
        """The job's sandbox, opened if need be; it is not closed for want of room while it is used.

        Failure `sandbox`, or LocalError: `no_sandbox`, `disk`.
        """
        slot = self._jobs.get(key)
        if slot is None:
            slot = self._jobs[key] = _Slot()
        slot.users += 1
        try:
            async with slot.lock:
                if slot.closed:
                    raise Failure("sandbox", "The job was closed.")
                if slot.sandbox is not None and slot.sandbox.dead.is_set():
                    await self._close(slot)
                if slot.sandbox is None:
                    await self._make_room()
                    slot.sandbox = await self._open()
            yield slot.sandbox
        finally:
            slot.users -= 1
            slot.used_s = trio.current_time()
            if slot.sandbox is None and not slot.users and self._jobs.get(key) is slot:
                del self._jobs[key]  # it could not be opened: nothing to remember

    async def close_job(self, key: bytes) -> None:
        """Kill all of the job's and forget it; returns when nothing of it is left. Idempotent."""
        slot = self._jobs.pop(key, None)
        if slot is not None:
            slot.closed = True
            async with slot.lock:
                await self._close(slot)

    async def discard(self, sandbox: JobSandbox) -> None:
        """Kill a sandbox that does not answer; its job gets a new one on its next use."""
        await self._bury(sandbox)

    async def _wait_available(self) -> None:
        """Until a check finds that this machine has a sandbox."""
        while self.status is None or not self.status.available:
            status = await trio.to_thread.run_sync(self._check)
            self._say(status)
            if not status.available:
                await trio.sleep(RECHECK_S)

    async def _live(self) -> None:
        """One template from its start to its death."""
        zygote = await self._start(self._command)
        if zygote is not None:
            self.zygote = zygote
            self._announce()
            await zygote.dead.wait()
            log.warning("the template died: %s", zygote.diagnostics or "it said nothing")

    async def _start(self, command: Callable[[], Command]) -> Zygote | None:
        """A template, warm; None where it does not become so, and why is in `status`."""
        try:
            zygote = Zygote(command())
        except LocalError as error:
            self._say(SandboxStatus(available=False, sentence=error.sentence, remedy=error.remedy))
            return None
        self.templates_started += 1
        self._nursery.start_soon(zygote.serve)
        with trio.move_on_after(WARM_S):
            await zygote.ready.wait()
        if zygote.alive:
            log.info("template warm after %.1f s (pid %d)", zygote.warm_s, zygote.pid)
            return zygote
        zygote.kill()
        await zygote.dead.wait()
        last = zygote.diagnostics.rsplit("\n", 1)[-1] or f"nothing was said within {WARM_S:.0f} s"
        sentence = f"The process that runs jobs does not start: {last}"
        self._say(SandboxStatus(available=False, sentence=sentence, remedy="Look at the node's log."))
        log.error("%s\n%s", sentence, zygote.diagnostics)
        return None

    async def _open(self) -> JobSandbox:
        zygote = await self.wait_ready()
        name = f"{self._prefix}j{next(self._names)}"
        self._spool.open_job(name)
        try:
            sandbox = JobSandbox(name, await zygote.open_job(name), zygote)
        except BaseException as error:
            self._spool.remove(name)
            if isinstance(error, Closed):
                raise Failure("sandbox", "The process that runs jobs died.") from None
            raise
        return await self._opened(sandbox)

    async def _opened(self, sandbox: JobSandbox) -> JobSandbox:
        """When it has said so. Failure `sandbox` where it does not."""
        self._nursery.start_soon(sandbox.serve)
        try:
            await sandbox.wait_ready()
        except BaseException:
            await self._bury(sandbox)
            raise
        self.sandboxes_opened += 1
        return sandbox

    async def _make_room(self) -> None:
        """Close the longest idle sandbox if the table is full. Failure `sandbox` where none is idle."""
        if self.open_jobs < self._jobs_max:
            return
        idle = [(slot.used_s, key) for key, slot in self._jobs.items() if not slot.users and slot.sandbox is not None]
        if not idle:
            raise Failure("sandbox", f"{self._jobs_max} jobs run here already.")
        await self.close_job(min(idle)[1])

    async def _close(self, slot: _Slot) -> None:
        if slot.sandbox is not None:
            sandbox, slot.sandbox = slot.sandbox, None
            await self._bury(sandbox)

    async def _bury(self, sandbox: JobSandbox) -> None:
        """Whoever cancels: a job that was begun to be closed is closed."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(CLOSE_S) as scope:
                await sandbox.zygote.close_job(sandbox.name)
            if scope.cancelled_caught:
                log.error("a job's sandbox cannot be closed: ending the template")
                sandbox.zygote.kill()
                await sandbox.zygote.dead.wait()
            self._spool.remove(sandbox.name)

    def _say(self, status: SandboxStatus) -> None:
        self.status = status
        if not status.available:
            log.warning("no sandbox: %s %s", status.sentence, status.remedy)
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
