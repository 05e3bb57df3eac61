"""Finds the panels that this account was drawn for, and has panels drawn that were called.

Level-triggered: every look goes over all cases whose panel may still vote, so an event that was missed costs a delay.
Each panel is a task of its own (member.py), at most MAX_OPEN of them.
"""

from __future__ import annotations

import trio

from tallymesh import exchange
from tallymesh.errors import ChainError, LocalError
from tallymesh_ledger.court import SEED_DELAY, Case, CaseState, Terms
from tallymesh_ledger.eip712 import keccak
from tallymesh_node.quarrels.member import Membership
from tallymesh_node.quarrels.record import MEMBER, DrawnLine, Line, MemberRecord, OverLine
from tallymesh_node.quarrels.tools import Tools, log, look_s, tried

MAX_OPEN = 16  # panels at work or waiting for their ruling: each recomputes a unit, or a step of one
MAX_CALLS = 64  # called panels that are looked at for a draw; the oldest first: who opened a case draws its panel too
SLACK_S = 60  # a panel is looked at for so much longer than it can need us: clocks and blocks differ
KEEP_S = 24 * 3600  # journals of panels that are over: a draw must not be taken for new, and pay can be explained
PRUNE_LOOKS = 1000  # between looks for journals that can be forgotten
CALL_BLOCKS = 8  # after the seed's block, that the parties have to draw the panel; nodes follow …
CALL_SPREAD = 32  # … within so many blocks, each at its own, so that only one of them pays for it


class Members:
    """`run` goes on until it is cancelled."""

    def __init__(self, tools: Tools, terms: Terms) -> None:
        self.tools = tools
        self.terms = terms
        self.open: dict[str, Membership] = {}  # by journal scope
        self._drawn: dict[tuple[bytes, bytes], MemberRecord | None] = {}  # (case, seed) -> this account's places
        self._known: set[str] = set()  # scopes on disk
        self._ruled: set[bytes] = set()  # cases that were called lately, and are over

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for scope in self.tools.journal.scopes(MEMBER):
                self._known.add(scope)
                record = MemberRecord.replay(self.tools.journal.read(scope))
                if record.over is None:
                    self._begin(nursery, record)
            looks = 0
            while True:
                try:
                    await self._look(nursery)
                    await self._draw()
                    if looks % PRUNE_LOOKS == 0:
                        await self._prune()
                except (ChainError, LocalError) as error:
                    log.debug("the Court cannot be watched: %s", error)
                looks += 1
                await trio.sleep(look_s(self.terms))

    # For the owner.

    @property
    def idle(self) -> bool:
        return not self.open

    def problems(self) -> list[tuple[str, str]]:
        return [each.problem for each in self.open.values() if each.problem is not None]

    # Panels of this account.

    async def _look(self, nursery: trio.Nursery) -> None:
        since = self.tools.chain.block_time() - self.terms.voting_s - SLACK_S
        live: set[tuple[bytes, bytes]] = set()
        for case in await self.tools.court.panels(since):
            found = await self.tools.court.case_of(case)
            if found is not None and found.state is CaseState.VOTING:
                live.add((case, found.seed))
                await self._take(nursery, case, found)
        self._drawn = {key: record for key, record in self._drawn.items() if key in live}

    async def _take(self, nursery: trio.Nursery, case: bytes, found: Case) -> None:
        me = self.tools.key.address
        if (case, found.seed) not in self._drawn:
            members = await self.tools.court.members(case, self.terms.size(found))
            places = tuple((member.number, member.attempt) for member in members if member.account == me)
            line = DrawnLine(case, found.round, found.seed, places)
            self._drawn[case, found.seed] = MemberRecord(line) if places else None
        record = self._drawn[case, found.seed]
        if record is None or record.scope in self._known or len(self.open) >= MAX_OPEN:
            return
        await self.tools.journal.append(record.scope, (Line.DRAWN.value, exchange.encode(record.line)))
        self._known.add(record.scope)
        self.tools.counters["panels_drawn"] += 1
        log.info("drawn for case %s, round %d: %d places", case[:4].hex(), found.round, len(record.line.places))
        self._begin(nursery, record)

    def _begin(self, nursery: trio.Nursery, record: MemberRecord) -> None:
        membership = self.open[record.scope] = Membership(self.tools, self.terms, record)
        nursery.start_soon(self._run, membership)

    async def _run(self, membership: Membership) -> None:
        scope, case = membership.record.scope, membership.record.line.case
        try:
            await membership.run()
        finally:
            self.open.pop(scope, None)
        if all(other.record.line.case != case for other in self.open.values()):
            await self.tools.executor.close_job(self.tools.sandbox_of(case))

    # Panels that nobody has drawn.

    async def _draw(self) -> None:
        """The parties draw a panel; where both of them are gone, whoever may sit on it does."""
        court = self.tools.court
        called = await court.called(self.tools.chain.block_time() - self.terms.case_s - SLACK_S)
        self._ruled &= set(called)
        for case in [case for case in called if case not in self._ruled][:MAX_CALLS]:
            found = await court.case_of(case)
            if found is not None and found.state is CaseState.RULED:
                self._ruled.add(case)
            if found is None or found.state is not CaseState.DRAWING:
                continue
            head = await court.head()
            turn = int.from_bytes(keccak(case + self.tools.key.address)[:8], "big") % CALL_SPREAD
            if head > found.drawn_block + SEED_DELAY + CALL_BLOCKS + turn:
                await self._advance(case)

    async def _advance(self, case: bytes) -> None:
        """For a place on it, which this account hopes for."""
        try:
            if await tried("draw", self.tools.court.advance(case, brings_wei=self.terms.member_fee)):
                self.tools.counters["cases_advanced"] += 1
        except ChainError as error:
            if error.code != "not_worth_gas":
                raise

    async def _prune(self) -> None:
        for scope in self.tools.journal.scopes(MEMBER):
            entries = self.tools.journal.read(scope)
            if entries and entries[-1].kind == Line.OVER:
                over = exchange.decode(entries[-1].body, OverLine)
                if self.tools.chain.block_time() > over.at + KEEP_S + self.terms.voting_s:
                    await self.tools.journal.drop(scope)
                    self._known.discard(scope)
            await trio.lowlevel.checkpoint()
