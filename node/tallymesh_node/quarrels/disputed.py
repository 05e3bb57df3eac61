"""Gets a case's disputed unit from its parties, and finds the value that they quarrel about.

Nothing that a party says is believed: the seat's id proves the lease, the lease's job the order; the case's id proves
an accusation's leaf, and so the unit, and of a claim's sample the chain names it; blobs have the names of their
content. No journal, and no vote.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tallymesh import exchange, units
from tallymesh.errors import RemoteError
from tallymesh.exchange import CourtUnitAnswer, CourtUnitRequest, Source
from tallymesh.units import Unit
from tallymesh_ledger import court
from tallymesh_ledger.court import UNSERVED, Case, Origin, Parties
from tallymesh_ledger.eip712 import Domains
from tallymesh_node.claims import calls
from tallymesh_node.claims.calls import Call
from tallymesh_node.looks import obtained
from tallymesh_node.quarrels.tools import Tools, log
from tallymesh_node.quarrels.values import cut
from tallymesh_node.unit_inputs import fetch_inputs

REQUEST_S = 10.0


class Shown(msgspec.Struct, frozen=True):
    """A party's answer that is this case's unit."""

    call: Call
    sources: tuple[Source, ...]


class Foreign(Exception):
    """The order does not pay for the disputed unit: whoever quarrels about it gets nothing."""


def read(
    domains: Domains, case: bytes, parties: Parties, origin: Origin, answer: CourtUnitAnswer, *, peer: str
) -> Call:
    """RemoteError names the first thing that is wrong."""

    def require(holds: bool, code: str, sentence: str) -> None:
        if not holds:
            raise RemoteError(code, sentence, peer=peer)

    order, job, lease = calls.terms_of(domains, origin.seat, answer.order, answer.lease, peer=peer)
    expected = origin.unit_id
    if not expected:
        opening = answer.opening
        require(opening is not None, "no_opening", "The unit of an accusation needs its leaf's opening.")
        assert opening is not None
        whose = court.accusation_of(origin.seat, origin.position, opening, parties.accuser)
        require(whose == case, "wrong_opening", "The opening is not that of the leaf that the case is about.")
        expected = opening.unit_id
    unit = units.decode_unit(answer.unit, peer=peer)
    require(units.unit_id(unit) == expected, "wrong_unit", "The unit is not the one that the case is about.")
    return Call(order=order, job=job, lease=lease, position=origin.position, index=0, unit=unit)


class Disputed:
    """For one panel of one case, as the chain had it when it was drawn."""

    def __init__(self, tools: Tools, case: bytes, found: Case, parties: Parties, origin: Origin) -> None:
        self.tools = tools
        self.case = case
        self.found = found
        self.parties = parties
        self.origin = origin
        self.ticket = exchange.encode(CourtUnitRequest(case, found.round))
        self._call: Call | None = None
        # An accuser that counted too few steps gains nothing by it: its last value is the end all the same.
        self._last = found.hi > 0 and found.hi >= origin.steps

    def __repr__(self) -> str:
        return f"<Disputed {self.case[:4].hex()} value {self.found.hi} from {self.found.lo}>"

    async def fetch(self) -> None:
        """The unit, checked, with all that it takes. Goes on until it could be had: whoever waits sets the time.
        Foreign where it is none that the order pays for."""
        await obtained(self._from_either, self)

    async def _from_either(self) -> None:
        try:
            await self._from(self.parties.accused)
        except RemoteError as error:
            log.debug("%r: %s", self, error)
            await self._from(self.parties.accuser)

    async def _from(self, account: bytes) -> None:
        """Asked anew for every attempt: a party that was started again has forgotten whom it answered."""
        tools = self.tools
        source = tools.source_of(account)
        if source is None:
            raise RemoteError("unknown_peer", "No offer says where this party of the case is reached.")
        body = await tools.network.request(source, CourtUnitRequest.NAME, self.ticket, timeout_s=REQUEST_S)
        answer = exchange.decode(body, CourtUnitAnswer, peer=source.peer_id)
        call = read(tools.domains, self.case, self.parties, self.origin, answer, peer=source.peer_id)
        sources = (source, *answer.sources, *self._others(account))
        spec = await tools.specs.obtain(call.order.template, b"", sources, ticket=self.ticket, timeout_s=REQUEST_S)
        try:
            calls.check(call, spec, peer=source.peer_id)
        except RemoteError as error:
            raise Foreign(error.sentence) from None
        await self._obtain(call.unit, sources)
        self._call = call

    def _others(self, account: bytes) -> list[Source]:
        other = self.parties.accuser if account == self.parties.accused else self.parties.accused
        source = self.tools.source_of(other)
        return [] if source is None else [source]

    async def _obtain(self, unit: Unit, sources: Sequence[Source]) -> None:
        found, grace_s = self.found, self.tools.parameters.unit_grace_s
        part = cut(unit, found.agreed, found.lo, found.hi, last=self._last)
        if isinstance(part, Unit):
            await fetch_inputs(self.tools.blobs, part, sources, ticket=self.ticket, timeout_s=grace_s)

    async def value(self) -> bytes:
        """The disputed one. `fetch` came before. LocalError `own_fault` where this machine cannot say."""
        assert self._call is not None
        call, found = self._call, self.found
        values = self.tools.values(self.case, call.order, call.lease.work_ms, call.unit)
        result = await values.between(found.agreed, found.lo, found.hi, last=self._last)
        assert result != UNSERVED, "no hash is zero"
        return result
