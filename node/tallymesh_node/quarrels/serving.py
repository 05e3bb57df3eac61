"""A party's door for members of the Court: `court_unit`, and the blobs of the disputed unit.

Both parties serve, each for its own sake: whom the members cannot hear loses. What a party has of a case stands in
a Dossier; who sits on its panel says the chain, which is asked once a panel. Nothing here is the party's own opinion.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec
import trio

from tallymesh import exchange
from tallymesh.errors import ChainError, RemoteError
from tallymesh.exchange import CourtUnitAnswer, CourtUnitRequest, Opening, Source
from tallymesh.ids import BlobId
from tallymesh.units import decode_unit
from tallymesh_ledger.court import MAX_REDRAWS, CaseState, Terms
from tallymesh_node.grants import Grants
from tallymesh_node.quarrels.tools import Tools
from tallymesh_node.unit_inputs import names_of

MAX_GRANTS = 512  # (peer, case, round) that were answered: an appeal's panel for each of sixteen cases
ROUNDS_MAX = 2 * (MAX_REDRAWS + 1)  # draws of a case, those of its appeal too
MAX_PANELS = 64  # panels of which the members are known
ASK_S = 2.0  # between two looks at one case for those who ask too early: strangers cost little


class Dossier(msgspec.Struct, frozen=True, kw_only=True):
    """What a party has of a case. Order and Lease are in their wire form, signed by whomever or nobody."""

    order: bytes
    lease: bytes
    template: bytes  # the order's
    unit: bytes
    opening: Opening | None = None  # in a case of an accusation
    sources: tuple[Source, ...] = ()  # others that may have the inputs


class _Panel(msgspec.Struct, frozen=True):
    members: frozenset[bytes]
    agreed: bytes
    asked_at: float  # trio time


class Serving:
    """`dossier_of` says what this node has of a case, None where it is no party (or the case is over)."""

    def __init__(self, tools: Tools, terms: Terms, dossier_of: Callable[[bytes], Dossier | None]) -> None:
        self.tools = tools
        self.terms = terms
        self.dossier_of = dossier_of
        self._grants = Grants()
        self._panels: OrderedDict[tuple[bytes, int], _Panel] = OrderedDict()  # (case, round)
        self._turn = trio.Lock()

    def open(self) -> None:
        self.tools.network.serve(CourtUnitRequest.NAME, self.unit)

    async def unit(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        request = exchange.decode(body, CourtUnitRequest, peer=peer)
        dossier = self.dossier_of(request.case)
        if dossier is None:
            raise RemoteError("unknown_case", "This node is no party of such a case.", peer=peer)
        account = self.tools.account_of(peer)
        if account is None:
            raise RemoteError("unknown_peer", "No valid binding says which account this peer speaks for.", peer=peer)
        if not 0 <= request.round < ROUNDS_MAX:
            raise RemoteError("not_drawn", f"No case has a panel {request.round}.", peer=peer)
        panel = await self._panel(request.case, request.round, account, peer)
        if account not in panel.members:
            raise RemoteError("not_drawn", "The chain drew other accounts for this panel.", peer=peer)
        blobs = {BlobId(dossier.template), *names_of(decode_unit(dossier.unit)), BlobId(panel.agreed)}
        self._grants.give(peer, exchange.encode(request), blobs, most=MAX_GRANTS)
        self.tools.counters["units_served"] += 1
        return exchange.encode(
            CourtUnitAnswer(dossier.order, dossier.lease, dossier.unit, dossier.opening, dossier.sources)
        )

    def may_fetch(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        """At once. The ticket is the request that was answered; after a restart it has to be asked again."""
        return self._grants.holds(peer_id, blob, ticket)

    async def _panel(self, case: bytes, round_: int, account: bytes, peer: str) -> _Panel:
        """Asked again for whom it does not hold: it may vote only now, or a reorganisation drew another one."""
        async with self._turn:
            panel = self._panels.get((case, round_))
            if panel is None or (account not in panel.members and trio.current_time() >= panel.asked_at + ASK_S):
                panel = self._panels[case, round_] = await self._ask(case, round_, peer)
                self._panels.move_to_end((case, round_))
                while len(self._panels) > MAX_PANELS:
                    self._panels.popitem(last=False)
        if not panel.members:
            raise RemoteError("not_yet", "This panel of the case does not vote now.", peer=peer)
        return panel

    async def _ask(self, case: bytes, round_: int, peer: str) -> _Panel:
        court, now = self.tools.court, trio.current_time()
        try:
            found = await court.case_of(case)
            if found is None or found.state is not CaseState.VOTING or found.round != round_:
                return _Panel(frozenset(), b"", now)
            members = await court.members(case, self.terms.size(found))
        except ChainError as error:
            raise RemoteError("not_yet", f"The chain cannot be asked now: {error.sentence}", peer=peer) from None
        return _Panel(frozenset(member.account for member in members), found.agreed, now)
