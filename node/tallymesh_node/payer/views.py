"""A job as the HTTP API shows it. Pure: from the book, with a few live facts beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallymesh import wire
from tallymesh.api import AuditView, JobView, PeerView, Problem, ReceiptView
from tallymesh.errors import LocalError
from tallymesh.messages import Order, Result
from tallymesh.plan import AGGREGATE, CLIENT
from tallymesh_ledger.audit import CallState
from tallymesh_ledger.keys import checksum
from tallymesh_node.payer import replicas
from tallymesh_node.payer.announcing import metrics_of
from tallymesh_node.payer.book import Book
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.records import Submitted
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver


def job_view(driver: JobDriver) -> JobView:
    book = driver.book
    order, spec, ending = book.order, book.spec, book.ending
    problems = driver.problems()
    finished = book.settled.at if book.settled is not None else 0.0
    budget = order.wages + order.audit_reserve
    escrow = driver.escrow_wei if driver.escrow_wei is not None else (budget if book.opened else 0)
    return JobView(
        id=book.id.hex(),
        name=spec.name,
        kind=spec.kind,
        status=book.status,
        created=book.created,
        finished=finished,
        rounds=spec.rounds if book.training else 0,
        rounds_done=book.plan.rounds_done if book.training else 0,
        units=book.plan.total,
        units_done=units_done(book),
        redone=book.redone,
        replicated=replicas.agreed(book),
        audits=book.recomputations,
        metrics=book.metrics(),
        result=ending.result.hex() if ending is not None else "",
        budget_wei=str(budget),
        cost_wei=str(cost_wei(book)),
        escrow_wei=str(0 if book.archived_at else escrow),
        spec=order.template.hex(),
        peers=tuple(peer_view(book, held) for held in book.all() if held.state is not LeaseState.REFUSED),
        problem=problems[0] if problems and book.status != "done" else None,
    )


def stranded_view(job: str, submitted: Submitted, error: LocalError) -> JobView:
    """A job whose book cannot be opened here."""
    order: Order = wire.decode(submitted.order, Order).message
    budget = str(order.wages + order.audit_reserve)
    problem = Problem(error.code, error.sentence, error.remedy)
    created, spec = submitted.created, order.template.hex()
    return JobView(job, "", "", "failed", created, budget_wei=budget, escrow_wei=budget, spec=spec, problem=problem)


def units_done(book: Book) -> int:
    if book.spec.kind != "federated":
        return book.plan.rounds_done
    return book.plan.total - book.units_left(CLIENT) - book.units_left(AGGREGATE)


def cost_wei(book: Book) -> int:
    """Wages of accepted units and fees of verdicts: what the job has come to cost so far."""
    cost = sum(held.seat.accepted_units * held.lease.price for held in book.all())
    for calling in book.calls.values():
        if calling.call.state is CallState.DONE:
            fee = calling.order.message.fee
            cost += fee // 10 if calling.call.result is Result.UNAVAILABLE else fee
    return cost


def peer_view(book: Book, held: Held) -> PeerView:
    code, sentence = held.problem or ("", "")
    return PeerView(
        account=checksum(held.account),
        peer_id=held.peer.peer_id,
        seat=held.id.hex(),
        stage=book.spec.stages[held.stage].name,
        phase="forfeited" if held.convicted else held.state.value,
        price_wei=str(held.lease.price),
        assigned=len(held.seat.assigned),
        received=len(held.seat.leaves),
        accepted=held.seat.accepted_units,
        paid=held.paid_units,
        problem=Problem(code=code, sentence=sentence) if code else None,
    )


def receipt_views(book: Book) -> list[ReceiptView]:
    found = []
    for held in book.all():
        void = set(held.seat.void_positions()) if held.convicted or held.state is LeaseState.REFUSED else set()
        for position in sorted(held.seat.leaves):
            opening = held.seat.openings[position]
            beyond = held.seat.finished_at is not None and position >= held.seat.finished_at
            found.append(
                ReceiptView(
                    seat=held.id.hex(),
                    account=checksum(held.account),
                    position=position,
                    unit=opening.unit_id.hex(),
                    end=opening.end.hex(),
                    leaf=held.seat.leaves[position].hex(),
                    tally=held.seat.tally_of(position) if position < held.seat.tallied else 0,
                    accepted=position < held.seat.accepted_units,
                    void=position in void or beyond,
                    metrics=metrics_of(held.metrics.get(position, b"{}")),
                    seconds=held.seconds.get(position, {}),
                )
            )
    return found


def audit_views(book: Book) -> list[AuditView]:
    found = []
    for calling in book.calls.values():
        order = calling.order.message
        found.append(
            AuditView(
                seat=order.seat.hex(),
                account=checksum(calling.held.account),
                tally=order.tally,
                position=order.position,
                unit=order.unit_id.hex(),
                reason=calling.audit.reason_of(order.draw).name.lower(),
                draw=order.draw,
                auditor=checksum(order.auditor),
                state=calling.call.state.value,
                result=calling.call.result.name.lower() if calling.call.result is not None else "",
                fee_wei=str(order.fee),
            )
        )
    for held in book.all():
        for position, audit in sorted(held.audits.items()):
            if audit.own_end is not None:
                found.append(
                    AuditView(
                        seat=held.id.hex(),
                        account=checksum(held.account),
                        tally=held.seat.tally_of(position),
                        position=position,
                        unit=held.seat.assigned[position].hex(),
                        reason=audit.subject.reason.name.lower(),
                        draw=0,
                        auditor="payer",
                        state="done",
                        result="match" if audit.own_end == audit.subject.end else "mismatch",
                    )
                )
    return found
