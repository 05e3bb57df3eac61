"""A job's budget: funded once, paid out by seats, audits and refunds (IJobEscrow).

A batch does those of its items that can be done. The reason given for one that cannot is the first that holds, in the
order in which the interface lists them, except that what needs a look at somebody else's signature or stake comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from tallymesh.messages import Lease, Order, Result
from tallymesh_ledger.eip712 import Domain, keccak, word
from tallymesh_ledger.jobs import DOMAIN_JOB
from tallymesh_ledger.model.machine import ZERO_ADDRESS, Machine, Revert, Store
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.signatures import digest, hashed, says
from tallymesh_ledger.model.terms import Audit, Closing, Job, Refusal, Seat, SeatEnd, Seating, SeatState, Settlement
from tallymesh_ledger.model.token import Permit, Token

BP = 10_000
AUDIT_FEE_MAX_BP = 11_000  # of the seat's price
DRAWS_PAID = 3  # draws 0, 1 and 2 of a position; later ones are the payer's own
UNAVAILABLE_SHARE = 10  # an UNAVAILABLE verdict earns the fee divided by this

T = TypeVar("T")


class JobEscrow:
    """Holds, for every job, free + reserve + sum over open seats of (units - paid units) x price."""

    def __init__(
        self,
        machine: Machine,
        address: bytes,
        token: Token,
        registry: Registry,
        *,
        fee_bp: int,
        lease_max: int,
        lock_tail: int,
        window_min: int,
        window_max: int,
    ) -> None:
        self.address = address
        self.fee_bp = fee_bp
        self.lease_max = lease_max
        self.lock_tail = lock_tail
        self.window_min = window_min
        self.window_max = window_max
        self.domain = Domain("Tallymesh JobEscrow", machine.chain_id, address)
        self._machine = machine
        self._token = token
        self._registry = registry
        self._jobs: Store[bytes, Job] = Store(machine, Job())
        self._seats: Store[bytes, Seat] = Store(machine, Seat())
        self.credits: Store[bytes, int] = Store(machine, 0)
        self._paid_draws: Store[tuple[bytes, int, int], bool] = Store(machine, False)
        self._paid_orders: Store[bytes, bool] = Store(machine, False)
        self._fees: Store[str, int] = Store(machine, 0)

    # A job begins.

    def open(self, caller: bytes, order: Order, seatings: Sequence[Seating]) -> tuple[bytes, int]:
        now = self._machine.now
        if caller != order.payer:
            raise Revert("NotPayer", caller, order.payer)
        if order.signer == ZERO_ADDRESS:
            raise Revert("ZeroAddress")
        if now > order.deadline:
            raise Revert("DeadlinePassed", order.deadline)
        for window in (order.claim_window, order.evidence_window):
            if not self.window_min <= window <= self.window_max:
                raise Revert("WindowOutOfBounds", window, self.window_min, self.window_max)
        job = self.job_id_of(order)
        if self._jobs[job].signer != ZERO_ADDRESS:
            raise Revert("JobExists", job)
        self._jobs[job] = Job(order.signer, order.wages, order.audit_reserve)
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
        lease, now, state = seating.lease, self._machine.now, self._jobs[job]
        seat = self.seat_id_of(lease)
        cap = lease.positions * lease.price
        by_signer = not says(order.payer, seat, seating.signer, caller)
        why = _first(
            (Refusal.WRONG_JOB, lease.job != job),
            (Refusal.TOO_LATE, now > lease.seat_by or now > order.deadline),
            (Refusal.BAD_TERM, not now < lease.until <= now + self.lease_max),
            (Refusal.NO_UNITS, lease.positions == 0),
            (Refusal.LOCK_TOO_SMALL, lease.lock < order.lock_per_seat),
            (Refusal.PRICE_TOO_HIGH, lease.price > -(-order.price_max * lease.work_ms // 1000)),
            (Refusal.OVER_BUDGET, cap > state.free),
            (Refusal.ALREADY_SEATED, self._seats[seat].state != SeatState.NONE),
            (Refusal.BAD_SIGNATURE, by_signer and not says(order.signer, seat, seating.signer, caller)),
            (Refusal.NEEDS_PAYER, by_signer and state.signer_seated + cap > order.signer_seat_max),
            (Refusal.BAD_SIGNATURE, not says(lease.worker, seat, seating.worker, caller)),
        )
        if why is None and not self._registry.try_lock(self.address, lease.worker, lease.lock):
            why = Refusal.NO_STAKE
        if why is not None:
            return why
        self._seats[seat] = Seat(lease.price, lease.positions, 0, lease.until, SeatState.OPEN, by_signer)
        self._jobs[job] = replace(
            state,
            free=state.free - cap,
            signer_seated=state.signer_seated + (cap if by_signer else 0),
            open_seats=state.open_seats + 1,
        )
        self._emit(
            "SeatOpened",
            seat=seat,
            job=job,
            worker=lease.worker,
            price=lease.price,
            units=lease.positions,
            lock=lease.lock,
            until=lease.until,
        )
        return Refusal.NONE

    # Pay.

    def settle(self, caller: bytes, settlements: Sequence[Settlement]) -> int:
        return self._each(
            settlements, lambda one: self.seat_id_of(one.lease), lambda one: self._settle(caller, one, payer=None)
        )

    def _settle(self, caller: bytes, item: Settlement, *, payer: bytes | None) -> Refusal:
        lease, accept = item.lease, item.accept
        seat_id = self.seat_id_of(lease)
        seat, signer = self._seats[seat_id], self._jobs[lease.job].signer
        units = min(accept.units, seat.units)
        signed = caller == payer or says(signer, self._digest(accept), item.signature, caller)
        why = _first(
            (Refusal.NOT_OPEN, seat.state != SeatState.OPEN),
            (Refusal.WRONG_SEAT, accept.seat != seat_id),
            (Refusal.NOTHING_NEW, units <= seat.paid_units),
            (Refusal.BAD_SIGNATURE, not signed),
        )
        if why is not None:
            return why
        amount = (units - seat.paid_units) * seat.price
        fee = units * seat.price * self.fee_bp // BP - seat.paid_units * seat.price * self.fee_bp // BP
        self._seats[seat_id] = replace(seat, paid_units=units)
        self.credits[lease.worker] += amount - fee
        self._fees["burn"] += fee
        self._emit(
            "Settled",
            seat=seat_id,
            worker=lease.worker,
            tally=accept.tally,
            units=units,
            amount=amount,
            fee=fee,
            chain=accept.chain,
        )
        if units == seat.units:
            self._close(seat_id, lease.job)
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
        seat, job = self._seats[seat_id], self._jobs[lease.job]
        unavailable = verdict.result == Result.UNAVAILABLE
        amount = order.fee // UNAVAILABLE_SHARE if unavailable else order.fee
        draw = (seat_id, order.position, order.draw)
        ordered = caller == payer or says(job.signer, order_id, audit.order_signature, caller)
        found = says(order.auditor, self._digest(verdict), audit.verdict_signature, caller)
        why = _first(
            (Refusal.WRONG_SEAT, order.seat != seat_id),
            (Refusal.NOT_OPEN, seat.state == SeatState.NONE),
            (
                Refusal.BAD_AUDIT,
                verdict.audit_order != order_id or not Result.MATCH <= verdict.result <= Result.UNAVAILABLE,
            ),
            (Refusal.BAD_AUDIT, order.position >= seat.units or order.draw >= DRAWS_PAID),
            (Refusal.PRICE_TOO_HIGH, order.fee * BP > seat.price * AUDIT_FEE_MAX_BP),
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
        self._jobs[lease.job] = replace(job, reserve=job.reserve - amount)
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
        seat_id = self.seat_id_of(item.lease)
        seat, worker = self._seats[seat_id], item.lease.worker
        why = _first(
            (Refusal.NOT_OPEN, seat.state != SeatState.OPEN),
            (Refusal.WRONG_SEAT, item.release.seat != seat_id),
            (Refusal.NOT_PAID_YET, item.release.units > seat.paid_units),
            (Refusal.BAD_SIGNATURE, not says(worker, self._digest(item.release), item.signature, caller)),
        )
        if why is not None:
            return why
        self._close(seat_id, item.lease.job)
        return Refusal.NONE

    def expire(self, caller: bytes, order: Order, leases: Sequence[Lease]) -> int:
        job = self._job_of(order)
        return self._each(leases, self.seat_id_of, lambda lease: self._expire(order, job, lease))

    def _expire(self, order: Order, job: bytes, lease: Lease) -> Refusal:
        seat_id = self.seat_id_of(lease)
        seat = self._seats[seat_id]
        why = _first(
            (Refusal.WRONG_JOB, lease.job != job),
            (Refusal.NOT_OPEN, seat.state != SeatState.OPEN),
            (Refusal.TOO_EARLY, self._machine.now <= seat.until + order.claim_window),
        )
        if why is not None:
            return why
        self._close(seat_id, job)
        return Refusal.NONE

    def unlock(self, caller: bytes, leases: Sequence[Lease]) -> int:
        return self._each(leases, self.seat_id_of, self._unlock)

    def _unlock(self, lease: Lease) -> Refusal:
        seat_id = self.seat_id_of(lease)
        seat = self._seats[seat_id]
        why = _first(
            (Refusal.NOT_OPEN, seat.state != SeatState.CLOSED),
            (Refusal.TOO_EARLY, self._machine.now < seat.until + self.lock_tail),
        )
        if why is not None:
            return why
        self._seats[seat_id] = replace(seat, state=SeatState.UNLOCKED)
        self._registry.unlock(self.address, lease.worker, lease.lock)
        self._emit("LockEnded", seat=seat_id, worker=lease.worker, lock=lease.lock)
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

        def of_seat(_: object) -> bytes:
            return seat_id

        if end.accept.units:
            item = Settlement(end.lease, end.accept, end.accept_signature)
            self._each([item], of_seat, lambda one: self._settle(caller, one, payer=order.payer))
        self._pay_audits(caller, end.lease, end.audits, payer=order.payer)
        if self._seats[seat_id].state != SeatState.OPEN:
            return
        if end.release.seat != bytes(32):
            closing = Closing(end.lease, end.release, end.release_signature)
            self._each([closing], of_seat, lambda one: self._release(caller, one))
        else:
            self._expire(order, job, end.lease)

    def withdraw(self, caller: bytes, account: bytes) -> int:
        amount = self.credits[account]
        if amount == 0:
            raise Revert("NothingToWithdraw", account)
        self.credits[account] = 0
        owner = self._registry.owner_of(account)
        self._emit("CreditWithdrawn", account=account, to=owner, amount=amount)
        self._token.transfer(self.address, owner, amount)
        return amount

    def burn_fees(self, caller: bytes) -> int:
        amount = self._fees["burn"]
        if amount == 0:
            raise Revert("NothingToBurn")
        self._fees["burn"] = 0
        self._emit("FeesBurned", amount=amount)
        self._token.burn(self.address, amount)
        return amount

    # Views.

    def job_of(self, job: bytes) -> Job:
        return self._jobs[job]

    def seat_of(self, seat: bytes) -> Seat:
        return self._seats[seat]

    def credit_of(self, account: bytes) -> int:
        return self.credits[account]

    def fees_to_burn(self) -> int:
        return self._fees["burn"]

    def refundable(self, order: Order) -> tuple[int, int]:
        job = self._jobs[self._job_of(order)]
        waits = self._machine.now < job.last_closed + order.evidence_window
        return job.free, 0 if job.open_seats or waits else job.reserve

    def job_id_of(self, order: Order) -> bytes:
        parts = (DOMAIN_JOB, self._machine.chain_id, self.address, order.payer, hashed(order), order.salt)
        return keccak(b"".join(word(part) for part in parts))

    def seat_id_of(self, lease: Lease) -> bytes:
        return self._digest(lease)

    # Inside.

    def _job_of(self, order: Order) -> bytes:
        job = self.job_id_of(order)
        if self._jobs[job].signer == ZERO_ADDRESS:
            raise Revert("NoSuchJob", job)
        return job

    def _may_refund(self, caller: bytes, order: Order, job: bytes) -> bool:
        over = self._machine.now > order.deadline and self._jobs[job].open_seats == 0
        return over or caller in (order.payer, order.signer)

    def _refund(self, order: Order, job: bytes) -> tuple[int, int]:
        wages, reserve = self.refundable(order)
        if not wages and not reserve:
            return 0, 0
        state = self._jobs[job]
        self._jobs[job] = replace(state, free=state.free - wages, reserve=state.reserve - reserve)
        self.credits[order.payer] += wages + reserve
        self._emit("Refunded", job=job, payer=order.payer, wages=wages, reserve=reserve)
        return wages, reserve

    def _close(self, seat_id: bytes, job: bytes) -> None:
        seat, state, now = self._seats[seat_id], self._jobs[job], self._machine.now
        returned = (seat.units - seat.paid_units) * seat.price
        self._seats[seat_id] = replace(seat, state=SeatState.CLOSED, until=now)
        self._jobs[job] = replace(
            state,
            free=state.free + returned,
            signer_seated=state.signer_seated - (returned if seat.by_signer else 0),
            open_seats=state.open_seats - 1,
            last_closed=now,
        )
        self._emit("SeatClosed", seat=seat_id, job=job, paidUnits=seat.paid_units, returned=returned)

    def _each(self, items: Iterable[T], name: Callable[[T], bytes], do: Callable[[T], Refusal]) -> int:
        done = 0
        for item in items:
            why = do(item)
            if why == Refusal.NONE:
                done += 1
            else:
                self._emit("Refused", id=name(item), why=why)
        return done

    def _digest(self, message: object) -> bytes:
        return digest(self.domain, message)  # type: ignore[arg-type]

    def _emit(self, name: str, **values: object) -> None:
        self._machine.emit(self.address, name, **values)


def _first(*reasons: tuple[Refusal, bool]) -> Refusal | None:
    return next((why for why, holds in reasons if holds), None)
