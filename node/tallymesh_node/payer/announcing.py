"""Records as events for people: what the client, the command line and the dashboard show. Nothing depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tallymesh import units, wire
from tallymesh.errors import RemoteError
from tallymesh.ids import UnitId
from tallymesh.messages import Accept, Assign, AuditOrder, Lease, Leave, Receipt, Result, Verdict
from tallymesh.text import sentence as one_line
from tallymesh_ledger.audit import CallState
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.keys import checksum
from tallymesh_node.payer import records as r
from tallymesh_node.payer import replicas
from tallymesh_node.payer.held import Held

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

UNIT_FAILED = "a unit gave no output there; whose fault it is, this node finds out"


def announce(driver: JobDriver, record: r.Record) -> None:
    """After the record was applied."""
    function = _TABLE.get(type(record))
    if function is not None:
        function(driver, record)
    _counted(driver)
    status = driver.book.status
    if status != driver.shown_status:
        driver.shown_status = status
        if status in ("done", "failed", "cancelled"):
            driver.events.add("done", status=status, **_ended(driver))
        else:
            driver.events.add("status", status=status)


def _ended(driver: JobDriver) -> dict[str, Any]:
    ending = driver.book.ending
    assert ending is not None
    data: dict[str, Any] = {"result": ending.result.hex(), "metrics": driver.book.metrics()}
    if ending.code:
        data["problem"] = {
            "code": ending.code,
            "sentence": ending.sentence,
            "remedy": ending.remedy,
            "traceback": ending.traceback,
        }
    return data


def _who(held: Held) -> dict[str, Any]:
    return {"account": checksum(held.account), "peer": held.peer.peer_id, "seat": held.id.hex()}


def _where(driver: JobDriver, held: Held, position: int) -> dict[str, Any]:
    node = held.nodes[position]
    stage = driver.book.spec.stages[node.stage].name
    return {"stage": stage, "round": node.round, "index": node.index, "position": position}


def _leased(driver: JobDriver, record: r.Leased) -> None:
    held = driver.book.helds[seat_id(driver.tools.domains, wire.decode(record.lease, Lease).message)]
    driver.events.add("lease", state="asked", stage=driver.book.spec.stages[record.stage].name, **_who(held))


def _declined(driver: JobDriver, record: r.Declined) -> None:
    held = driver.book.helds[record.seat]
    driver.events.add("lease", state="refused", code=record.code, sentence=record.sentence, **_who(held))


def _seated(driver: JobDriver, record: r.Seated) -> None:
    held = driver.book.helds[record.seat]
    driver.events.add(
        "seat",
        stage=driver.book.spec.stages[held.stage].name,
        positions=held.lease.positions,
        price_wei=str(held.lease.price),
        until=held.lease.until,
        **_who(held),
    )


def _assigned(driver: JobDriver, record: r.Assigned) -> None:
    assign = wire.decode(record.assign, Assign).message
    held = driver.book.helds[assign.seat]
    driver.events.add("assign", **_where(driver, held, assign.position), **_who(held))


def _received(driver: JobDriver, record: r.Received) -> None:
    receipt = wire.decode(record.receipt, Receipt).message
    held = driver.book.helds[receipt.seat]
    if held.bad.get(receipt.position) == replicas.DISPUTED:
        where = _where(driver, held, receipt.position)
        driver.events.add(
            "warning", code="disputed", sentence=f"{replicas.DISPUTED} Each is audited.", **where, **_who(held)
        )
    _unit(driver, held, receipt.position)


def _checked(driver: JobDriver, record: r.Checked) -> None:
    held = driver.book.helds[record.seat]
    if record.bad:
        where = _where(driver, held, record.position)
        driver.events.add("warning", sentence=f"{record.sentence} The unit is audited.", **where, **_who(held))
    _unit(driver, held, record.position)


def _unit(driver: JobDriver, held: Held, position: int) -> None:
    """An output that others may build on."""
    unit = UnitId(held.seat.assigned[position])
    if driver.book.copies == 1 and driver.book.produced.get(unit) == (held.id, position):
        _output(driver, held, position)


def _counted(driver: JobDriver) -> None:
    """Of units that are run twice: it may be the second run, or a verdict, that makes the first one's output count."""
    for unit in driver.book.counted:
        place = driver.book.produced.get(unit)
        if place is not None:
            _output(driver, driver.book.helds[place[0]], place[1])
    driver.book.counted.clear()


def _output(driver: JobDriver, held: Held, position: int) -> None:
    driver.events.add(
        "unit",
        output=held.seat.openings[position].end.hex(),
        seconds=held.seconds.get(position, {}),
        metrics=metrics_of(held.metrics.get(position, b"{}")),
        **_where(driver, held, position),
        **_who(held),
    )


