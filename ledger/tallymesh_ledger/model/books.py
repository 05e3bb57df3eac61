"""What JobEscrow stores and how money moves in it; the calls stand in escrow.py and cases.py.

A job holds free + reserve + sum over open seats of (units - paid units) x price + sum over all seats of their bonds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from tallymesh.messages import Lease, Order
from tallymesh.schema import Message
from tallymesh_ledger.eip712 import Domain, keccak, word
from tallymesh_ledger.jobs import DOMAIN_JOB
from tallymesh_ledger.model.machine import ZERO_ADDRESS, Machine, Revert, Store
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.signatures import digest, hashed
from tallymesh_ledger.model.terms import Job, Refusal, Seat, SeatState
from tallymesh_ledger.model.token import Token

BP = 10_000

T = TypeVar("T")


class Books:
    """State and sums. `claims` are the contracts that open cases; `court` is credited with its share."""

    def __init__(
        self,
        machine: Machine,
        address: bytes,
        token: Token,
        registry: Registry,
        *,
        claims: Sequence[bytes],  # Claims first, whose cases may pay
        court: bytes,
        fee_bp: int,
        lease_max: int,
        lock_tail: int,
        window_min: int,
        window_max: int,
        period_length: int,
    ) -> None:
        self.address = address
        self.claims = claims
        self.court = court
        self.fee_bp = fee_bp
        self.lease_max = lease_max
        self.lock_tail = lock_tail
        self.window_min = window_min
        self.window_max = window_max
        self.period_length = period_length
        self.domain = Domain("Tallymesh JobEscrow", machine.chain_id, address)
        self._machine = machine
        self._token = token
        self._registry = registry
        self.jobs: Store[bytes, Job] = Store(machine, Job())
        self.seats: Store[bytes, Seat] = Store(machine, Seat())
        self.credits: Store[bytes, int] = Store(machine, 0)
        self._locks: Store[bytes, int] = Store(machine, 0)
        self._claimed: Store[bytes, bool] = Store(machine, False)  # a claim is among its cases
        self._paid_draws: Store[tuple[bytes, int, int], bool] = Store(machine, False)
        self._paid_orders: Store[bytes, bool] = Store(machine, False)
        self._fees: Store[str, int] = Store(machine, 0)
        self._burned: Store[tuple[int, bytes], int] = Store(machine, 0)
        self._burned_in: Store[int, int] = Store(machine, 0)

    # Views.

    def job_of(self, job: bytes) -> Job:
        return self.jobs[job]

    def seat_of(self, seat: bytes) -> Seat:
        return self.seats[seat]

    def credit_of(self, account: bytes) -> int:
        return self.credits[account]

    def fees_to_burn(self) -> int:
        return self._fees["burn"]

    def burned_of(self, period: int, worker: bytes) -> int:
        return self._burned[period, worker]

    def burned_in(self, period: int) -> int:
        return self._burned_in[period]

    def lock_left(self, lease: Lease) -> int:
        return self._locks[self.seat_id_of(lease)]

    def refundable(self, order: Order) -> tuple[int, int]:
        job = self.jobs[self._job_of(order)]
        waits = self._machine.now < job.last_closed + order.evidence_window
        return job.free, 0 if job.open_seats or waits else job.reserve

    def job_id_of(self, order: Order) -> bytes:
        parts = (DOMAIN_JOB, self._machine.chain_id, self.address, order.payer, hashed(order), order.salt)
        return keccak(b"".join(word(part) for part in parts))

    def seat_id_of(self, lease: Lease) -> bytes:
        return self._digest(lease)

    # Money.

    def _pay(self, lease: Lease, tally: int, units: int, chain: bytes) -> int:
        """The seat's paid units become `units`, which are more than before. What it paid, fee included."""
        seat_id = self.seat_id_of(lease)
        seat = self.seats[seat_id]
        amount = (units - seat.paid_units) * lease.price
        half = self._half_fee(units * lease.price) - self._half_fee(seat.paid_units * lease.price)
        self.seats[seat_id] = replace(seat, paid_units=units)
        self._fees["burn"] += half
        period = self._machine.now // self.period_length
        self._burned[period, lease.worker] += half
        self._burned_in[period] += half
        net = amount - 2 * half
        self._emit(
            "Settled",
            seat=seat_id,
            worker=lease.worker,
            tally=tally,
            units=units,
            amount=amount,
            fee=2 * half,
            chain=chain,
        )
        if seat.newcomer and self._registry.relieve(self.address, lease.worker, amount, False):
            self._stake(lease.worker, net)
        else:
            self.credits[lease.worker] += net
        if units == seat.units and not self._claimed[seat_id]:
            self._close(lease)
        return amount

    def _is_new(self, seat: Seat, price: int, units: int) -> bool:
        """More than was paid, and earning at least its own fee (of one wei, half the fee may round up to one)."""
        half = self._half_fee(units * price) - self._half_fee(seat.paid_units * price)
        return units > seat.paid_units and 2 * half <= (units - seat.paid_units) * price

    def _half_fee(self, paid: int) -> int:
        return paid * self.fee_bp // (2 * BP)

    def _stake(self, account: bytes, amount: int) -> None:
        """Tokens of the escrow become stake of the account."""
        self._emit("Staked", account=account, amount=amount)
        self._token.transfer(self.address, self._registry.address, amount)
        self._registry.deposit(self.address, account, amount)

    def _close(self, lease: Lease) -> None:
        """The unpaid part goes back to the job at once, the bond with it unless cases still may need it."""
        seat_id, now = self.seat_id_of(lease), self._machine.now
        seat, job = self.seats[seat_id], self.jobs[lease.job]
        unpaid = (seat.units - seat.paid_units) * lease.price
        returned = unpaid + (0 if self._claimed[seat_id] else seat.bond)
        bond = seat.bond if self._claimed[seat_id] else 0
        self.seats[seat_id] = replace(seat, state=SeatState.CLOSED, until=now, bond=bond)
        self.jobs[lease.job] = replace(
            job,
            free=job.free + returned,
            signer_seated=job.signer_seated - (returned if seat.by_signer else 0),
            open_seats=job.open_seats - 1,
            last_closed=now,
        )
        if seat.newcomer:
            self._registry.relieve(self.address, lease.worker, unpaid, True)
        self._emit("SeatClosed", seat=seat_id, job=lease.job, paidUnits=seat.paid_units, returned=returned)

    # Inside.

    def _job_of(self, order: Order) -> bytes:
        job = self.job_id_of(order)
        if self.jobs[job].signer == ZERO_ADDRESS:
            raise Revert("NoSuchJob", job)
        return job

    def _each(self, items: Iterable[T], name: Callable[[T], bytes], do: Callable[[T], Refusal]) -> int:
        """Do those items that can be done; say of each other one why not. How many were done."""
        done = 0
        for item in items:
            why = do(item)
            if why == Refusal.NONE:
                done += 1
            else:
                self._emit("Refused", id=name(item), why=why)
        return done

    def _digest(self, message: Message) -> bytes:
        return digest(self.domain, message)

    def _emit(self, name: str, **values: object) -> None:
        self._machine.emit(self.address, name, **values)


def first(*reasons: tuple[Refusal, bool]) -> Refusal | None:
    """The first reason that holds."""
    return next((why for why, holds in reasons if holds), None)
