"""Two Receipts of one worker with different leaves for one position: kept, because they prove fraud by themselves.

A payer that sees the second one refuses it and gives the worker up; the proof is made elsewhere (quarrels/fraud.py),
from this journal alone. Also finds the first one again, which the book forgets once its unit is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping

from tallymesh import exchange, wire
from tallymesh.exchange import Body
from tallymesh.messages import Receipt
from tallymesh_node.interfaces import Journal
from tallymesh_node.payer import records

SCOPE = "contradiction/"  # of the journal: one a seat
RECEIPTS = "receipts"  # kind of its first line; what follows is the prover's
PAYER = "payer/"  # scopes of jobs


class Contradiction(Body, frozen=True):
    order: bytes  # under the payer's signature
    lease: bytes  # under the worker's
    position: int
    one: bytes  # Receipts, under the worker's
    other: bytes


async def keep(
    journal: Journal, job: bytes, order: bytes, lease: bytes, receipts: Mapping[int, bytes], second: bytes
) -> None:
    """Durable when it returns; the first pair of a seat is enough. LocalError `disk`."""
    receipt: Receipt = wire.decode(second, Receipt).message
    scope = SCOPE + receipt.seat.hex()
    first = receipts.get(receipt.position) or receipt_of(journal, job, receipt.seat, receipt.position)
    if first and not journal.read(scope):
        line = Contradiction(order, lease, receipt.position, first, second)
        await journal.append(scope, (RECEIPTS, exchange.encode(line)))


def receipt_of(journal: Journal, job: bytes, seat: bytes, position: int) -> bytes:
    """The worker's Receipt as the job's journal has it, b"" where it has none."""
    for entry in journal.read(PAYER + job.hex()):
        if entry.kind == records.Received.__name__:
            record = records.read(entry.kind, entry.body)
            assert isinstance(record, records.Received)
            receipt: Receipt = wire.decode(record.receipt, Receipt).message
            if (receipt.seat, receipt.position) == (seat, position):
                return record.receipt
    return b""