def metrics_of(data: bytes) -> dict[str, Any]:
    """Of a receipt that was taken: what cannot be read (an old journal's) is not shown."""
    try:
        return dict(units.decode_metrics(data))
    except RemoteError:
        return {}


def _called(driver: JobDriver, record: r.Called) -> None:
    _audit(driver, wire.decode(record.order, AuditOrder).message, "ordered", "")


def _judged(driver: JobDriver, record: r.Judged) -> None:
    verdict = wire.decode(record.verdict, Verdict).message
    calling = driver.book.calls[verdict.audit_order]
    counts = calling.call.state is CallState.DONE
    result = Result(verdict.result).name.lower() if counts else ""
    _audit(driver, calling.order.message, "done" if counts else "silent", result)


def _silent(driver: JobDriver, record: r.Silent) -> None:
    _audit(driver, driver.book.calls[record.audit_order].order.message, "silent", "", sentence=record.sentence)


def _audit(driver: JobDriver, order: AuditOrder, state: str, result: str, **more: Any) -> None:
    held = driver.book.helds[order.seat]
    driver.events.add(
        "audit",
        auditor=checksum(order.auditor),
        state=state,
        result=result,
        reason=held.audits[order.position].reason_of(order.draw).name.lower(),
        draw=order.draw,
        **_where(driver, held, order.position),
        **_who(held),
        **more,
    )


def _recomputed(driver: JobDriver, record: r.Recomputed) -> None:
    held = driver.book.helds[record.seat]
    audit = held.audits[record.position]
    driver.events.add(
        "audit",
        auditor="payer",
        state="done",
        result="match" if record.end == audit.subject.end else "mismatch",
        reason=audit.subject.reason.name.lower(),
        draw=min(record.draws, default=0),
        **_where(driver, held, record.position),
        **_who(held),
    )


def _accepted(driver: JobDriver, record: r.Accepted) -> None:
    accept = wire.decode(record.accept, Accept).message
    held = driver.book.helds[accept.seat]
    driver.events.add("accept", tally=accept.tally, units=accept.units, **_who(held))
    for position in range(held.seat.tallies[accept.tally - 1].range.start, accept.units):
        if held.gated(position, training=driver.book.training):
            _unit(driver, held, position)


def _givenup(driver: JobDriver, record: r.GivenUp) -> None:
    held = driver.book.helds[record.seat]
    driver.events.add("warning", code=record.code, sentence=f"A worker was given up: {record.sentence}", **_who(held))


def _left(driver: JobDriver, record: r.Left) -> None:
    leave = wire.decode(record.leave, Leave).message
    held = driver.book.helds[leave.seat]
    why = UNIT_FAILED if leave.code == "unit_failed" else one_line(leave.code, 80)
    driver.events.add("warning", code="left", sentence=f"A worker left: {why}.", **_who(held))


def _forfeited(driver: JobDriver, record: r.Forfeited) -> None:
    first = driver.book.helds[record.seat]
    seats = [held for held in driver.book.all() if held.account == first.account and held.convicted]
    driver.events.add(
        "caught", check=record.check, sentence=record.sentence, **_where(driver, first, record.position), **_who(first)
    )
    driver.events.add("redo", units=sum(len(held.seat.void_positions()) for held in seats), **_who(first))
    for held in seats:
        for position, audit in held.audits.items():
            unit = UnitId(held.seat.assigned[position])
            if audit.own_end is not None and driver.book.produced.get(unit, ()) is None:
                where = _where(driver, held, position)
                driver.events.add("unit", output=audit.own_end.hex(), account="payer", peer="", **where)


def _evaluated(driver: JobDriver, record: r.Evaluated) -> None:
    metrics = driver.book.evaluated[record.round][1]
    driver.events.add("round", round=record.round, metrics=metrics, state=record.state.hex())


def _settled(driver: JobDriver, record: r.Settled) -> None:
    from tallymesh_node.payer.views import cost_wei

    driver.events.add("settle", cost_wei=str(cost_wei(driver.book)))


_TABLE: dict[type[r.Record], Any] = {
    r.Leased: _leased,
    r.Declined: _declined,
    r.Seated: _seated,
    r.Assigned: _assigned,
    r.Received: _received,
    r.Checked: _checked,
    r.Called: _called,
    r.Judged: _judged,
    r.Silent: _silent,
    r.Recomputed: _recomputed,
    r.Accepted: _accepted,
    r.GivenUp: _givenup,
    r.Left: _left,
    r.Forfeited: _forfeited,
    r.Evaluated: _evaluated,
    r.Settled: _settled,
}
