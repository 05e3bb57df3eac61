"""Runs one assigned unit: inputs, a core, the sandbox, then a signed receipt or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tallymesh import exchange, wire
from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import AssignRequest, FailureRequest, Opening, ReceiptRequest, Report
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
DISK_RETRY_S = 5.0  # a full disk may get some room: the work is done and waits for it


class _NotNow(Exception):
    """While it waited for a core things changed, and it may not run any more, or not yet."""


class UnitRun:
    """One unit of one seat, from its inputs to the line in the journal."""

    def __init__(self, tools: Tools, work: Work, position: int, may_run: Callable[[int], bool]) -> None:
        self.tools = tools
        self.work = work
        self.position = position
        self.may_run = may_run
        self.turn = tools.cores.turn()  # its place in the queue for a core: units start in the order of positions

    async def run(self) -> None:
        """Leaves a RECEIPT or a FAILURE line, or nothing where it was cancelled or `may_run` says no once it has its
        core: then it waits in the seat's queue."""
        try:
            with self.work.running[self.position]:
                request = self.work.record.waiting.get(self.position)
                if request is not None:  # else it ended before it began
                    await self._run(request)
        except _NotNow:
            pass
        finally:
            del self.work.running[self.position]
            self.work.started.discard(self.position)
            self.work.ring()
            if (self.work.lines or self.work.metrics) and not (self.work.running or self.work.record.waiting):
                self.work.heartbeat_bell.ring()  # the seat may be over soon

    async def _run(self, request: AssignRequest) -> None:
        unit = decode_unit(request.unit)
        try:
            outcome = await self._attempts(request, unit)
        except Failure as failure:
            body = exchange.encode(self._failure(failure))
            await self._store(Line.FAILURE, lambda: body)
            self.tools.counters["units_failed"] += 1
        else:
            assign: Assign = wire.decode(request.assign, Assign).message
            self.work.made.add(outcome.output)
            try:
                await self._store(Line.RECEIPT, lambda: self._receipt(assign, unit, outcome))
            finally:
                self.work.made.discard(outcome.output)
            self.tools.counters["units_run"] += 1

    async def _attempts(self, request: AssignRequest, unit: Unit) -> Outcome:
        for attempt in range(1, SANDBOX_ATTEMPTS + 1):
            try:
                return await self._attempt(request, unit)
            except Failure as failure:
                if failure.code != "sandbox" or attempt == SANDBOX_ATTEMPTS:
                    raise
                log.warning("unit at %d: %s Trying again.", self.position, failure.sentence)
        raise AssertionError("unreachable")

    async def _attempt(self, request: AssignRequest, unit: Unit) -> Outcome:
        tools, work, position = self.tools, self.work, self.position
        record = work.record
        try:
            inputs = await fetch_inputs(
                tools.blobs,
                unit,
                (*request.sources, record.payer),
                ticket=record.line.offered,
                timeout_s=tools.parameters.unit_grace_s,
            )
            limits = limits_of(record.order, record.lease.work_ms, tools.parameters)
            async with tools.cores.one(UNIT, self.turn, limits.memory_mib):
                if not self.may_run(position):
                    raise _NotNow
                work.started.add(position)
                outcome = await tools.executor.run(
                    record.lease.job,
                    unit,
                    inputs,
                    limits,
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

    def _receipt(self, assign: Assign, unit: Unit, outcome: Outcome) -> bytes:
        """Sign once. The salt follows from the key and the leaf from the output: an honest repeat is the same bytes."""
        tools, seat = self.tools, self.work.record.seat
        assert self.position not in seat.leaves, "a second leaf for one position would be fraud"
        opening = Opening(
            unit_id=assign.unit_id,
            start=unit.start,
            end=outcome.output,
            salt=merkle.salt(tools.key.secret, seat.id, self.position),
            aux=blob_id(outcome.metrics),
        )
        message = Receipt(seat=seat.id, position=self.position, leaf=merkle.leaf(seat.id, self.position, opening))
        report = Report(outcome.metrics, dict(outcome.seconds), outcome.cpu_s)
        request = ReceiptRequest(tools.key.sign(tools.domains, message).body, opening, report)
        return exchange.encode(ReceiptLine(exchange.encode(request), tools.chain.block_time()))

    def _failure(self, failure: Failure) -> FailureRequest:
        return FailureRequest(
            self.work.record.id,
            self.position,
            failure.code if failure.code in CODES else "sandbox",
            printable(failure.sentence, MAX_SENTENCE),
            printable(failure.traceback[-MAX_TRACEBACK:], MAX_TRACEBACK),
        )

    async def _store(self, kind: Line, body: Callable[[], bytes]) -> None:
        """Try until the disk takes it, the position no longer counts, or we are cancelled."""
        while True:
            async with self.work.lock:
                if self.position not in self.work.record.waiting:
                    return
                try:
                    await self.work.commit(kind, body())
                    return
                except LocalError as error:
                    log.error("unit at %d is done and cannot be stored: %s", self.position, error)
            await trio.sleep(DISK_RETRY_S)


def inlined(tools: Tools, request: ReceiptRequest) -> ReceiptRequest:
    """The request with its output, where that is small and still here."""
    name = BlobId(request.opening.end)
    if not tools.blobs.has(name) or tools.blobs.path(name).stat().st_size > exchange.INLINE_BYTES:
        return request
    return ReceiptRequest(request.receipt, request.opening, request.report, {name: tools.blobs.get(name)})
