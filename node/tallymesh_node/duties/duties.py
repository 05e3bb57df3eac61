"""Finds the duties of one role: what was drawn lately, and whether this account is among those that were drawn.

Every look goes over all draws that may still need somebody, so an event that was missed costs a delay. Each duty is a
task of its own (duty.py), at most MAX_OPEN of them. This module knows no contract: what was drawn says the role.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

import trio

from tallymesh import exchange
from tallymesh.errors import ChainError, LocalError
from tallymesh_node import beats
from tallymesh_node.duties.duty import Duty, Record, Tools
from tallymesh_node.duties.record import DRAWN, OVER
from tallymesh_node.lines import EndLine

log = logging.getLogger("tallymesh.duties")

MAX_OPEN = 16  # duties at work or waiting for their end: each recomputes a unit, or a step of one, and may hold a bond
SLACK_S = 60  # a draw is looked at for so much longer than it can need us: clocks and blocks differ
KEEP_S = 24 * 3600  # journals of duties that are over: a draw must not be taken for new, and pay can be explained
PRUNE_LOOKS = 1000  # between looks for journals that can be forgotten


class Seeded(Protocol):
    @property
    def seed(self) -> bytes: ...


Found = TypeVar("Found", bound=Seeded)


class Duties(ABC, Generic[Tools, Record, Found]):
    """`records` is the class of the role's records, `window_s` for how long a draw may need its accounts, `pause_s`
    the time between looks. `run` goes on until it is cancelled."""

    COUNTED: ClassVar[str]  # the counter of duties taken on

    def __init__(self, tools: Tools, records: type[Record], *, window_s: int, pause_s: float) -> None:
        self.tools = tools
        self.open: dict[str, Duty[Tools, Record]] = {}  # by journal scope
        self._records = records
        self._window_s = window_s
        self._pause_s = pause_s
        self._mine: dict[tuple[bytes, bytes], Sequence[Record]] = {}  # (claim or case, seed) -> this account's
        self._known: set[str] = set()  # scopes on disk
        self.begun = False  # whether the journal was read

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {list(self.open.values())}>"

    # What the role says.

    @abstractmethod
    async def _drawn(self, since: int) -> Iterable[bytes]:
        """Claims or cases that were drawn for since then, chain time."""

    @abstractmethod
    async def _waiting(self, subject: bytes) -> Found | None:
        """As the chain has it; None where it waits for nobody that was drawn."""

    @abstractmethod
    async def _draw_of(self, subject: bytes, found: Found) -> Sequence[Record]:
        """What this account was drawn for."""

    @abstractmethod
    def _duty(self, record: Record) -> Duty[Tools, Record]: ...

    # For the owner.

    @property
    def idle(self) -> bool:
        return not self.open

    def problems(self) -> list[tuple[str, str]]:
        return [each.problem for each in self.open.values() if each.problem is not None]

    # Looking.

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for scope in self.tools.journal.scopes(self._records.SCOPES):
                self._known.add(scope)
                record = self._records.replay(self.tools.journal.read(scope))
                if record.over is None:
                    self._begin(nursery, record)
            self.begun = True
            looks = 0
            while True:
                try:
                    await self._look(nursery)
                    if looks % PRUNE_LOOKS == 0:
                        await self._prune()
                except (ChainError, LocalError) as error:
                    log.debug("%r cannot look: %s", self, error)
                looks += 1
                await beats.pause(self._pause_s)

    async def _look(self, nursery: trio.Nursery) -> None:
        live: set[tuple[bytes, bytes]] = set()
        for subject in await self._drawn(self.tools.chain.block_time() - self._window_s - SLACK_S):
            found = await self._waiting(subject)
            if found is None:
                continue
            key = subject, found.seed
            live.add(key)
            if key not in self._mine:
                self._mine[key] = await self._draw_of(subject, found)
            for record in self._mine[key]:
                if record.scope not in self._known and len(self.open) < MAX_OPEN:
                    await self._take(nursery, record)
        self._mine = {key: records for key, records in self._mine.items() if key in live}

    async def _take(self, nursery: trio.Nursery, record: Record) -> None:
        await self.tools.journal.append(record.scope, (DRAWN, exchange.encode(record.line)))
        self._known.add(record.scope)
        self.tools.counters[self.COUNTED] += 1
        log.info("drawn: %r", record)
        self._begin(nursery, record)

    def _begin(self, nursery: trio.Nursery, record: Record) -> None:
        duty = self.open[record.scope] = self._duty(record)
        nursery.start_soon(self._run, duty)

    async def _run(self, duty: Duty[Tools, Record]) -> None:
        scope, subject = duty.record.scope, duty.record.subject
        try:
            await duty.run()
        finally:
            self.open.pop(scope, None)
        if all(other.record.subject != subject for other in self.open.values()):
            await self.tools.executor.close_job(self.tools.sandbox_of(subject))

    async def _prune(self) -> None:
        for scope in self.tools.journal.scopes(self._records.SCOPES):
            entries = self.tools.journal.read(scope)
            if entries and entries[-1].kind == OVER:
                over = exchange.decode(entries[-1].body, EndLine)
                if self.tools.chain.block_time() > over.at + KEEP_S + self._window_s:
                    await self.tools.journal.drop(scope)
                    self._known.discard(scope)
            await trio.lowlevel.checkpoint()
