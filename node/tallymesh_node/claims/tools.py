"""What every part of the claims' two sides needs, and how it waits and pays."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from blake3 import blake3

from tallymesh.errors import ChainError
from tallymesh.exchange import Source
from tallymesh.parameters import Parameters
from tallymesh_ledger.claims import Terms
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Blobs, Chain, ClaimsChain, Executor, Journal, PeerNetwork
from tallymesh_node.unit_inputs import Specs

log = logging.getLogger("tallymesh.claims")

LOOKS = 25  # at a claim in the shortest of its windows: what is due is done in its first part
LOOK_MIN_S, LOOK_MAX_S = 1.0, 60.0
GRACE_SHARE = 0.5  # of the shortest window: before an auditor moves a claim on that its worker should move on


@dataclass(frozen=True)
class Tools:
    network: PeerNetwork
    blobs: Blobs
    executor: Executor
    chain: Chain
    claims: ClaimsChain
    journal: Journal
    domains: Domains
    key: AccountKey
    parameters: Parameters
    cores: Cores
    specs: Specs
    source_of: Callable[[bytes], Source | None]  # an account's peer, by its offer
    account_of: Callable[[str], bytes | None]  # the account that a valid PeerBinding gives a peer
    counters: Counter[str]

    @staticmethod
    def sandbox_of(claim: bytes) -> bytes:
        """The sandbox in which this node audits a claim: none in which it works for the same job."""
        return blake3(b"tallymesh.claim.sandbox.1" + claim).digest()

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
    shortest = min(terms.commit_s, terms.open_s, terms.reveal_s, terms.challenge_s)
    return min(LOOK_MAX_S, max(LOOK_MIN_S, shortest / LOOKS))


def grace_s(terms: Terms) -> float:
    return GRACE_SHARE * min(terms.open_s, terms.reveal_s, terms.challenge_s)


async def tried(what: str, call: Awaitable[None]) -> bool:
    """Send something that anybody may have sent before: what reverts was done already, or is not due any more; the
    next look at the chain says which. ChainError where the chain could not be asked."""
    try:
        await call
    except ChainError as error:
        if not error.reverted:
            raise
        log.info("%s: %s", what, error)
        return False
    return True
