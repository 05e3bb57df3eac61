"""A job's budget: funded once, paid out by seats, audits and refunds (IJobEscrow).

A batch does those of its items that can be done; the reason given for another one is the first that holds, in the order
that the interface names.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tallymesh.messages import Lease, Order, Result
from tallymesh_ledger.model.books import BP, first
from tallymesh_ledger.model.cases import Cases
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD, Revert
from tallymesh_ledger.model.payouts import Payouts
from tallymesh_ledger.model.signatures import says
from tallymesh_ledger.model.terms import Audit, Closing, Job, Refusal, Seat, SeatEnd, Seating, SeatState, Settlement
from tallymesh_ledger.model.token import Permit

AUDIT_FEE_MAX_BP = 11_000  # of the seat's price
DRAWS_PAID = 3  # draws 0, 1 and 2 of a position; later ones are the payer's own
UNAVAILABLE_SHARE = 10  # an UNAVAILABLE verdict earns the fee divided by this
MS = 1_000  # of a reference-second: the unit of a lease's work


class JobEscrow(Cases, Payouts):
    """Everybody's calls."""

    # A job begins.

    def open(self, caller: bytes, order: Order, seatings: Sequence[Seating]) -> tuple[bytes, int]:
        if caller != order.payer:
            raise Revert("NotPayer", caller, order.payer)
        if order.signer == ZERO_ADDRESS:
            raise Revert("ZeroAddress")
        if self._machine.now > order.deadline:
            raise Revert("DeadlinePassed", order.deadline)
        for window in (order.claim_window, order.evidence_window):
            if not self.window_min <= window <= self.window_max:
                raise Revert("WindowOutOfBounds", window, self.window_min, self.window_max)
        job = self.job_id_of(order)
        if self.jobs[job].signer != ZERO_ADDRESS:
            raise Revert("JobExists", job)
        self.jobs[job] = Job(order.signer, order.wages, order.audit_reserve)
        self._emit(
            "JobOpened",
            job=job,
            payer=order.payer,
            signer=order.signer,
            wages=order.wages,
            auditReserve=order.audit_reserve,
        )
        seated = self.seat(caller, order, seatings)
        self._token.transfer_from(self.address, caller, self.address, order.wages + order.audit_reserve)
        return job, seated

    def open_with_permit(
        self, caller: bytes, order: Order, seatings: Sequence[Seating], permit: Permit
    ) -> tuple[bytes, int]:
        self._token.use_permit(caller, self.address, permit)
        return self.open(caller, order, seatings)

    def seat(self, caller: bytes, order: Order, seatings: Sequence[Seating]) -> int:
        job = self._job_of(order)
        return self._each(
            seatings, lambda one: self.seat_id_of(one.lease), lambda one: self._take(caller, order, job, one)
        )

    def _take(self, caller: bytes, order: Order, job: bytes, seating: Seating) -> Refusal:
        lease, now, state = seating.lease, self._machine.now, self.jobs[job]
        seat_id = self.seat_id_of(lease)
        needed = lease.positions * lease.price + order.claim_bond
        ceiling = -(-order.price_max * lease.work_ms // MS)  # rounded up
        by_signer = not says(order.payer, seat_id, seating.signer, caller)
        signed = not by_signer or says(order.signer, seat_id, seating.signer, caller)
        why = first(
            (Refusal.WRONG_JOB, lease.job != job),
            (Refusal.TOO_LATE, now > lease.seat_by or now > order.deadline),
            (Refusal.BAD_TERM, not now < lease.until <= now + self.lease_max),
            (Refusal.NO_UNITS, lease.positions == 0),
            (Refusal.LOCK_TOO_SMALL, lease.lock < order.lock_per_seat),
            (Refusal.PRICE_TOO_HIGH, lease.price > ceiling),
            (Refusal.OVER_BUDGET, needed > state.free),
            (Refusal.ALREADY_SEATED, self.seats[seat_id].state != SeatState.NONE),
            (Refusal.BAD_SIGNATURE, not signed),
            (Refusal.NEEDS_PAYER, by_signer and state.signer_seated + needed > order.signer_seat_max),
            (Refusal.BAD_SIGNATURE, not says(lease.worker, seat_id, seating.worker, caller)),
        )
        if why is not None:
            return why
        newcomer = order.newcomers and self._registry.live_slots(lease.worker) == 0
        if newcomer:
            cap = lease.positions * lease.price
            taken, lock = self._registry.admit(self.address, lease.worker, lease.lock, cap)
        else:
            taken, lock = self._registry.try_lock(self.address, lease.worker, lease.lock), lease.lock
        if not taken:
            return Refusal.NO_STAKE
        self._locks[seat_id] = lock
        self.seats[seat_id] = Seat(
            bond=order.claim_bond,
            units=lease.positions,
            until=lease.until,
            state=SeatState.OPEN,
            by_signer=by_signer,
            own_lock=lock != lease.lock,
            newcomer=newcomer,
        )
        self.jobs[job] = replace(
            state,
            free=state.free - needed,
            signer_seated=state.signer_seated + (needed if by_signer else 0),
            open_seats=state.open_seats + 1,
        )
        self._emit(
            "SeatOpened",
            seat=seat_id,
            job=job,
            worker=lease.worker,
            price=lease.price,
            units=lease.positions,
            lock=lock,
            until=lease.until,
        )
        return Refusal.NONE

    # Pay.

    def settle(self, caller: bytes, settlements: Sequence[Settlement]) -> int:
        return self._each(
            settlements, lambda one: self.seat_id_of(one.lease), lambda one: self._settle(caller, one, payer=None)
        )

    def _settle(self, caller: bytes, item: Settlement, *, payer: bytes | None) -> Refusal:
        """`payer` where its word as caller is enough."""
        lease, accept = item.lease, item.accept
        seat_id = self.seat_id_of(lease)
        seat = self.seats[seat_id]
        units = min(accept.units, seat.units)
        signer = self.jobs[lease.job].signer
        why = first(
            (Refusal.NOT_OPEN, seat.state != SeatState.OPEN),
            (Refusal.WRONG_SEAT, accept.seat != seat_id),
            (Refusal.NOTHING_NEW, not self._is_new(seat, lease.price, units)),
            (
                Refusal.BAD_SIGNATURE,
                caller != payer and not says(signer, self._digest(accept), item.signature, caller),
            ),
        )
        if why is not None:
            return why
        self._pay(lease, accept.tally, units, accept.chain)
        return Refusal.NONE

    def pay_audits(self, caller: bytes, lease: Lease, audits: Sequence[Audit]) -> int:
        return self._pay_audits(caller, lease, audits, payer=None)

    def _pay_audits(self, caller: bytes, lease: Lease, audits: Sequence[Audit], *, payer: bytes | None) -> int:
        return self._each(
            audits,
            lambda one: self._digest(one.order),
            lambda one: self._pay_audit(caller, lease, one, payer=payer),
        )

    def _pay_audit(self, caller: bytes, lease: Lease, audit: Audit, *, payer: bytes | None) -> Refusal:
        order, verdict = audit.order, audit.verdict
        seat_id, order_id = self.seat_id_of(lease), self._digest(order)
        seat, job = self.seats[seat_id], self.jobs[lease.job]
        unavailable = verdict.result == Result.UNAVAILABLE
        amount = order.fee // UNAVAILABLE_SHARE if unavailable else order.fee
        draw = (seat_id, order.position, order.draw)
        ordered = caller == payer or says(job.signer, order_id, audit.order_signature, caller)
        found = says(order.auditor, self._digest(verdict), audit.verdict_signature, caller)
        known = Result.MATCH <= verdict.result <= Result.UNAVAILABLE
        why = first(
            (Refusal.WRONG_SEAT, order.seat != seat_id),
            (Refusal.NOT_OPEN, seat.state == SeatState.NONE),
            (Refusal.BAD_AUDIT, verdict.audit_order != order_id or not known),
            (Refusal.BAD_AUDIT, order.position >= seat.units or order.draw >= DRAWS_PAID),
            (Refusal.PRICE_TOO_HIGH, order.fee * BP > lease.price * AUDIT_FEE_MAX_BP),
            (Refusal.BAD_AUDIT, order.auditor in (lease.worker, job.signer)),
            (Refusal.BAD_SIGNATURE, not ordered),
            (Refusal.BAD_SIGNATURE, not found),
            (Refusal.OVER_BUDGET, amount > job.reserve),
            (Refusal.ALREADY_PAID, self._paid_draws[draw] or self._paid_orders[order_id]),
        )
        if why is not None:
            return why
        self._paid_orders[order_id] = True
        if not unavailable:
            self._paid_draws[draw] = True
        self.jobs[lease.job] = replace(job, reserve=job.reserve - amount)
        self.credits[order.auditor] += amount
        self._emit(
            "AuditPaid",
            auditOrder=order_id,
            seat=seat_id,
            auditor=order.auditor,
            position=order.position,
            result=verdict.result,
            amount=amount,
        )
        return Refusal.NONE

    # A seat and a job end.

    def close(self, caller: bytes, closings: Sequence[Closing]) -> int:
        return self._each(closings, lambda one: self.seat_id_of(one.lease), lambda one: self._release(caller, one))

    def _release(self, caller: bytes, item: Closing) -> Refusal:
        lease, release = item.lease, item.release
        seat_id = self.seat_id_of(lease)
        seat = self.seats[seat_id]
        why = first(
            (Refusal.NOT_OPEN, seat.state != SeatState.OPEN),
            (Refusal.WRONG_SEAT, release.seat != seat_id),
            (Refusal.NOT_PAID_YET, release.units > seat.paid_units),
            (Refusal.BAD_SIGNATURE, not says(lease.worker, self._digest(release), item.signature, caller)),
            (Refusal.DISPUTED, self._claimed[self.seat_id_of(lease)]),
        )
        if why is not None:
            return why
        self._close(lease)
        return Refusal.NONE

    def expire(self, caller: bytes, order: Order, leases: Sequence[Lease]) -> int:
        job = self._job_of(order)
        return self._each(leases, self.seat_id_of, lambda lease: self._expire(order, job, lease))

    def _expire(self, order: Order, job: bytes, lease: Lease) -> Refusal:
        seat = self.seats[self.seat_id_of(lease)]
        why = first(
            (Refusal.WRONG_JOB, lease.job != job),
            (Refusal.NOT_OPEN, seat.state != SeatState.OPEN),
            (Refusal.TOO_EARLY, self._machine.now <= seat.until + order.claim_window),
            (Refusal.DISPUTED, self._claimed[self.seat_id_of(lease)]),
        )
        if why is not None:
            return why
        self._close(lease)
        return Refusal.NONE

    def unlock(self, caller: bytes, leases: Sequence[Lease]) -> int:
        return self._each(leases, self.seat_id_of, self._unlock)

    def _unlock(self, lease: Lease) -> Refusal:
        seat_id = self.seat_id_of(lease)
        seat = self.seats[seat_id]
        why = first(
            (Refusal.NOT_OPEN, seat.state != SeatState.CLOSED),
            (Refusal.TOO_EARLY, self._machine.now < seat.until + self.lock_tail),
            (Refusal.DISPUTED, seat.cases > 0),
        )
        if why is not None:
            return why
        self.seats[seat_id] = replace(seat, state=SeatState.UNLOCKED)
        lock, self._locks[seat_id] = self._locks[seat_id], 0
        self._registry.unlock(self.address, lease.worker, lock)
        self._emit("LockEnded", seat=seat_id, worker=lease.worker, lock=lock)
        return Refusal.NONE

    def refund(self, caller: bytes, order: Order) -> tuple[int, int]:
        job = self._job_of(order)
        if not self._may_refund(caller, order, job):
            raise Revert("NotRefundable", caller)
        return self._refund(order, job)

    def finish(self, caller: bytes, order: Order, ends: Sequence[SeatEnd]) -> None:
        job = self._job_of(order)
        for end in ends:
            self._finish(caller, order, job, end)
        if self._may_refund(caller, order, job):
            self._refund(order, job)

    def _finish(self, caller: bytes, order: Order, job: bytes, end: SeatEnd) -> None:
        seat_id = self.seat_id_of(end.lease)
        if end.lease.job != job:
            self._emit("Refused", id=seat_id, why=Refusal.WRONG_JOB)
            return
        if end.accept.units:
            item = Settlement(end.lease, end.accept, end.accept_signature)
            self._each([item], lambda _: seat_id, lambda one: self._settle(caller, one, payer=order.payer))
        self._pay_audits(caller, end.lease, end.audits, payer=order.payer)
        if self.seats[seat_id].state != SeatState.OPEN:
            return
        if end.release.seat != ZERO_WORD:
            closing = Closing(end.lease, end.release, end.release_signature)
            self._each([closing], lambda _: seat_id, lambda one: self._release(caller, one))
        self._expire(order, job, end.lease)  # where its time has come; else it just stays open

    def _may_refund(self, caller: bytes, order: Order, job: bytes) -> bool:
        over = self._machine.now > order.deadline and self.jobs[job].open_seats == 0
        return over or caller in (order.payer, order.signer)

    def _refund(self, order: Order, job: bytes) -> tuple[int, int]:
        wages, reserve = self.refundable(order)
        if not wages and not reserve:
            return 0, 0
        state = self.jobs[job]
        self.jobs[job] = replace(state, free=state.free - wages, reserve=state.reserve - reserve)
        self.credits[order.payer] += wages + reserve
        self._emit("Refunded", job=job, payer=order.payer, wages=wages, reserve=reserve)
        return wages, reserve
