"""Keeps one seat: starts its units, closes its tallies, leaves where the payer or the chain let it down.

Level-triggered: each pass compares what should be with what is, so a missed event costs a delay and nothing else. This
module decides and signs; units.py runs, sender.py sends, settlement.py looks at the chain.
"""

from __future__ import annotations

import math

import trio

from tallymesh.errors import ChainError, LocalError
from tallymesh.messages import Auditors, Leave, Tally
from tallymesh_ledger import audit, waits
from tallymesh_ledger.phases import Phase
from tallymesh_ledger.seat import Range
from tallymesh_ledger.waits import Step
from tallymesh_node.complaints import level
from tallymesh_node.worker.record import Line
from tallymesh_node.worker.tools import Tools, Work, log
from tallymesh_node.worker.units import UnitRun

IDLE_S = 5.0  # between passes when nothing rings: every deadline here is seconds or more
RETRY_S = 1.0  # after the chain or the disk refused
TIMED_SHARE = 6  # a tally of at least `tally_timed_units` closes by time after this part of `tally_time_s`: an hour
PREFETCH = 2  # units of a seat under way for each core: the next ones fetch their inputs while the first run


class Keeper:
    def __init__(self, tools: Tools, work: Work) -> None:
        self.tools = tools
        self.work = work

    async def run(self) -> None:
        """Until the seat is over."""
        async with trio.open_nursery() as nursery:
            while self.work.record.over is None:
                pause = IDLE_S
                try:
                    await self._pass(nursery)
                except (ChainError, LocalError) as error:
                    log.log(level(error), "seat %s: %s", self.work.record.id[:4].hex(), error)
                    pause = RETRY_S
                await self.work.keeper_bell.wait(min(pause, self._until_deadline()))
            nursery.cancel_scope.cancel()

    async def _pass(self, nursery: trio.Nursery) -> None:
        work = self.work
        self._drop_void()
        code = self._reason_to_leave()
        if code:
            await self._leave(code)
        self._start(nursery)
        await self._tally()
        seat = work.record.seat
        idle = not work.running and not work.record.waiting
        if idle and (seat.phase in (Phase.FORFEITED, Phase.RELEASED) or work.record.earned):
            work.done_at = work.done_at if work.done_at is not None else trio.current_time()

    def _drop_void(self) -> None:
        """Kill what runs and no longer counts: after a Cancel, a forfeit, or a unit before it that failed."""
        finished = self.work.record.seat.finished_at
        failed = self.work.record.failed_at
        end = min(math.inf if finished is None else finished, math.inf if failed is None else failed)
        for position, scope in self.work.running.items():
            if position >= end:
                scope.cancel()

    # Leaving.

    def _reason_to_leave(self) -> str:
        work, record = self.work, self.work.record
        if record.seat.phase is not Phase.OPEN or record.leave:
            return ""
        now, lease = self.tools.chain.block_time(), record.lease
        if work.seat_missed:
            return "unseated"
        if now >= lease.until:
            return "lease_over"
        if record.failed_at is not None and all(p > record.failed_at for p in (*work.running, *record.waiting)):
            return "unit_failed"
        if work.problem:
            return "refused"
        if work.restored:
            return "restored"
        if work.claiming:
            return "claiming"
        if work.yielding and (work.cut or not work.started):
            return work.yielding
        return self._overdue()

    def _overdue(self) -> str:
        """A payer that does not show c_e, or does not accept, within the times that the protocol gives it."""
        now, work = trio.current_time(), self.work
        for closed in work.record.seat.tallies:
            number = closed.range.number
            if not closed.secret and now >= work.sent_at.get(number, now) + self._secret_s:
                return "no_secret"
            if closed.secret and not closed.accepted and now >= work.secret_at.get(number, now) + self._accept_s:
                return "no_accept"
        return ""

    @property
    def _secret_s(self) -> float:
        return waits.seconds(Step.SECRET, self.tools.parameters)

    @property
    def _accept_s(self) -> float:
        # The longest that a payer can need: silent auditors, then some without the inputs, one after the other.
        calls = audit.SILENT_MAX + self.tools.parameters.audit_answers_max
        return waits.seconds(Step.ACCEPT, self.tools.parameters, work_ms=self.work.record.lease.work_ms, audits=calls)

    async def _leave(self, code: str) -> None:
        work = self.work
        log.info("seat %s: leaving (%s)", work.record.id[:4].hex(), code)
        for scope in work.running.values():
            scope.cancel()
        async with work.lock:
            if work.record.seat.phase is Phase.OPEN and not work.record.leave:
                message = Leave(seat=work.record.id, code=code)
                await work.commit(Line.LEAVE, self.tools.key.sign(self.tools.domains, message).body)
                self.tools.counters["leaves"] += 1

    # Tallies.

    async def _tally(self) -> None:
        """Sign what is due, once the payer has every receipt in it: only then do both sides count the same, whatever
        Cancel is on its way."""
        work = self.work
        while self._acknowledged(work.record.seat.due(timed_out=self._timed_out())):
            number, block_hash = await self.tools.chain.final_block()
            async with work.lock:
                seat = work.record.seat
                covered = seat.due(timed_out=self._timed_out())
                if covered is None or not self._acknowledged(covered):
                    return
                if seat.phase not in (Phase.OPEN, Phase.CLOSING):
                    return
                message = Tally(
                    seat=work.record.id,
                    number=covered.number,
                    previous=seat.chain,
                    start=covered.start,
                    count=covered.count,
                    root=seat.root_of(covered),
                    block_number=number,
                    block_hash=block_hash,
                )
                await work.commit(Line.TALLY, self.tools.key.sign(self.tools.domains, message).body)
                self.tools.counters["tallies"] += 1

    def _acknowledged(self, covered: Range | None) -> bool:
        return covered is not None and self.work.acked.issuperset(range(covered.start, covered.end))

    def _timed_out(self) -> bool:
        record, parameters = self.work.record, self.tools.parameters
        oldest = record.oldest_receipt_at
        if oldest is None:
            return False
        age = self.tools.chain.block_time() - oldest
        enough = record.seat.received - record.seat.tallied >= parameters.tally_timed_units
        return age >= (parameters.tally_time_s / TIMED_SHARE if enough else parameters.tally_time_s)

    # Units.

    def _start(self, nursery: trio.Nursery) -> None:
        work = self.work
        for position in sorted(work.record.waiting):
            if position in work.running:
                continue
            if len(work.running) >= PREFETCH * self.tools.cores.count or not self._may_run(position):
                return
            work.running[position] = trio.CancelScope()
            nursery.start_soon(UnitRun(self.tools, work, position, self._may_run).run)

    def _may_run(self, position: int) -> bool:
        """Whether the payer's word and the chain's cover one more unit."""
        work, record = self.work, self.work.record
        failed = record.failed_at
        if work.problem or work.restored or work.yielding or record.leave or (failed is not None and position > failed):
            return False
        if not work.seated and (position + 1) * record.lease.work_ms > self.tools.parameters.exposure_work_ms:
            return False
        # Without a claim on chain (`group` and `payer` jobs) what a payer can leave unpaid is one tally, else two.
        ahead = 2 if record.order.auditors == Auditors.OPEN else 1
        return self._tally_of(position) <= len(record.seat.accepts) + ahead

    def _tally_of(self, position: int) -> int:
        """Number of the tally that a position will fall into. A Close that is asked for splits the tallies before it
        is carried out: closing after every unit must not make us run further ahead of our Accepts."""
        seat = self.work.record.seat
        if not seat.tallied < seat.close_at <= position:
            return seat.tally_of(position)
        return seat.tally_of(seat.close_at - 1) + 1 + (position - seat.close_at) // seat.tally_units

    def _until_deadline(self) -> float:
        """Seconds to the next moment at which something is due by time alone."""
        now, work = trio.current_time(), self.work
        due = [float(self.work.record.lease.until - self.tools.chain.block_time())]
        for closed in work.record.seat.tallies:
            number = closed.range.number
            if not closed.secret and number in work.sent_at:
                due.append(work.sent_at[number] + self._secret_s - now)
            if closed.secret and not closed.accepted and number in work.secret_at:
                due.append(work.secret_at[number] + self._accept_s - now)
        return max(0.1, min((d for d in due if d > 0), default=IDLE_S))
