"""Finds the samples that this account was drawn for: claims that got their seed lately, and who is drawn for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tallymesh_ledger.claims import Claim, ClaimState, Terms
from tallymesh_node.claims.auditing import Auditing
from tallymesh_node.claims.record import AuditRecord, DrawnLine
from tallymesh_node.claims.tools import Tools, look_s
from tallymesh_node.duties import Duties


class Watching(Duties[Tools, AuditRecord, Claim]):
    COUNTED = "draws"

    def __init__(self, tools: Tools, terms: Terms) -> None:
        super().__init__(tools, AuditRecord, window_s=terms.watched_s, pause_s=look_s(terms))
        self.terms = terms

    async def _drawn(self, since: int) -> Iterable[bytes]:
        return dict.fromkeys(await self.tools.claims.captured(since))

    async def _waiting(self, subject: bytes) -> Claim | None:
        found = await self.tools.claims.claim_of(subject)
        return found if found is not None and found.state is ClaimState.SAMPLING else None

    async def _draw_of(self, subject: bytes, found: Claim) -> Sequence[AuditRecord]:
        """Several samples of a claim may fall to one account."""
        draws = await self.tools.claims.draws(subject, found.k)
        mine = [draw for draw in draws if draw.auditor == self.tools.key.address]
        return [AuditRecord(DrawnLine(subject, found.seed, draw.sample, draw.rank, draw.attempt)) for draw in mine]

    def _duty(self, record: AuditRecord) -> Auditing:
        return Auditing(self.tools, self.terms, record)
