"""What every part of the claims' two sides needs, and how it waits and pays."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from tallymesh_ledger.claims import Terms
from tallymesh_node import looks
from tallymesh_node.interfaces import ClaimsChain
from tallymesh_node.tools import CaseTools

log = logging.getLogger("tallymesh.claims")

GRACE_SHARE = 0.5  # of the shortest window: before an auditor moves a claim on that its worker should move on


@dataclass(frozen=True, kw_only=True)
class Tools(CaseTools):
    SANDBOX: ClassVar[bytes] = b"tallymesh.claim.sandbox.1"

    claims: ClaimsChain

    async def can_put_up(self, bond: int) -> bool:
        """Whether this account has the tokens for a bond, after its credits were drawn where that helps."""
        have = await self.claims.tokens()
        if have >= bond:
            return True
        earned, held = await self.chain.credits(self.key.address), await self.claims.held(self.key.address)
        if have + earned + held < bond:
            return False
        if earned:
            await self.chain.withdraw()
        if held:
            await self.claims.collect()
        return await self.claims.tokens() >= bond


def look_s(terms: Terms) -> float:
    """Between looks at a claim."""
    return looks.pause_s(terms.commit_s, terms.open_s, terms.reveal_s, terms.challenge_s)


def grace_s(terms: Terms) -> float:
    return GRACE_SHARE * min(terms.open_s, terms.reveal_s, terms.challenge_s)
