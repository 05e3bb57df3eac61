"""One seat of this worker as its journal tells it: what was agreed, assigned, signed and answered.

Every line of the journal is one event; `apply` takes them one by one, while the node runs and after a crash alike, so
what a restarted node believes and repeats is exactly what it had on disk. This module does no I/O and checks no
signatures: a line is written only after its check.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from tallymesh import exchange, wire
from tallymesh.exchange import AssignRequest, Body, FailureRequest, ForfeitRequest, ReceiptRequest, Source
from tallymesh.ids import SeatId
from tallymesh.messages import Accept, Assign, Cancel, Close, Lease, Leave, Order, Receipt, Release, Tally
from tallymesh.units import decode_unit
from tallymesh.wire import Signed
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.phases import Phase
from tallymesh_ledger.seat import Seat
from tallymesh_node.interfaces import Entry
from tallymesh_node.unit_inputs import names_of

SCOPE = "worker/"  # journal scopes: one a seat


class Line(StrEnum):
    """Kinds of journal lines."""

    LEASE = "lease"
    ASSIGN = "assign"
    RECEIPT = "receipt"
    FAILURE = "failure"
    TALLY = "tally"
    SECRET = "secret"
    ACCEPT = "accept"
    CLOSE = "close"
    CANCEL = "cancel"
    CUT = "cut"
    LEAVE = "leave"
    FORFEIT = "forfeit"
    RELEASE = "release"
    EVIDENCE = "evidence"  # a wrong secret, a refusal: what a quarrel may need later
    OVER = "over"  # nothing more to do for this seat


class LeaseLine(Body, frozen=True):
    order: bytes
    offered: bytes  # the Lease under the signer's signature: also our ticket for the job's blobs
    lease: bytes  # the same under ours
    payer: Source
    at: int  # chain time


class ReceiptLine(Body, frozen=True):
    request: bytes  # ReceiptRequest without what is inlined: that is put in again from the blob store
    at: int


class SecretLine(Body, frozen=True):
    number: int
    secret: bytes


class OverLine(Body, frozen=True):
    code: str
    at: int


class SeatRecord:
    """Contract: the record depends on the sequence of applied lines alone; a line that is refused changed nothing."""

    def __init__(self, domains: Domains, line: LeaseLine) -> None:
        self.line = line
        self.order: Order = wire.decode(line.order, Order).message
        self.lease: Lease = wire.decode(line.lease, Lease).message
        self.id: SeatId = seat_id(domains, self.lease)
        self.payer = line.payer
        self.seat = Seat(self.id, self.lease, self.order.tally_units)
        self.waiting: dict[int, AssignRequest] = {}  # assigned, not done
        self.receipts: dict[int, ReceiptRequest] = {}  # not accepted yet
        self.failures: dict[int, FailureRequest] = {}
        self.tallies: dict[int, bytes] = {}  # ours, signed
        self.voucher: Signed | None = None  # the Accept that pays most
        self.cancelled = False
        self.leave = b""
        self.leave_code = ""
        self.release = b""
        self.forfeited: ForfeitRequest | None = None
        self.evidence: list[tuple[str, bytes]] = []
        self.over: OverLine | None = None
        self.blobs: set[bytes] = {self.order.template}  # what belongs to this job as far as we hold it
        self.tallied_at = line.at  # when the newest tally was closed, or the seat began
        self._receipt_times: dict[int, int] = {}  # of receipts in no tally yet

    def __repr__(self) -> str:
        paid = self.voucher.message.units if self.voucher else 0
        return f"<SeatRecord {self.seat!r} waiting={len(self.waiting)} voucher={paid} {self.leave_code or ''}>"

    @classmethod
    def replay(cls, domains: Domains, entries: Iterable[Entry]) -> SeatRecord:
        """From the lines of its scope, the first of which is the lease."""
        lines = iter(entries)
        first = next(lines)
        assert first.kind == Line.LEASE, first.kind
        record = cls(domains, exchange.decode(first.body, LeaseLine))
        for entry in lines:
            record.apply(Line(entry.kind), entry.body)
        return record

    @property
    def scope(self) -> str:
        return SCOPE + self.id.hex()

    @property
    def voucher_units(self) -> int:
        """Units that we hold the signer's word for."""
        return self.voucher.message.units if self.voucher else 0

    @property
    def earned(self) -> bool:
        """Everything that counts is accepted, and nothing more will be assigned."""
        seat = self.seat
        return seat.finished_at is not None and max(seat.accepted_units, self.voucher_units) >= seat.goal

    @property
    def oldest_receipt_at(self) -> int | None:
        """Chain time of the first receipt that is in no tally."""
        return self._receipt_times.get(self.seat.tallied)

    @property
    def failed_at(self) -> int | None:
        """The first position that gave no output: nothing from there on can ever be tallied."""
        return min(self.failures, default=None)

    def secret_hash(self, number: int) -> bytes:
        """What the payer signed as the hash of c_number: in the Lease, or in the Accept two tallies before."""
        if number <= 2:
            return self.lease.secret_1 if number == 1 else self.lease.secret_2
        return next((a.next_secret for a in self.seat.accepts if a.tally == number - 2), b"")

    def misfit(self, accept: Accept) -> str:
        """ "" if the seat would take this new Accept now, else the code of what is wrong with it."""
        seat = self.seat
        if seat.phase not in (Phase.OPEN, Phase.CLOSING):
            return "out_of_order"
        if accept.tally != len(seat.accepts) + 1 or accept.tally > len(seat.tallies):
            return "out_of_order"
        closed = seat.tallies[accept.tally - 1]
        if (accept.units, accept.chain) != (closed.range.end, closed.chain):
            return "bad_accept"
        return "" if closed.secret else "no_secret"

    def apply(self, kind: Line, body: bytes) -> None:
        """One event. RemoteError where the seat refuses it: then nothing changed."""
        getattr(self, f"_{kind.value}")(body)

    # One method a line, in the order in which they usually happen.

    def _assign(self, body: bytes) -> None:
        request = exchange.decode(body, AssignRequest)
        assign: Assign = wire.decode(request.assign, Assign).message
        names = names_of(decode_unit(request.unit))
        if self.seat.assign(assign.position, assign.unit_id):
            self.waiting[assign.position] = request
            self.blobs.update(names)

    def _receipt(self, body: bytes) -> None:
        line = exchange.decode(body, ReceiptLine)
        request = exchange.decode(line.request, ReceiptRequest)
        receipt: Receipt = wire.decode(request.receipt, Receipt).message
        if self.seat.receive(receipt.position, receipt.leaf, request.opening):
            self.waiting.pop(receipt.position, None)
            self.receipts[receipt.position] = request
            self.blobs.add(request.opening.end)
            self._receipt_times[receipt.position] = line.at

    def _failure(self, body: bytes) -> None:
        request = exchange.decode(body, FailureRequest)
        self.waiting.pop(request.position, None)
        self.failures[request.position] = request

    def _tally(self, body: bytes) -> None:
        tally: Tally = wire.decode(body, Tally).message
        if self.seat.tally(tally):
            self.tallies[tally.number] = body
            times = [self._receipt_times.pop(p) for p in range(tally.start, tally.start + tally.count)]
            self.tallied_at = max(times)

    def _secret(self, body: bytes) -> None:
        line = exchange.decode(body, SecretLine)
        self.seat.show_secret(line.number, line.secret)

    def _accept(self, body: bytes) -> None:
        signed = wire.decode(body, Accept)
        if signed.message.units > self.voucher_units:
            self.voucher = signed
        # The escrow pays any Accept; one that does not fit what we tallied is kept as money and believed no further.
        if not self.misfit(signed.message):
            self.seat.accept(signed.message)
        for position in [p for p in self.receipts if p < self.seat.accepted_units]:
            del self.receipts[position]

    def _close(self, body: bytes) -> None:
        close: Close = wire.decode(body, Close).message
        self.seat.close(close.position, final=close.final)
        self._finish()

    def _cancel(self, body: bytes) -> None:
        wire.decode(body, Cancel)
        self.seat.cancel()
        self.cancelled = True
        self._finish()

    def _cut(self, body: bytes) -> None:
        self.seat.cut(int(body))
        self._finish()

    def _leave(self, body: bytes) -> None:
        leave: Leave = wire.decode(body, Leave).message
        self.seat.leave()
        self.leave, self.leave_code = body, leave.code
        self._finish()

    def _forfeit(self, body: bytes) -> None:
        self.seat.forfeit()
        self.forfeited = exchange.decode(body, ForfeitRequest)
        self._finish()

    def _release(self, body: bytes) -> None:
        wire.decode(body, Release)
        if self.seat.settled:
            self.seat.release()
        self.release = body

    def _evidence(self, body: bytes) -> None:
        code, data = msgspec.msgpack.decode(body, type=tuple[str, bytes])
        self.evidence.append((code, data))

    def _over(self, body: bytes) -> None:
        self.over = exchange.decode(body, OverLine)

    def _finish(self) -> None:
        """What no longer counts is not run any more."""
        if self.seat.finished_at is not None:
            for position in [p for p in self.waiting if p >= self.seat.finished_at]:
                del self.waiting[position]


def evidence(code: str, data: bytes) -> bytes:
    """Body of an EVIDENCE line."""
    return msgspec.msgpack.encode((code, data))
