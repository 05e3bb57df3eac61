"""Records of tallies and audits into the book: see applying.py."""

from __future__ import annotations

from tallymesh import wire
from tallymesh.ids import UnitId
from tallymesh.messages import AuditCommit, AuditOrder, AuditReason, Open, Result, Tally, Verdict
from tallymesh_ledger import sampling
from tallymesh_ledger.audit import Audit, CallState, Outcome, Subject
from tallymesh_ledger.seat import Range
from tallymesh_node.payer import records as r
from tallymesh_node.payer import replicas
from tallymesh_node.payer.book import Book, Calling
from tallymesh_node.payer.held import Held
from tallymesh_node.unit_inputs import shared_names_of


def tallied(book: Book, record: r.Tallied) -> None:
    tally: Tally = wire.decode(record.tally, Tally).message
    held = book.held(tally.seat)
    if held.seat.tally(tally):
        held.tallies.append(record.tally)


def shown(book: Book, record: r.Shown) -> None:
    held = book.held(record.seat)
    if not held.seat.show_secret(record.number, book.secrets.of(held.lease, record.number)):
        return
    covered = held.seat.tallies[record.number - 1].range
    seed = book.seed(held, record.number)
    k = sampling.sample_count(seed, covered.count, book.order.audit_rate_bp)
    reason = AuditReason.FIRST if record.number == 1 else AuditReason.DRAWN
    for index in sorted(sampling.draw_units(seed, covered.count, k)):
        force(book, held, covered.start + index, reason)
    if held.newcomer:
        force_all(book, held, covered)
    for position in sorted(held.bad):
        if covered.start <= position < covered.end:
            force(book, held, position, AuditReason.FORCED)


def dispute(book: Book, unit: UnitId) -> None:
    """Where runs of one unit contradict each other, each is recomputed: a single bad unit is found for certain."""
    for held, position in replicas.disputed(book, unit):
        held.bad.setdefault(position, replicas.DISPUTED)
        for closed in held.pending_tallies():
            if closed.secret and closed.range.start <= position < closed.range.end:
                force(book, held, position, AuditReason.FORCED)


def force_all(book: Book, held: Held, covered: Range) -> None:
    """Of a newcomer each unit is recomputed."""
    for position in range(covered.start, covered.end):
        force(book, held, position, AuditReason.FORCED)


def force(book: Book, held: Held, position: int, reason: AuditReason) -> None:
    if position in held.audits:
        return
    number = held.seat.tally_of(position)
    covered = held.seat.tallies[number - 1].range
    subject = Subject(
        seed=book.seed(held, number),
        index=position - covered.start,
        end=held.seat.openings[position].end,
        reason=reason,
    )
    held.audits[position] = Audit(
        subject, auditors_min=book.parameters.auditors_min, answers_max=book.parameters.audit_answers_max
    )


def called(book: Book, record: r.Called) -> None:
    order = wire.decode(record.order, AuditOrder)
    message: AuditOrder = order.message
    held = book.held(message.seat)
    audit = held.audits[message.position]
    audit.ordered(message.draw, message.attempt, message.auditor)
    digest = book.domains.digest(message)
    book.given.called(digest, message.auditor, audit.subject.end)
    book.given.gave(message.auditor, shared_names_of(held.units[message.position]))
    book.calls.setdefault(digest, Calling(order, held, audit, audit.call_of(message.auditor)))
    book.orders[held.id, message.position, message.auditor] = digest


def committed(book: Book, record: r.Committed) -> None:
    commit = wire.decode(record.commit, AuditCommit)
    calling = book.calls[commit.message.audit_order]
    calling.audit.commit(calling.call.auditor, commit.message.commitment)
    calling.commit = commit
    book.given.bound(commit.message.audit_order)


def handed(book: Book, record: r.Handed) -> None:
    opened = wire.decode(record.open, Open)
    calling = book.calls[opened.message.audit_order]
    calling.audit.open(calling.call.auditor)
    calling.open = opened


def judged(book: Book, record: r.Judged) -> None:
    verdict = wire.decode(record.verdict, Verdict)
    message: Verdict = verdict.message
    calling = book.calls[message.audit_order]
    if not calling.audit.verdict(
        calling.call.auditor, Result(message.result), message.end, message.salt, message.probe
    ):
        return
    calling.verdict = verdict
    book.given.bound(message.audit_order)  # without a commitment: it had not the inputs
    if calling.call.state is CallState.DONE and message.result != Result.UNAVAILABLE:
        book.recomputations += 1
    book.use(calling.held, calling.order.message.position)
    strike(book, calling.audit)


def silent(book: Book, record: r.Silent) -> None:
    calling = book.calls[record.audit_order]
    calling.audit.silence(calling.call.auditor)
    book.given.bound(record.audit_order)


def recomputed(book: Book, record: r.Recomputed) -> None:
    held = book.held(record.seat)
    audit = held.audits[record.position]
    if audit.own_end is None:
        book.recomputations += 1
    audit.recomputed(record.end, record.draws)
    book.use(held, record.position)
    strike(book, audit)


def unsteady(book: Book, record: r.Unsteady) -> None:
    book.held(record.seat).audits[record.position].unsteady()


def strike(book: Book, audit: Audit) -> None:
    book.struck |= audit.struck
    if audit.outcome in (Outcome.SOUND, Outcome.CONVICTED):
        book.struck |= audit.outvoted
