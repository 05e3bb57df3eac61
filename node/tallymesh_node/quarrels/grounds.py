"""What a payer's own books hold against a worker: units that drawn auditors recomputed with another result.

Two auditors that agree are grounds. The payer's own recomputation never is: it keeps a payer from paying, and nobody
else has to believe it. Pure; what follows from grounds is decided in worth.py and accusing.py.
"""

from __future__ import annotations

from collections import Counter

from tallymesh import units, wire
from tallymesh.exchange import Body, Opening, Source
from tallymesh.ids import ZERO32, SeatId
from tallymesh.messages import Assign, Lease, Order, Receipt
from tallymesh.units import Unit
from tallymesh_ledger.audit import Audit, CallState, Outcome
from tallymesh_ledger.claims import NO_OUTPUT
from tallymesh_ledger.court import Charge, Statement, Word, accusation_of
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import seat_id
from tallymesh_node.payer.book import Book
from tallymesh_node.quarrels.serving import Dossier

CONFIRMING = 2  # auditors that found the same other end


class Grounds(Body, frozen=True):
    """All that an accusation needs, as it was signed: kept in its journal, so that nothing else has to be."""

    order: bytes  # under the payer's signature
    lease: bytes  # under the worker's
    position: int
    receipt: bytes  # the worker's word
    opening: Opening  # of its leaf
    assign: bytes  # the signer's
    unit: bytes
    end: bytes  # what the auditors found
    worker: Source  # where the worker was


def grounds_of(book: Book) -> list[Grounds]:
    """One a seat, the first: a lock is taken once."""
    found = []
    for held in book.all():
        if not held.convicted or held.agreed is None:
            continue
        for position, audit in sorted(held.audits.items()):
            end = confirmed(audit)
            if end and position in held.receipts and position in held.assigns:
                found.append(
                    Grounds(
                        book.order_signed.body, held.agreed.body, position, held.receipts[position],
                        held.seat.openings[position], held.assigns[position], units.encode(held.units[position]),
                        end, held.peer,
                    )
                )  # fmt: skip
                break
    return found


def confirmed(audit: Audit) -> bytes:
    """The end that two drawn auditors found instead of the worker's, as the Court names it; b"" where there is none."""
    if audit.outcome is not Outcome.CONVICTED:
        return b""
    ends = Counter(call.end for call in audit.calls if call.state is CallState.DONE and call.end)
    for end, auditors in ends.most_common(1):
        if auditors >= CONFIRMING:
            return NO_OUTPUT if end == ZERO32 else end
    return b""


class Ground:
    """Grounds, read."""

    def __init__(self, domains: Domains, grounds: Grounds, me: bytes) -> None:
        self.grounds = grounds
        self.order: Order = wire.decode(grounds.order, Order).message
        self.lease: Lease = wire.decode(grounds.lease, Lease).message
        self.seat: SeatId = seat_id(domains, self.lease)
        self.unit: Unit = units.decode_unit(grounds.unit)
        self.id = accusation_of(self.seat, grounds.position, grounds.opening, me)

    def __repr__(self) -> str:
        return f"<Ground {self.seat[:4].hex()}@{self.grounds.position}>"

    def charge(self, steps: int) -> Charge:
        """The start is the unit's, and the leaf's: this payer took no receipt that says another."""
        grounds = self.grounds
        receipt = wire.decode(grounds.receipt, Receipt)
        return Charge(
            position=grounds.position,
            statement=Statement(word=Word.RECEIPT, leaf=receipt.message.leaf, signature=receipt.signature),
            opening=grounds.opening,
            assign=wire.decode(grounds.assign, Assign).signature,
            own_start=self.unit.start,
            own_end=grounds.end,
            steps=steps,
        )

    def dossier(self) -> Dossier:
        grounds = self.grounds
        return Dossier(
            order=grounds.order,
            lease=grounds.lease,
            template=self.order.template,
            unit=grounds.unit,
            opening=grounds.opening,
            sources=(grounds.worker,),
        )
