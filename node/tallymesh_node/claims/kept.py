"""What a claim needs of the worker's own journal: leaves, openings, the signer's Assigns, the units' bytes.

The worker keeps a seat's lines until its lock has ended, so that nothing has to be kept twice. Reads, and writes
nothing.
"""

from __future__ import annotations

from tallymesh import exchange, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import AssignRequest, ForfeitRequest, Opening
from tallymesh.ids import BlobId
from tallymesh.messages import Assign, Result, Verdict
from tallymesh.units import decode_unit
from tallymesh_ledger import keys
from tallymesh_ledger.eip712 import Domains
from tallymesh_node.interfaces import Journal
from tallymesh_node.unit_inputs import names_of
from tallymesh_node.worker.record import SCOPE, Line, SeatRecord


class Kept:
    """One seat as its journal tells it now."""

    def __init__(self, domains: Domains, journal: Journal, seat: bytes) -> None:
        """KeyError where this node has (or keeps) no such seat."""
        entries = journal.read(SCOPE + seat.hex())
        if not entries:
            raise KeyError(seat)
        self.record = SeatRecord.replay(domains, entries)
        self.assigns: dict[int, AssignRequest] = {}
        for entry in entries:
            if entry.kind == Line.ASSIGN:
                request = exchange.decode(entry.body, AssignRequest)
                self.assigns[wire.decode(request.assign, Assign).message.position] = request

    def leaves(self, positions: range) -> list[bytes]:
        return [self.record.seat.leaves[position] for position in positions]

    def shown(self, position: int) -> tuple[Opening, bytes]:
        """The leaf's opening and the signature of its Assign."""
        return self.record.seat.openings[position], wire.decode(self.assigns[position].assign, Assign).signature

    def blobs(self, position: int) -> set[BlobId]:
        """What whoever runs this unit again has to have. Nothing of its output, unless a later unit takes it."""
        return {BlobId(self.record.order.template), *names_of(decode_unit(self.assigns[position].unit))}


def unpaid_end(record: SeatRecord) -> int:
    """Contiguous receipts that count, from position 0 on. What a payer declares void counts here: it is its word only,
    and a claim is what decides about it."""
    seat = record.seat
    return seat.received if record.forfeited is not None else min(seat.received, seat.goal)


def accusers(domains: Domains, forfeited: ForfeitRequest | None) -> set[bytes]:
    """Accounts that signed a MISMATCH among the verdicts that the payer showed when it forfeited the seat."""
    found = set()
    for data in forfeited.verdicts if forfeited else ():
        try:
            signed = wire.decode(data, Verdict)
            if signed.message.result == Result.MISMATCH:
                found.add(keys.recover(domains.digest(signed.message), signed.signature))
        except (RemoteError, ValueError):
            continue  # what nobody signed convicts nobody
    return found
