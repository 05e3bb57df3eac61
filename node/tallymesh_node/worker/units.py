"""Runs one assigned unit: inputs, a core, the sandbox, then a signed receipt or the reason why there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from tallymesh import exchange, wire
from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import FailureRequest, Opening, ReceiptRequest, Report
from tallymesh.ids import BlobId, blob_id
from tallymesh.messages import Assign, Receipt
from tallymesh.units import Unit, decode_unit
from tallymesh_ledger import merkle
from tallymesh_node.cores import UNIT
from tallymesh_node.interfaces import Failure, Outcome
from tallymesh_node.unit_inputs import fetch_inputs, limits_of
from tallymesh_node.worker.heartbeat import printable
from tallymesh_node.worker.record import Line, ReceiptLine
from tallymesh_node.worker.tools import Tools, Work, log

SANDBOX_ATTEMPTS = 2  # a sandbox that breaks is our own fault; one that breaks twice on a unit is not chance
MAX_METRICS_BYTES = 64 * 1024  # returned by the unit; live ones are bounded elsewhere
MAX_SENTENCE = 500
CODES = frozenset({"program", "limits", "inputs", "sandbox"})  # whose fault it is, as the protocol spells it
MAX_TRACEBACK = 16_000  # characters: the last frames of any real one
StoreLine = Callable[[], Awaitable[None]]

DISK_RETRY_S = 5.0  # a full disk may get some room: the work is done and waits for it


async def run_unit(tools: Tools, work: Work, position: int, turn: int) -> None:
    """Leaves a RECEIPT or a FAILURE line, or nothing where it was cancelled. `turn` is its place in the queue for a
    core: units start in the order of their positions."""
    try:
        with work.running[position]:
            request = work.record.waiting[position]
            unit = decode_unit(request.unit)
            try:
                outcome = await _attempts(tools, work, position, unit, turn)
            except Failure as failure:
                found = failure  # the name that `except` binds does not outlive it
                tools.counters["units_failed"] += 1
                await _until_stored(work, position, lambda: _failure(work, position, found))
            else:
                tools.counters["units_run"] += 1
                assign: Assign = wire.decode(request.assign, Assign).message
                await _until_stored(work, position, lambda: _receipt(tools, work, assign, unit, outcome))
    finally:
        del work.running[position]
        work.ring()


async def _attempts(tools: Tools, work: Work, position: int, unit: Unit, turn: int) -> Outcome:
    for attempt in range(1, SANDBOX_ATTEMPTS + 1):
        try:
            return await _attempt(tools, work, position, unit, turn)
        except Failure as failure:
            if failure.code != "sandbox" or attempt == SANDBOX_ATTEMPTS:
                raise
            log.warning("unit at %d: %s Trying again.", position, failure.sentence)
    raise AssertionError("unreachable")


async def _attempt(tools: Tools, work: Work, position: int, unit: Unit, turn: int) -> Outcome:
    record = work.record
    sources = (*record.waiting[position].sources, record.payer)
    try:
        inputs = await fetch_inputs(
            tools.blobs, unit, sources, ticket=record.line.offered, timeout_s=tools.parameters.unit_grace_s
        )
        async with tools.cores.one(UNIT, turn):
            outcome = await tools.executor.run(
                record.lease.job,
                unit,
                inputs,
                limits_of(record.order, record.lease.work_ms, tools.parameters),
                on_line=lambda line: work.lines.append((position, line)),
                on_metric=lambda name, value: work.metrics.append((position, name, value)),
            )
        if len(outcome.metrics) > MAX_METRICS_BYTES:
            raise Failure("limits", f"The unit returned more than {MAX_METRICS_BYTES} bytes of metrics.")
        await tools.blobs.sync()
        return outcome
    except RemoteError as error:
        raise Failure("inputs", error.sentence) from None
    except LocalError as error:
        raise Failure("sandbox", f"The worker's machine is at fault: {error.sentence}") from None


async def _receipt(tools: Tools, work: Work, assign: Assign, unit: Unit, outcome: Outcome) -> None:
    """Sign once. The salt follows from the key and the leaf from the output: an honest repeat is the same bytes."""
    seat = work.record.seat
    assert assign.position not in seat.leaves, "a second leaf for one position would be fraud"
    opening = Opening(
        unit_id=assign.unit_id,
        start=unit.start,
        end=outcome.output,
        salt=merkle.salt(tools.key.secret, seat.id, assign.position),
        aux=blob_id(outcome.metrics),
    )
    message = Receipt(seat=seat.id, position=assign.position, leaf=merkle.leaf(seat.id, assign.position, opening))
    report = Report(outcome.metrics, dict(outcome.seconds), outcome.cpu_s)
    request = ReceiptRequest(tools.key.sign(tools.domains, message).body, opening, report)
    line = ReceiptLine(exchange.encode(request), tools.chain.block_time())
    await work.commit(Line.RECEIPT, exchange.encode(line))


async def _failure(work: Work, position: int, failure: Failure) -> None:
    request = FailureRequest(
        work.record.id,
        position,
        failure.code if failure.code in CODES else "sandbox",
        printable(failure.sentence, MAX_SENTENCE),
        printable(failure.traceback[-MAX_TRACEBACK:], MAX_TRACEBACK),
    )
    await work.commit(Line.FAILURE, exchange.encode(request))


async def _until_stored(work: Work, position: int, store: StoreLine) -> None:
    """Try until the disk takes it, the position no longer counts, or we are cancelled."""
    while True:
        async with work.lock:
            if position not in work.record.waiting:
                return
            try:
                await store()
                return
            except LocalError as error:
                log.error("unit at %d is done and cannot be stored: %s", position, error)
        await trio.sleep(DISK_RETRY_S)


def inlined(tools: Tools, request: ReceiptRequest) -> ReceiptRequest:
    """The request with its output, where that is small and still here."""
    name = BlobId(request.opening.end)
    if not tools.blobs.has(name) or tools.blobs.path(name).stat().st_size > exchange.INLINE_BYTES:
        return request
    return ReceiptRequest(request.receipt, request.opening, request.report, {name: tools.blobs.get(name)})
