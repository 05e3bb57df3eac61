"""Finds the panels that this account was drawn for, and has panels drawn that were called.

Who may sit on a panel hopes for a place on it: where both parties are gone, that is who has it drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import trio

from tallymesh.errors import ChainError
from tallymesh_ledger.court import SEED_DELAY, Case, CaseState, Terms
from tallymesh_ledger.eip712 import keccak
from tallymesh_node.duties import SLACK_S, Duties
from tallymesh_node.looks import tried
from tallymesh_node.quarrels.member import Membership
from tallymesh_node.quarrels.record import DrawnLine, MemberRecord
from tallymesh_node.quarrels.tools import Tools, look_s

MAX_CALLS = 64  # called panels that are looked at for a draw; the oldest first: who opened a case draws its panel too
CALL_BLOCKS = 8  # after the seed's block, that the parties have to draw the panel; nodes follow …
CALL_SPREAD = 32  # … within so many blocks, each at its own, so that only one of them pays for it


class Members(Duties[Tools, MemberRecord, Case]):
    COUNTED = "panels_drawn"

    def __init__(self, tools: Tools, terms: Terms) -> None:
        super().__init__(tools, MemberRecord, window_s=terms.voting_s, pause_s=look_s(terms))
        self.terms = terms
        self._ruled: set[bytes] = set()  # cases that were called lately, and are over

    async def _look(self, nursery: trio.Nursery) -> None:
        await super()._look(nursery)
        await self._draw()

    # Panels of this account.

    async def _drawn(self, since: int) -> Iterable[bytes]:
        return await self.tools.court.panels(since)

    async def _waiting(self, subject: bytes) -> Case | None:
        found = await self.tools.court.case_of(subject)
        return found if found is not None and found.state is CaseState.VOTING else None

    async def _draw_of(self, subject: bytes, found: Case) -> Sequence[MemberRecord]:
        """All of its places on a panel are one duty."""
        members, me = await self.tools.court.members(subject, self.terms.size(found)), self.tools.key.address
        places = tuple((member.number, member.attempt) for member in members if member.account == me)
        return [MemberRecord(DrawnLine(subject, found.round, found.seed, places))] if places else []

    def _duty(self, record: MemberRecord) -> Membership:
        return Membership(self.tools, self.terms, record)

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
