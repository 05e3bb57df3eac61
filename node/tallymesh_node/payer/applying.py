"""Records into the book: one function a kind. A record that contradicts what is known is refused and changes nothing.

Signatures were checked before the record was made; nothing here is checked twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tallymesh import units, wire
from tallymesh.errors import RemoteError
from tallymesh.ids import ZERO32, BlobId, UnitId
from tallymesh.messages import (
    Accept,
    Assign,
    AuditReason,
    Close,
    Lease,
    Leave,
    Receipt,
    Release,
)
from tallymesh.plan import Node, Task
from tallymesh.text import sentence as one_line
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.phases import Phase
from tallymesh_node.payer import judging
from tallymesh_node.payer import records as r
from tallymesh_node.payer.book import Book
from tallymesh_node.payer.held import Held
from tallymesh_node.unit_inputs import names_of, shared_names_of
from tallymesh_scheduler.leases import LeaseEvent, LeaseState, step


def apply(book: Book, record: r.Record) -> None:
    """One record. RemoteError where it is refused."""
    TABLE[type(record)](book, record)
    book.version += 1


# Leases.


def _leased(book: Book, record: r.Leased) -> None:
    offered = wire.decode(record.lease, Lease)
    seat = seat_id(book.domains, offered.message)
    book.helds[seat] = Held(
        seat,
        offered,
        stage=record.stage,
        peer=record.peer,
        width=record.width,
        tally_units=book.order.tally_units,
        newcomer=record.newcomer,
        owner=record.owner,
    )


def _agreed(book: Book, record: r.Agreed) -> None:
    held = book.held(record.seat)
    held.state = step(held.state, LeaseEvent.AGREE)
    held.agreed = wire.decode(record.lease, Lease)


def _declined(book: Book, record: r.Declined) -> None:
    held = book.held(record.seat)
    held.state = step(held.state, LeaseEvent.REFUSE)
    held.problem = (record.code, record.sentence)
    book.void(held, 0)


def _seated(book: Book, record: r.Seated) -> None:
    held = book.held(record.seat)
    held.state = step(held.state, LeaseEvent.SEAT)
    if record.newcomer and not held.newcomer:  # what was to secure the seat was released before it was taken
        held.newcomer = True
        for closed in held.pending_tallies():
            if closed.secret:
                judging.force_all(book, held, closed.range)


# Work.


def _assigned(book: Book, record: r.Assigned) -> None:
    assign: Assign = wire.decode(record.assign, Assign).message
    held = book.held(assign.seat)
    unit = units.decode_unit(record.unit)
    if not held.seat.assign(assign.position, assign.unit_id):
        return
    held.assigns[assign.position] = record.assign
    held.units[assign.position] = unit
    held.nodes.append(Node(*record.node))
    held.blobs.update(names_of(unit))
    book.place(Task(Node(*record.node), unit, UnitId(assign.unit_id)), held, assign.position)
    book.given.gave(held.account, shared_names_of(unit))


def _received(book: Book, record: r.Received) -> None:
    receipt: Receipt = wire.decode(record.receipt, Receipt).message
    held = book.held(receipt.seat)
    if not held.seat.receive(receipt.position, receipt.leaf, record.opening):
        return
    held.receipts[receipt.position] = record.receipt
    held.metrics[receipt.position] = record.metrics
    held.seconds[receipt.position] = record.seconds
    if book.training:
        book.given.made(shared_names_of(held.units[receipt.position]), record.opening.end)
        book.makers[record.opening.end] = held.peer
    if record.check:
        held.unchecked.add(receipt.position)
    judging.dispute(book, UnitId(record.opening.unit_id))
    book.use(held, receipt.position)


def _checked(book: Book, record: r.Checked) -> None:
    held = book.held(record.seat)
    held.unchecked.discard(record.position)
    if record.bad:
        held.bad[record.position] = record.sentence
        for closed in held.pending_tallies():
            if closed.secret and closed.range.start <= record.position < closed.range.end:
                judging.force(book, held, record.position, AuditReason.FORCED)
    book.use(held, record.position)


def _failed(book: Book, record: r.Failed) -> None:
    book.held(record.seat).failures.setdefault(record.position, (record.code, record.sentence))


def _accepted(book: Book, record: r.Accepted) -> None:
    accept = wire.decode(record.accept, Accept)
    held = book.held(accept.message.seat)
    before = held.seat.accepted_units
    if not held.seat.accept(accept.message):
        return
    held.accepts.append(accept)
    for position in range(before, held.seat.accepted_units):
        book.use(held, position)
        for kept in (held.assigns, held.units, held.receipts):
            kept.pop(position, None)  # nothing can ask for them any more


# Endings.


def _closeasked(book: Book, record: r.CloseAsked) -> None:
    close: Close = wire.decode(record.close, Close).message
    held = book.held(close.seat)
    held.seat.close(close.position, final=close.final)
    held.close = record.close
    if close.final:
        held.state = step(held.state, LeaseEvent.END)


def _cancelled(book: Book, record: r.Cancelled) -> None:
    held = book.held(record.seat)
    if held.seat.phase is not Phase.FORFEITED:
        held.seat.cancel()
        book.void(held, held.seat.goal)
    held.cancel = record.cancel
    if held.state in (LeaseState.SEATED, LeaseState.ENDING):
        held.state = step(held.state, LeaseEvent.END)


def _left(book: Book, record: r.Left) -> None:
    leave: Leave = wire.decode(record.leave, Leave).message
    held = book.held(leave.seat)
    held.seat.leave()
    book.void(held, held.seat.goal)
    held.problem = held.problem or ("left", f"The worker left: {one_line(leave.code, 80)}.")
    if held.state in (LeaseState.SEATED, LeaseState.ENDING):
        held.state = step(held.state, LeaseEvent.END)


def _givenup(book: Book, record: r.GivenUp) -> None:
    held = book.held(record.seat)
    held.state = step(held.state, LeaseEvent.LOSE)
    held.problem = (record.code, record.sentence)
    if held.seat.phase in (Phase.OPEN, Phase.CLOSING):
        held.seat.leave()
        if record.cut >= 0:
            held.seat.cut(record.cut)
        book.void(held, held.seat.goal)


def _forfeited(book: Book, record: r.Forfeited) -> None:
    first = book.held(record.seat)
    book.convicted[first.account] = record.sentence
    for held in book.all():
        if held.account != first.account or held.seat.phase is Phase.RELEASED:
            continue
        if held.state in (LeaseState.SEATED, LeaseState.ENDING, LeaseState.LOST):
            held.state = step(held.state, LeaseEvent.LOSE)
        held.seat.forfeit()
        held.problem = ("convicted", record.sentence)
        book.void(held, held.seat.accepted_units)
        for position, audit in held.audits.items():
            if audit.own_end not in (None, ZERO32) and position >= held.seat.accepted_units:
                book.produce(UnitId(held.seat.assigned[position]), BlobId(audit.own_end or ZERO32))
                judging.dispute(book, UnitId(held.seat.assigned[position]))


def _released(book: Book, record: r.Released) -> None:
    release = wire.decode(record.release, Release)
    held = book.held(release.message.seat)
    if release.message.units > held.seat.accepted_units:
        raise RemoteError("unpaid", "The Release names more units than were accepted.")
    held.seat.release()
    held.release = release


def _closed(book: Book, record: r.Closed) -> None:
    held = book.held(record.seat)
    held.paid_units = record.paid_units
    held.state = step(held.state, LeaseEvent.CLOSE)
    if not held.convicted:
        book.void(held, held.seat.accepted_units)  # can be paid no more, so the job cannot stand on it either


def _evaluated(book: Book, record: r.Evaluated) -> None:
    for later in [number for number in book.evaluated if number > record.round]:
        del book.evaluated[later]  # measured on a state that was done again
    book.evaluated[record.round] = (record.state, json.loads(record.metrics))


def _opened(book: Book, record: r.Opened) -> None:
    book.opened = True


def _ending(book: Book, record: r.Ending) -> None:
    book.ending = record


def _settled(book: Book, record: r.Settled) -> None:
    book.settled = record


def _archived(book: Book, record: r.Archived) -> None:
    book.archived_at = record.at


TABLE: dict[type[r.Record], Callable[[Book, Any], None]] = {
    r.Opened: _opened,
    r.Leased: _leased,
    r.Agreed: _agreed,
    r.Declined: _declined,
    r.Seated: _seated,
    r.Assigned: _assigned,
    r.Received: _received,
    r.Checked: _checked,
    r.Failed: _failed,
    r.Tallied: judging.tallied,
    r.Shown: judging.shown,
    r.Called: judging.called,
    r.Committed: judging.committed,
    r.Handed: judging.handed,
    r.Judged: judging.judged,
    r.Silent: judging.silent,
    r.Recomputed: judging.recomputed,
    r.Unsteady: judging.unsteady,
    r.Accepted: _accepted,
    r.CloseAsked: _closeasked,
    r.Cancelled: _cancelled,
    r.Left: _left,
    r.GivenUp: _givenup,
    r.Forfeited: _forfeited,
    r.Released: _released,
    r.Closed: _closed,
    r.Evaluated: _evaluated,
    r.Ending: _ending,
    r.Settled: _settled,
    r.Archived: _archived,
}
