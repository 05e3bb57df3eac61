"""Collects the fees of audits that the payer did not pay for: it is gone, or left them out when it settled.

Payers pay auditors when they settle a job, at no cost to the auditor; so this waits until half of the evidence window,
in which the reserve is kept for unpaid auditors, is over. Everything follows from journal and chain: a node that was
off meanwhile goes on where the chain is. This module judges no draw.
"""

from __future__ import annotations

import logging

from tallymesh import wire
from tallymesh.errors import ChainError, LocalError
from tallymesh.messages import AuditOrder, Verdict
from tallymesh_node import beats
from tallymesh_node.auditor.record import AuditRecord, Line
from tallymesh_node.auditor.tools import Tools, log

LOOK_SHARE = 50  # looks at a job in one evidence window
LOOK_MIN_S, LOOK_MAX_S = 2.0, 900.0
MAX_AT_ONCE = 32  # audits in one transaction: about 0.8 M gas


class Fees:
    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.owed: dict[bytes, AuditRecord] = {}  # digest of the AuditOrder -> an audit that is over

    def add(self, record: AuditRecord) -> None:
        """An audit that is over."""
        if record.owed:
            self.owed[record.call.digest] = record

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for records in self._by_seat():
                try:
                    if await self._due(records[0]):
                        await self._collect(records[:MAX_AT_ONCE])
                except (ChainError, LocalError) as error:
                    known = isinstance(error, ChainError) and not error.reverted  # a chain that is away is said once
                    level = logging.DEBUG if known else logging.WARNING
                    log.log(level, "fees of seat %s: %s", records[0].call.audit_order.seat[:4].hex(), error)
            await beats.pause(self._pause())

    def _by_seat(self) -> list[list[AuditRecord]]:
        found: dict[bytes, list[AuditRecord]] = {}
        for record in self.owed.values():
            found.setdefault(record.call.audit_order.seat, []).append(record)
        return list(found.values())

    def _pause(self) -> float:
        shortest = min((record.call.order.evidence_window for record in self.owed.values()), default=0)
        return min(LOOK_MAX_S, max(LOOK_MIN_S, shortest / LOOK_SHARE))

    async def _due(self, record: AuditRecord) -> bool:
        """Whether the payer has had its time. The reserve is free an evidence window after the job's last seat closed,
        and no seat is open for longer than its lease and the claim window."""
        call, now = record.call, self.tools.chain.block_time()
        patience = call.order.evidence_window // 2
        if now >= call.lease.until + call.order.claim_window + patience:
            return True
        state = await self.tools.chain.job_state(call.job)
        return state is not None and not state.open_seats and now >= state.last_closed + patience

    async def _collect(self, records: list[AuditRecord]) -> None:
        pairs = [
            (wire.decode(record.request.audit_order, AuditOrder), wire.decode(record.verdict, Verdict))
            for record in records
        ]
        paid = await self.tools.chain.pay_audits(records[0].call.lease, pairs)
        self.tools.counters["fees_collected"] += paid
        if paid:
            log.info("seat %s: the fees of %d audits were collected", records[0].call.audit_order.seat[:4].hex(), paid)
        for record in records:
            await self.tools.journal.append(record.scope, (Line.PAID.value, b""))
            record.apply(Line.PAID, b"")
            self.owed.pop(record.call.digest, None)
