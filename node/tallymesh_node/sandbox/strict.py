"""The strict backend: every job has an outer sandbox and a template of its own, which nobody used before and nobody
uses after it. A few wait warm, so that a job need not wait seconds for one.

With the usual backend all jobs are forks of one template: they share what it has in memory (the same addresses, the
same state of every generator), and whoever took a job's first process over would be one step away from all others.
Here nothing is shared but the machine. The price: 210 MB and two seconds of a core for each job.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import trio

from tallymesh.errors import LocalError
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox.channel import Closed
from tallymesh_node.sandbox.command import Command
from tallymesh_node.sandbox.jobs import JobSandbox
from tallymesh_node.sandbox.pool import RESTART_S, STABLE_S, Pool
from tallymesh_node.sandbox.spool import Spool
from tallymesh_node.sandbox.status import SandboxStatus, check_sandbox
from tallymesh_node.sandbox.zygote import Zygote

log = logging.getLogger(__name__)

SPARES: Final = 2  # warm ones that wait: a job and its audit often come together; each holds 210 MB
JOBS_MAX: Final = 8  # open at once, for the same memory
JOB: Final = "job"  # the only one in its template; its folder in the template's own spool


class _Spare(NamedTuple):
    folder: str  # of the spool: all that this template can see of it
    zygote: Zygote


class StrictPool(Pool):
    """As `Pool`; `command` is given the folder of the spool that the template may see."""

    def __init__(
        self,
        spool: Spool,
        nursery: trio.Nursery,
        command: Callable[[Path], Command],
        check: Callable[[], SandboxStatus] = check_sandbox,
        *,
        at_once: bool = True,
        prefix: str = "",
    ) -> None:
        super().__init__(spool, nursery, lambda: command(spool.folder), check, at_once=at_once, prefix=prefix)
        self._jobs_max = JOBS_MAX
        self._command_for = command
        self._folders = itertools.count(1)
        self._spares: list[_Spare] = []
        self._taken = trio.Event()

    @property
    def templates(self) -> list[Zygote]:
        open_ones = [slot.sandbox.zygote for slot in self._jobs.values() if slot.sandbox is not None]
        return [each for each in (*(spare.zygote for spare in self._spares), *open_ones) if each.alive]

    async def supervise(self) -> None:
        """Check, then keep SPARES templates warm, one after the other; for ever."""
        failures = 0
        while True:
            await self._wait_available()
            await self.wanted.wait()
            self._sort_out()
            if len(self._spares) >= SPARES:
                with trio.move_on_after(STABLE_S):  # also to notice one that died unused
                    await self._taken.wait()
                continue
            self._taken = trio.Event()
            if await self._warm_one():
                failures = 0
                continue
            failures += 1
            await trio.sleep(RESTART_S[min(failures, len(RESTART_S)) - 1])

    async def wait_ready(self) -> Zygote:
        """A warm template that no job has, when there is one. LocalError `no_sandbox` where there can be none."""
        self.wanted.set()
        while True:
            self._sort_out()
            if self._spares:
                return self._spares[0].zygote
            if self.status is not None and not self.status.available:
                raise LocalError("no_sandbox", self.status.sentence, remedy=self.status.remedy)
            await self._changed.wait()

    async def _warm_one(self) -> bool:
        folder = f"{self._prefix}t{next(self._folders)}"
        try:
            self._spool.open_job(folder)
        except LocalError as error:
            self._say(SandboxStatus(available=False, sentence=error.sentence, remedy=error.remedy))
            return False
        zygote = await self._start(lambda: self._command_for(self._spool.folder / folder))
        if zygote is None:
            self._spool.remove(folder)
            return False
        self._spares.append(_Spare(folder, zygote))
        self.zygote = zygote
        self._announce()
        return True

    async def _open(self) -> JobSandbox:
        await self.wait_ready()
        folder, zygote = self._spares.pop(0)
        self._taken.set()
        name = f"{folder}/{JOB}"
        try:
            self._spool.open_job(name)
            sandbox = JobSandbox(name, await zygote.open_job(JOB), zygote)
        except BaseException as error:
            await self._end(folder, zygote)
            if isinstance(error, Closed):
                raise Failure("sandbox", "The process that was to run the job died.") from None
            raise
        return await self._opened(sandbox)

    async def _bury(self, sandbox: JobSandbox) -> None:
        """With its template: that was the job's, too."""
        await self._end(sandbox.name.partition("/")[0], sandbox.zygote)

    async def _end(self, folder: str, zygote: Zygote) -> None:
        with trio.CancelScope(shield=True):
            zygote.kill()
            await zygote.dead.wait()
            self._spool.remove(folder)

    def _sort_out(self) -> None:
        """Forget spares that died."""
        for spare in [each for each in self._spares if not each.zygote.alive]:
            log.warning("a waiting template died: %s", spare.zygote.diagnostics or "it said nothing")
            self._spares.remove(spare)
            self._spool.remove(spare.folder)
