"""One audit from the call to the verdict, going on from wherever its journal stands.

AuditCommit is signed and durable before the opening is asked for; nothing of the worker's output is received before.
"""

from __future__ import annotations

from typing import TypeVar

import trio

from tallymesh import exchange
from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import Body, CommitRequest, Nothing, OpenAnswer, VerdictRequest
from tallymesh.ids import ZERO32
from tallymesh_node.auditor import openings
from tallymesh_node.auditor.record import AuditRecord, Line, OverLine
from tallymesh_node.auditor.tools import Tools, log
from tallymesh_node.cores import AUDIT
from tallymesh_node.interfaces import Failure
from tallymesh_node.unit_inputs import fetch_inputs, limits_of

REQUEST_S = 10.0  # for one answer of the payer
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.2, 15.0
OPEN_PATIENCE_S = 60.0  # the payer may be starting anew; then this audit was for nothing, and so would be waiting on
VERDICT_PATIENCE_S = 600.0  # a verdict is money: a payer that is away for ten minutes still gets it
DISK_RETRY_S = 5.0
TRANSIENT = frozenset({"unreachable", "timeout", "busy", "internal", "disk", "locked", "chain_unavailable"})

A = TypeVar("A", bound=Body)


class _Over(Exception):
    def __init__(self, code: str) -> None:
        self.code = code


class AuditWork:
    def __init__(self, tools: Tools, record: AuditRecord) -> None:
        self.tools = tools
        self.record = record

    async def run(self) -> None:
        """Until the audit is over."""
        record = self.record
        try:
            if record.commit is None and not record.verdict:
                await self._recompute()
            if record.commit is not None and record.open is None:
                await self._open()
            if not record.verdict:
                await self._store(Line.VERDICT, record.verdict_body(self.tools.domains, self.tools.key))
            await self._ask(VerdictRequest.NAME, VerdictRequest(record.verdict), Nothing, VERDICT_PATIENCE_S)
            code = "done"
        except _Over as end:
            code = end.code
        self.tools.counters[f"audits_{code}"] += 1
        log.info("audit %s: %s", record.call.digest[:4].hex(), code)
        await self._store(Line.OVER, exchange.encode(OverLine(code, self.tools.chain.block_time())))

    async def _recompute(self) -> None:
        """Leaves a commitment, or a verdict that the unit could not be had."""
        record, call, tools = self.record, self.record.call, self.tools
        left_s = call.audit_order.commit_by - tools.chain.block_time()
        if left_s <= 0:
            raise _Over("late")
        found: tuple[bytes, bytes] | None = None  # end and probe
        with trio.move_on_after(left_s) as deadline:
            try:
                inputs = await fetch_inputs(
                    tools.blobs,
                    call.unit,
                    (*record.request.sources, record.payer),
                    ticket=record.request.audit_order,
                    timeout_s=min(left_s, tools.parameters.unit_grace_s),
                )
                limits = limits_of(call.order, call.lease.work_ms, tools.parameters)
                async with tools.cores.one(AUDIT, memory_mib=limits.memory_mib):
                    outcome = await tools.executor.run(
                        tools.sandbox_of(call.job),
                        call.unit,
                        inputs,
                        limits,
                        probe_key=call.probe_key(),
                    )
                found = outcome.output, outcome.probe
            except RemoteError as error:
                log.info("audit %s: %s", call.digest[:4].hex(), error)
            except LocalError as error:
                log.error("audit %s: %s", call.digest[:4].hex(), error)
            except Failure as failure:
                log.info("audit %s: %s (%s)", call.digest[:4].hex(), failure.sentence, failure.code)
                if failure.code == "program":
                    # The program itself gives no output here: whatever the worker says it got is something else.
                    found = ZERO32, ZERO32
        if deadline.cancelled_caught:
            raise _Over("late")
        if found is None:
            await self._store(Line.VERDICT, record.verdict_body(tools.domains, tools.key))
        else:
            line = record.commit_line(tools.domains, tools.key, *found)
            await self._store(Line.COMMIT, exchange.encode(line))

    async def _open(self) -> None:
        record = self.record
        assert record.commit is not None
        answer = await self._ask(CommitRequest.NAME, CommitRequest(record.commit.commit), OpenAnswer, OPEN_PATIENCE_S)
        try:
            openings.check(self.tools.domains, record, answer.open, peer=record.payer.peer_id)
        except RemoteError as error:
            log.warning("audit %s: %s", record.call.digest[:4].hex(), error)
            raise _Over("bad_open") from None
        await self._store(Line.OPEN, answer.open)

    async def _store(self, kind: Line, body: bytes) -> None:
        """Durable, then known. A disk that refuses is waited for: nothing is sent before."""
        while True:
            try:
                with trio.CancelScope(shield=True):
                    await self.tools.journal.append(self.record.scope, (kind.value, body))
                    self.record.apply(kind, body)
                return
            except LocalError as error:
                log.error("audit %s cannot be stored: %s", self.record.call.digest[:4].hex(), error)
            await trio.sleep(DISK_RETRY_S)

    async def _ask(self, name: str, request: Body, answer: type[A], patience_s: float) -> A:
        """The payer's answer; asked again while it cannot give one. Ends the audit where it will not."""
        pause = BACKOFF_FIRST_S
        with trio.move_on_after(patience_s):
            while True:
                try:
                    body = exchange.encode(request)
                    data = await self.tools.network.request(self.record.payer, name, body, timeout_s=REQUEST_S)
                    return exchange.decode(data, answer, peer=self.record.payer.peer_id)
                except RemoteError as error:
                    if error.code not in TRANSIENT:
                        log.warning("audit %s: %s", self.record.call.digest[:4].hex(), error)
                        raise _Over("refused") from None
                await trio.sleep(pause)
                pause = min(2 * pause, BACKOFF_MAX_S)
        raise _Over("silence")
