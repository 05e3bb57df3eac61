"""The worker's door for auditors that the chain drew for its claim: `claim_unit`, and the blobs of that unit.

Answered from memory and this node's journal; the chain was asked when the claim got its seed, so that a stranger's
question costs little. Nothing of the output is handed out.
"""

from __future__ import annotations

import trio

from tallymesh import exchange
from tallymesh.errors import RemoteError
from tallymesh.exchange import ClaimUnitAnswer, ClaimUnitRequest
from tallymesh.ids import BlobId
from tallymesh_ledger.claims import ClaimState
from tallymesh_node.claims.claimant import Claimant
from tallymesh_node.claims.kept import Kept
from tallymesh_node.claims.pursuing import Case
from tallymesh_node.claims.tools import Tools
from tallymesh_node.grants import Grants

MAX_GRANTS = 512  # (peer, claim, sample) that were answered: 3 ranks of 16 samples of ten claims


class Serving:
    def __init__(self, tools: Tools, claimant: Claimant) -> None:
        self.tools = tools
        self.claimant = claimant
        self._grants = Grants()

    def open(self) -> None:
        self.tools.network.serve(ClaimUnitRequest.NAME, self.unit)

    async def unit(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        request = exchange.decode(body, ClaimUnitRequest, peer=peer)
        case = self._case(request.claim, peer)
        assert case.record is not None
        assert case.claim is not None
        account = self.tools.account_of(peer)
        if account is None:
            raise RemoteError("unknown_peer", "No valid binding says which account this peer speaks for.", peer=peer)
        if all((draw.sample, draw.auditor) != (request.sample, account) for draw in case.draws[1]):
            raise RemoteError("not_drawn", "The chain drew other accounts for this sample.", peer=peer)
        kept = Kept(self.tools.domains, self.tools.journal, case.record.seat)
        position = case.claim.positions()[request.sample]
        self._grants.give(peer, exchange.encode(request), kept.blobs(position), most=MAX_GRANTS)
        assigned = kept.assigns[position]
        line = kept.record.line
        self.tools.counters["units_served"] += 1
        return exchange.encode(
            ClaimUnitAnswer(line.order, line.lease, assigned.assign, assigned.unit, assigned.sources)
        )

    def may_fetch(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        """At once. The ticket is the request that was answered; after a restart it has to be asked again."""
        return self._grants.holds(peer_id, blob, ticket)

    def _case(self, claim: bytes, peer: str) -> Case:
        for case in self.claimant.live:
            if case.record is not None and case.record.id == claim:
                if case.claim is None or case.claim.state is not ClaimState.SAMPLING or not case.draws[1]:
                    raise RemoteError("not_yet", "This claim waits for no auditor now.", peer=peer)
                return case
        raise RemoteError("unknown_claim", "This node has no such claim.", peer=peer)
