"""Escrow and registry in memory: one world shared by all accounts, and each account's view of it as a `Chain`.

Follows docs/PROTOCOL.md section 6 as far as the first contracts go: seats, cumulative settlement, close by Release or
by time, audits paid once, refunds, locked stake. Time is `started` plus trio's clock, so that a MockClock drives it;
one block a second. `check()` proves after any step that every wei is somewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import trio

from tallymesh.errors import ChainError, RemoteError
from tallymesh.messages import Lease, Order, Result
from tallymesh.parameters import Parameters
from tallymesh.wire import Signed
from tallymesh_ledger import keys
from tallymesh_ledger.eip712 import Domain, Domains, keccak, word
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.registry import RegistryAt
from tallymesh_node.interfaces import JobState, SeatEnding, SeatState, SignedLease

STARTED = 1_800_000_000  # Unix time of the world's block 0
DOMAINS = Domains(Domain("Tallymesh Registry", 1337, b"\x11" * 20), Domain("Tallymesh JobEscrow", 1337, b"\x22" * 20))
BURNED = b"\0" * 20


class _Seat(msgspec.Struct):
    job: bytes
    worker: bytes
    price: int
    units: int
    until: int
    lock: int
    paid_units: int = 0
    closed_at: int | None = None


class _Job(msgspec.Struct):
    order: Order
    wages_left: int
    reserve_left: int
    last_closed: int
    paid_audits: set[bytes]


class World:
    """What all nodes share. `domains` are those of the network under test."""

    def __init__(self, domains: Domains = DOMAINS, parameters: Parameters = Parameters()) -> None:
        self.domains = domains
        self.parameters = parameters
        self.balances: dict[bytes, int] = defaultdict(int)
        self.credits: dict[bytes, int] = defaultdict(int)
        self.jobs: dict[bytes, _Job] = {}
        self.seats: dict[bytes, _Seat] = {}
        self.transactions: list[tuple[str, bytes]] = []  # (what, sender)
        self.refused: list[tuple[bytes, str]] = []  # (seat, AuditOrder or job, why) of items that batches left out
        self.minted = 0
        self.down = False  # the chain cannot be reached
        self._slots: list[bytes | None] = []
        self._classes: dict[bytes, bytes] = {}
        self._owners: dict[bytes, bytes] = {}

    # Setting the scene.

    def mint(self, account: bytes, wei: int) -> None:
        self.balances[account] += wei
        self.minted += wei

    def stake(self, account: bytes, slots: int, numeric_class: bytes, *, owner: bytes = b"") -> None:
        self._slots += [account] * slots
        self._classes[account] = numeric_class
        if owner:
            self._owners[account] = owner

    def view(self, account: bytes) -> FakeChain:
        return FakeChain(self, account)

    # What everybody can read.

    def now(self) -> int:
        return STARTED + int(trio.current_time())

    def block_hash(self, number: int) -> bytes:
        return keccak(b"block" + word(number))

    def registry(self, number: int) -> RegistryAt:
        return RegistryAt(
            block_number=number,
            block_hash=self.block_hash(number),
            block_time=STARTED + number,
            slots=tuple(self._slots),
            owners=dict(self._owners),
            classes=dict(self._classes),
        )

    def reserved(self, job: bytes) -> int:
        bond = self.jobs[job].order.claim_bond
        return sum((seat.units - seat.paid_units) * seat.price + bond for seat in self.open_seats(job))

    def locked(self, account: bytes) -> int:
        tail = self.parameters.lock_tail_s
        return sum(
            seat.lock
            for seat in self.seats.values()
            if seat.worker == account and (seat.closed_at is None or self.now() < seat.closed_at + tail)
        )

    def open_seats(self, job: bytes) -> list[_Seat]:
        return [seat for seat in self.seats.values() if seat.job == job and seat.closed_at is None]

    def held(self, job: bytes) -> int:
        found = self.jobs.get(job)
        return found.wages_left + found.reserve_left if found else 0

    def check(self) -> None:
        """Every wei is somewhere, and open seats are covered."""
        held = sum(self.held(job) for job in self.jobs)
        assert sum(self.balances.values()) + sum(self.credits.values()) + held == self.minted
        for job in self.jobs:
            assert self.reserved(job) <= self.jobs[job].wages_left
        assert all(seat.paid_units <= seat.units for seat in self.seats.values())


class FakeChain:
    """The `Chain` of one account."""

    def __init__(self, world: World, account: bytes) -> None:
        self.world = world
        self.account = account

    def block_time(self) -> int:
        return self.world.now()

    async def final_block(self) -> tuple[int, bytes]:
        await self._reach()
        number = max(0, self.world.now() - STARTED - self.world.parameters.confirmations)
        return number, self.world.block_hash(number)

    async def registry_at(self, number: int, block_hash: bytes) -> RegistryAt:
        await self._reach()
        if self.world.block_hash(number) != block_hash:
            raise RemoteError("wrong_block", f"Block {number} has another hash on this chain.")
        return self.world.registry(number)

    async def seat_state(self, seat: bytes) -> SeatState | None:
        await self._reach()
        found = self.world.seats.get(seat)
        if found is None:
            return None
        return SeatState(
            price=found.price,
            units=found.units,
            paid_units=found.paid_units,
            until=found.until if found.closed_at is None else found.closed_at,
            open=found.closed_at is None,
        )

    async def job_state(self, job: bytes) -> JobState | None:
        await self._reach()
        found = self.world.jobs.get(job)
        if found is None:
            return None
        return JobState(
            signer=found.order.signer,
            free=found.wages_left - self.world.reserved(job),
            reserve=found.reserve_left,
            open_seats=len(self.world.open_seats(job)),
            last_closed=found.last_closed,
        )

    async def open(self, order: Order, leases: Sequence[SignedLease]) -> bytes:
        await self._reach()
        job = job_id(self.world.domains, order)
        budget = order.wages + order.audit_reserve
        _require(order.payer == self.account, "not_payer")
        _require(job not in self.world.jobs, "job_exists")
        _require(self.world.now() < order.deadline, "deadline_passed")
        _require(self.world.balances[self.account] >= budget, "balance_too_small")
        self.world.balances[self.account] -= budget
        self.world.jobs[job] = _Job(order, order.wages, order.audit_reserve, self.world.now(), set())
        return self._each("open", [(seat_id(self.world.domains, one.lease), self._take, order, one) for one in leases])

    async def seat(self, order: Order, leases: Sequence[SignedLease]) -> bytes:
        await self._reach()
        _require(job_id(self.world.domains, order) in self.world.jobs, "no_job")
        return self._each("seat", [(seat_id(self.world.domains, one.lease), self._take, order, one) for one in leases])

    async def settle(self, items: Sequence[tuple[Lease, Signed]]) -> bytes:
        await self._reach()
        return self._each("settle", [(seat_id(self.world.domains, lease), self._settle, one) for lease, one in items])

    async def finish(self, order: Order, endings: Sequence[SeatEnding]) -> bytes:
        await self._reach()
        job = job_id(self.world.domains, order)
        _require(job in self.world.jobs, "no_job")
        steps: list[tuple[Any, ...]] = []
        for ending in endings:
            seat = seat_id(self.world.domains, ending.lease)
            if ending.accept is not None:
                steps.append((seat, self._settle, ending.accept))
            steps += [(self.world.domains.digest(o.message), self._pay_audit, job, o, v) for o, v in ending.audits]
            if ending.release is not None:
                steps.append((seat, self._close_by_release, ending.release))
        if self.account in (order.payer, order.signer):
            steps.append((job, self._refund, job))
        return self._each("finish", steps)

    async def pay_audits(self, lease: Lease, audits: Sequence[tuple[Signed, Signed]]) -> int:
        await self._reach()
        paid = 0
        for order, verdict in audits:
            with suppress(ChainError):
                self._pay_audit(lease.job, order, verdict)
                paid += 1
        if paid:
            self._mined("pay_audits")
        return paid

    async def expire(self, order: Order, leases: Sequence[Lease]) -> bytes:
        await self._reach()
        return self._each(
            "expire", [(seat_id(self.world.domains, lease), self._expire, order, lease) for lease in leases]
        )

    async def refund(self, order: Order) -> bytes:
        await self._reach()
        job = job_id(self.world.domains, order)
        _require(self.account in (order.payer, order.signer), "not_refundable")
        self._refund(job)
        return self._mined("refund")

    async def withdraw(self) -> bytes:
        await self._reach()
        self.world.balances[self.account] += self.world.credits.pop(self.account, 0)
        return self._mined("withdraw")

    async def credits(self, account: bytes) -> int:
        await self._reach()
        return self.world.credits.get(account, 0)

    async def free_stake(self, account: bytes) -> int:
        await self._reach()
        slots = sum(1 for holder in self.world._slots if holder == account)
        return slots * self.world.parameters.slot_wei - self.world.locked(account)

    async def free_stakes(self, accounts: Sequence[bytes]) -> list[int]:
        return [await self.free_stake(account) for account in accounts]

    # The contract's rules.

    def _each(self, what: str, steps: Sequence[tuple[Any, ...]]) -> bytes:
        """A batch does what can be done; the rest is left out with its reason."""
        for item, function, *arguments in steps:
            try:
                function(*arguments)
            except ChainError as error:
                self.world.refused.append((item, error.code))
        return self._mined(what)

    def _take(self, order: Order, signed: SignedLease) -> None:
        world, now, lease = self.world, self.world.now(), signed.lease
        job, digest = job_id(world.domains, order), world.domains.digest(lease)
        seat = seat_id(world.domains, lease)
        _require(seat not in world.seats, "seat_used")
        _require(lease.job == job and lease.positions > 0, "bad_lease")
        _require(keys.recover(digest, signed.signer_signature) == order.signer, "bad_signature")
        _require(keys.recover(digest, signed.worker_signature) == lease.worker, "bad_signature")
        _require(now <= lease.seat_by and now <= order.deadline, "too_late")
        _require(now < lease.until <= now + world.parameters.lease_max_s, "bad_term")
        _require(lease.lock >= order.lock_per_seat, "lock_too_small")
        _require(lease.price * 1000 < order.price_max * lease.work_ms + 1000, "price_too_high")
        slots = sum(1 for holder in world._slots if holder == lease.worker)
        free = slots * world.parameters.slot_wei - world.locked(lease.worker)
        _require(slots > 0 and free >= lease.lock, "no_stake")
        cap = lease.positions * lease.price + order.claim_bond
        _require(world.reserved(job) + cap <= world.jobs[job].wages_left, "over_budget")
        world.seats[seat] = _Seat(job, lease.worker, lease.price, lease.positions, lease.until, lease.lock)

    def _settle(self, accept: Signed) -> None:
        message = accept.message
        seat = self.world.seats.get(message.seat)
        if seat is None or seat.closed_at is not None:
            raise ChainError("not_open", "The seat is not open.", reverted=True)
        job = self.world.jobs[seat.job]
        _require(self._signed(accept, job.order.signer), "bad_signature")
        more = min(message.units, seat.units) - seat.paid_units
        _require(more > 0, "nothing_new")
        seat.paid_units += more
        job.wages_left -= more * seat.price
        self._credit(seat.worker, more * seat.price)
        if seat.paid_units == seat.units:
            self._close(seat)

    def _close_by_release(self, release: Signed) -> None:
        seat = self.world.seats.get(release.message.seat)
        if seat is None or seat.closed_at is not None:
            raise ChainError("not_open", "The seat is not open.", reverted=True)
        _require(self._signed(release, seat.worker), "bad_signature")
        _require(seat.paid_units >= release.message.units, "not_paid_yet")
        self._close(seat)

    def _expire(self, order: Order, lease: Lease) -> None:
        seat = self.world.seats.get(seat_id(self.world.domains, lease))
        if seat is None or seat.closed_at is not None:
            raise ChainError("not_open", "The seat is not open.", reverted=True)
        _require(self.world.now() >= seat.until + order.claim_window, "too_early")
        self._close(seat)

    def _pay_audit(self, job: bytes, audit_order: Signed, verdict: Signed) -> None:
        order, found = audit_order.message, self.world.jobs[job]
        digest = self.world.domains.digest(order)
        seat = self.world.seats.get(order.seat)
        if seat is None or seat.job != job:
            raise ChainError("wrong_job", "The seat is of another job.", reverted=True)
        _require(self._signed(audit_order, found.order.signer), "bad_signature")
        _require(verdict.message.audit_order == digest and self._signed(verdict, order.auditor), "bad_audit")
        _require(order.fee * 10_000 <= seat.price * self.world.parameters.auditor_fee_bp, "price_too_high")
        _require(digest not in found.paid_audits, "already_paid")
        fee = order.fee // 10 if verdict.message.result == Result.UNAVAILABLE else order.fee
        _require(found.reserve_left >= fee, "over_budget")
        found.paid_audits.add(digest)
        found.reserve_left -= fee
        self.world.credits[order.auditor] += fee

    def _refund(self, job: bytes) -> None:
        found = self.world.jobs[job]
        free = found.wages_left - self.world.reserved(job)
        found.wages_left -= free
        if not self.world.open_seats(job) and self.world.now() >= found.last_closed + found.order.evidence_window:
            free += found.reserve_left
            found.reserve_left = 0
        self.world.credits[found.order.payer] += free

    def _close(self, seat: _Seat) -> None:
        seat.closed_at = self.world.now()
        self.world.jobs[seat.job].last_closed = seat.closed_at

    def _credit(self, account: bytes, wei: int) -> None:
        fee = wei * self.world.parameters.fee_bp // 10_000
        self.world.credits[account] += wei - fee
        self.world.balances[BURNED] += fee

    def _signed(self, signed: Signed, account: bytes) -> bool:
        return keys.recover(self.world.domains.digest(signed.message), signed.signature) == account

    def _mined(self, what: str) -> bytes:
        self.world.transactions.append((what, self.account))
        return keccak(word(len(self.world.transactions)))

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.world.down:
            raise ChainError("chain_unavailable", "The chain does not answer.", reverted=False)


def _require(holds: bool, code: str) -> None:
    if not holds:
        raise ChainError(code, f"The escrow refused: {code}.", reverted=True)
