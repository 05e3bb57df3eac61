"""One duty, from the draw to its end: a look now and then, at each the one thing that is due, whatever was in between.

What is due says the role (`_step`), from journal and chain alone. This module knows no contract and sends nothing.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import trio

from tallymesh import exchange
from tallymesh.errors import ChainError, LocalError
from tallymesh_node.complaints import told
from tallymesh_node.duties.record import OVER, DutyRecord
from tallymesh_node.lines import EndLine
from tallymesh_node.tools import CaseTools

log = logging.getLogger("tallymesh.duties")

GONE_S = 60  # of chain time without what it was drawn for (or under another seed): nothing of this draw comes back
DISK_RETRY_S = 5.0

Tools = TypeVar("Tools", bound=CaseTools)
Record = TypeVar("Record", bound=DutyRecord[Any])


class Over(Exception):
    """A duty's end, in one word."""

    def __init__(self, code: str) -> None:
        self.code = code


class Duty(ABC, Generic[Tools, Record]):
    """Contract: what is on disk when a step raises is what the next step goes on from."""

    COUNTED: ClassVar[str]  # the counter of an outcome is this and the outcome

    def __init__(self, tools: Tools, record: Record, pause_s: float) -> None:
        self.tools = tools
        self.record = record
        self.problem: tuple[str, str] | None = None  # (code, sentence) for the owner
        self._pause_s = pause_s
        self._gone_since: int | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.record!r}>"

    @abstractmethod
    async def _step(self) -> None:
        """The next thing that is due, by journal and chain. Over where nothing will be any more; ChainError and
        LocalError are told to the owner, and the next look tries again."""

    async def run(self) -> None:
        """Until it is over, and the journal has it."""
        code = ""
        while not code:
            try:
                await self._step()
                self.problem = None
            except Over as over:
                code = over.code
            except (ChainError, LocalError) as error:
                self.problem = told(error)
                log.debug("%r: %s", self.record, error)
            await trio.sleep(self._pause_s)
        self.tools.counters[f"{self.COUNTED}_{code}"] += 1
        log.info("%r: %s", self.record, code)
        line = exchange.encode(EndLine(code, self._now))
        while True:
            if await self._stored((OVER, line)):
                return
            await trio.sleep(DISK_RETRY_S)

    @property
    def _now(self) -> int:
        return self.tools.chain.block_time()

    def _still(self, there: bool) -> bool:
        """Whether the chain has it as it was drawn; false for a while after a reorganisation, then it is over."""
        if there:
            self._gone_since = None
            return True
        self._gone_since = self._now if self._gone_since is None else self._gone_since
        if self._now >= self._gone_since + GONE_S:
            raise Over("reorganised")
        return False

    async def _store(self, *lines: tuple[str, bytes]) -> None:
        """Durable, then known. LocalError where the disk refuses: then nothing is sent."""
        with trio.CancelScope(shield=True):
            await self.tools.journal.append(self.record.scope, *((str(kind), body) for kind, body in lines))
            for kind, body in lines:
                self.record.apply(kind, body)

    async def _stored(self, *lines: tuple[str, bytes]) -> bool:
        """The same, false where the disk refuses."""
        try:
            await self._store(*lines)
        except LocalError as error:
            log.error("%r cannot be stored: %s", self.record, error)
            return False
        return True
