"""Escrow and registry in memory: one world shared by all accounts, and each account's view of it as a `Chain`.

The rules are those of the contracts' model (tallymesh_ledger.model), which scripts/differential holds to the bytecode.
Time is `started` plus trio's clock, so that a MockClock drives it; one block a second. `check()` proves after any step
that every wei is somewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import trio
from msgspec.structs import replace

from tallymesh.errors import ChainError, RemoteError
from tallymesh.messages import Lease, Order
from tallymesh.parameters import Parameters
from tallymesh.wire import Signed
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.contract import compact
from tallymesh_ledger.eip712 import Domain, Domains, keccak, word
from tallymesh_ledger.model import terms
from tallymesh_ledger.model.machine import Event, Machine, Revert, Store
from tallymesh_ledger.model.signatures import NONE, Signature
from tallymesh_ledger.model.world import NAMES
from tallymesh_ledger.model.world import World as Contracts
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_ledger.registry import RegistryAt
from tallymesh_node.interfaces import JobState, SeatEnding, SeatState, SignedLease

STARTED = 1_800_000_000  # Unix time of the world's block 0
DOMAINS = Domains(Domain("Tallymesh Registry", 1337, b"\x11" * 20), Domain("Tallymesh JobEscrow", 1337, b"\x22" * 20))
BANK = b"\x44" * 20
SUPPLY = 10**27
UNLIMITED = 2**256 - 1


class SeatView:
    """A seat as tests look at it, and bend it where a chain shows something else than it should."""

    def __init__(self, world: World, seat: bytes) -> None:
        self._world = world
        self._seat = seat
        self._lease = world.leases[seat]
        self.price = self._lease.price
        self._units: int | None = None

    @property
    def _stored(self) -> terms.Seat:
        return self._world.contracts.escrow.seat_of(self._seat)

    @property
    def job(self) -> bytes:
        return self._lease.job

    @property
    def worker(self) -> bytes:
        return self._lease.worker

    @property
    def units(self) -> int:
        return self._stored.units if self._units is None else self._units

    @units.setter
    def units(self, units: int) -> None:
        self._units = units

    @property
    def paid_units(self) -> int:
        return self._stored.paid_units

    @property
    def until(self) -> int:
        return self._stored.until

    @property
    def open(self) -> bool:
        return self._stored.state == terms.SeatState.OPEN

    @property
    def unlocked(self) -> bool:
        return self._stored.state == terms.SeatState.UNLOCKED

    @property
    def closed_at(self) -> int | None:
        return None if self.open else self._stored.until

    @closed_at.setter
    def closed_at(self, now: int) -> None:
        assert self.open
        assert now == self._world.now()
        self._world.run(lambda: self._world.contracts.escrow._close(self._lease))


class Seats(MutableMapping[bytes, SeatView]):
    """By id. What is taken out is hidden, as by a reorganisation, until it is put back."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._views: dict[bytes, SeatView] = {}
        self._hidden: set[bytes] = set()

    def __getitem__(self, seat: bytes) -> SeatView:
        if seat in self._hidden or seat not in self._world.leases:
            raise KeyError(seat)
        return self._views.setdefault(seat, SeatView(self._world, seat))

    def __setitem__(self, seat: bytes, view: SeatView) -> None:
        self._hidden.remove(seat)

    def __delitem__(self, seat: bytes) -> None:
        self._hidden.add(seat)

    def __iter__(self) -> Iterator[bytes]:
        return (seat for seat in self._world.leases if seat not in self._hidden)

    def __len__(self) -> int:
        return len(self._world.leases) - len(self._hidden)


class JobView:
    """A job as tests look at it and bend it."""

    def __init__(self, store: Store[bytes, terms.Job], job: bytes) -> None:
        self._store = store
        self._job = job

    @property
    def reserve_left(self) -> int:
        return self._store[self._job].reserve

    @reserve_left.setter
    def reserve_left(self, wei: int) -> None:
        self._store[self._job] = replace(self._store[self._job], reserve=wei)

    @property
    def last_closed(self) -> int:
        return self._store[self._job].last_closed


class World:
    """What all nodes share. `domains` are those of the network under test."""

    def __init__(self, domains: Domains = DOMAINS, parameters: Parameters = Parameters()) -> None:
        self.domains = domains
        self.machine = Machine(domains.escrow.chain_id, block_number=0, now=STARTED)
        addresses = {name: keccak(name.encode())[12:] for name in NAMES}
        addresses |= {"Registry": domains.registry.contract, "JobEscrow": domains.escrow.contract}
        self.contracts = Contracts(self.machine, addresses, parameters, holder=BANK, supply=SUPPLY)
        self.parameters = parameters
        self.leases: dict[bytes, Lease] = {}  # of every seat that was ever taken
        self.orders: dict[bytes, Order] = {}
        self.seats = Seats(self)
        self.balances = self.contracts.token.balances
        self.credits = self.contracts.escrow.credits
        self.transactions: list[tuple[str, bytes]] = []  # (what, sender)
        self.refused: list[tuple[bytes, str]] = []  # (seat or AuditOrder, why) of items that batches left out
        self.events: list[tuple[int, Event]] = []  # (chain time, event), in order
        self.slept_s = 0  # Unix time that went by while the machine slept, and its monotonic clock stood still
        self.down = False  # the chain cannot be reached

    @property
    def parameters(self) -> Parameters:
        return self._parameters

    @parameters.setter
    def parameters(self, new: Parameters) -> None:
        self._parameters = new
        registry, escrow = self.contracts.registry, self.contracts.escrow
        registry.slot_wei, registry.unbonding_delay = new.slot_wei, new.unbonding_s
        registry.class_delay = new.class_delay_s
        escrow.fee_bp, escrow.lease_max, escrow.lock_tail = new.fee_bp, new.lease_max_s, new.lock_tail_s
        windows = (new.claim_window_s, new.evidence_window_s)
        escrow.window_min, escrow.window_max = 0, max(*windows, escrow.window_max)

    # Setting the scene.

    def mint(self, account: bytes, wei: int) -> None:
        self.run(lambda: self.contracts.token.transfer(BANK, account, wei))

    def stake(self, account: bytes, slots: int, numeric_class: bytes, *, owner: bytes = b"") -> None:
        registry, token = self.contracts.registry, self.contracts.token
        self.run(lambda: token.approve(BANK, registry.address, UNLIMITED))
        if slots:
            self.run(lambda: registry.buy_slots(BANK, account, slots))
        self.compute_in(account, numeric_class)
        if owner:
            self.own(account, owner)

    def compute_in(self, account: bytes, numeric_class: bytes) -> None:
        """The class counts at once: it was set long ago."""
        self.run(lambda: self.contracts.registry.set_class(account, numeric_class), ago=self.parameters.class_delay_s)

    def own(self, account: bytes, owner: bytes) -> None:
        registry = self.contracts.registry
        present = registry.owner_of(account)
        self.run(lambda: registry.propose_owner(present, account, owner))
        self.run(lambda: registry.accept_owner(owner, account))

    def view(self, account: bytes) -> FakeChain:
        return FakeChain(self, account)

    # What everybody can read.

    def now(self) -> int:
        """The scene may be set before the clock runs."""
        return STARTED + self.slept_s + int(trio.current_time()) if trio.lowlevel.in_trio_run() else STARTED

    def clock(self) -> float:
        """Unix time as the machines around this chain have it."""
        return STARTED + self.slept_s + trio.current_time()

    def block_hash(self, number: int) -> bytes:
        return keccak(b"block" + word(number))

    def registry(self, number: int) -> RegistryAt:
        found = self.at_now().contracts.registry
        slots = [found.slot_at(slot) for slot in range(found.slot_count())]
        accounts = {slot.account for slot in slots}
        return RegistryAt(
            block_number=number,
            block_hash=self.block_hash(number),
            block_time=STARTED + number,
            slots=tuple(None if slot.released_block else slot.account for slot in slots),
            owners={account: found.owner_of(account) for account in accounts},
            classes={account: found.class_of(account)[0] for account in accounts},
        )

    @property
    def jobs(self) -> dict[bytes, JobView]:
        return {job: JobView(self.contracts.escrow.jobs, job) for job in self.orders}

    def locked(self, account: bytes) -> int:
        return self.contracts.registry.stake_of(account)[1]

    def open_seats(self, job: bytes) -> list[SeatView]:
        return [seat for seat in self.seats.values() if seat.job == job and seat.open]

    def held(self, job: bytes) -> int:
        """All that is left of the job's budget."""
        escrow = self.contracts.escrow
        state = escrow.job_of(job)
        bonds = sum(escrow.seat_of(seat).bond for seat, lease in self.leases.items() if lease.job == job)
        unpaid = sum((seat.units - seat.paid_units) * seat.price for seat in self.open_seats(job))
        return state.free + state.reserve + unpaid + bonds

    def check(self) -> None:
        """Every wei is somewhere, and open seats are covered."""
        token, escrow = self.contracts.token, self.contracts.escrow
        held = sum(self.held(job) for job in self.orders)
        credits = sum(wei for _, wei in self.credits.items())
        assert token.balance_of(escrow.address) == held + credits + 2 * escrow.fees_to_burn()
        assert sum(wei for _, wei in self.balances.items()) == token.total_supply()

    # The machine.

    def at_now(self) -> World:
        self.machine.now = self.now()
        self.machine.block_number = self.machine.now - STARTED
        return self

    def run(self, call: Any, *, ago: int = 0) -> Any:
        """A call as the contracts would do it now, or that was made `ago` seconds ago. Raises ChainError."""
        self.at_now()
        self.machine.now -= ago
        try:
            done = self.machine.call(call)
        except Revert as revert:
            code = abi.snake(revert.name)
            raise ChainError(code, f"The contract refused: {code}.", reverted=True) from None
        self.events += [(self.machine.now, event) for event in done.events]
        for event in done.events:
            if event.name == "Refused":
                self.refused.append((event.values["id"], terms.Refusal(event.values["why"]).name.lower()))
        return done.value


class FakeChain:
    """The `Chain` of one account."""

    def __init__(self, world: World, account: bytes) -> None:
        self.world = world
        self.account = account

    @property
    def unavailable(self) -> str:
        return "The chain does not answer." if self.world.down else ""

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
            units=found.units,
            paid_units=found.paid_units,
            until=found.until,
            open=found.open,
            cases=found._stored.cases,
            unlocked=found.unlocked,
            newcomer=found._stored.newcomer,
        )

    async def job_state(self, job: bytes) -> JobState | None:
        await self._reach()
        if job not in self.world.orders:
            return None
        found = self.world.contracts.escrow.job_of(job)
        return JobState(
            signer=found.signer,
            free=found.free,
            reserve=found.reserve,
            open_seats=found.open_seats,
            last_closed=found.last_closed,
        )

    async def open(self, order: Order, leases: Sequence[SignedLease]) -> bytes:
        await self._reach()
        escrow, token = self.world.contracts.escrow, self.world.contracts.token
        self.world.run(lambda: token.approve(self.account, escrow.address, UNLIMITED))
        self.world.run(lambda: escrow.open(self.account, order, [_seating(one) for one in leases]))
        self.world.orders[escrow.job_id_of(order)] = order
        return self._seated("open", leases)

    async def seat(self, order: Order, leases: Sequence[SignedLease]) -> bytes:
        await self._reach()
        escrow = self.world.contracts.escrow
        self.world.run(lambda: escrow.seat(self.account, order, [_seating(one) for one in leases]))
        return self._seated("seat", leases)

    async def settle(self, items: Sequence[tuple[Lease, Signed]]) -> bytes:
        await self._reach()
        settlements = [terms.Settlement(lease, one.message, _signature(one)) for lease, one in items]
        self.world.run(lambda: self.world.contracts.escrow.settle(self.account, settlements))
        return self._mined("settle")

    async def finish(self, order: Order, endings: Sequence[SeatEnding]) -> bytes:
        await self._reach()
        ends = [_end(ending) for ending in endings]
        self.world.run(lambda: self.world.contracts.escrow.finish(self.account, order, ends))
        return self._mined("finish")

    async def pay_audits(self, lease: Lease, audits: Sequence[tuple[Signed, Signed]]) -> int:
        await self._reach()
        items = [_audit(*pair) for pair in audits]
        paid: int = self.world.run(lambda: self.world.contracts.escrow.pay_audits(self.account, lease, items))
        if paid:
            self._mined("pay_audits")
        return paid

    async def expire(self, order: Order, leases: Sequence[Lease]) -> bytes:
        await self._reach()
        self.world.run(lambda: self.world.contracts.escrow.expire(self.account, order, leases))
        return self._mined("expire")

    async def unlock(self, leases: Sequence[Lease]) -> bytes:
        await self._reach()
        self.world.run(lambda: self.world.contracts.escrow.unlock(self.account, leases))
        return self._mined("unlock")

    async def refund(self, order: Order) -> bytes:
        await self._reach()
        self.world.run(lambda: self.world.contracts.escrow.refund(self.account, order))
        return self._mined("refund")

    async def withdraw(self) -> bytes:
        await self._reach()
        self.world.run(lambda: self.world.contracts.escrow.withdraw(self.account, self.account))
        return self._mined("withdraw")

    async def tokens(self) -> int:
        await self._reach()
        return self.world.contracts.token.balance_of(self.account)

    async def tokens_of(self, account: bytes) -> int:
        await self._reach()
        return self.world.contracts.token.balance_of(account)

    async def credits(self, account: bytes) -> int:
        await self._reach()
        return self.world.contracts.escrow.credit_of(account)

    async def free_stake(self, account: bytes) -> int:
        await self._reach()
        return self.world.contracts.registry.stake_of(account)[0]

    async def free_stakes(self, accounts: Sequence[bytes]) -> list[int]:
        return [await self.free_stake(account) for account in accounts]

    async def newcomers(self, accounts: Sequence[bytes]) -> list[Newcomer]:
        await self._reach()
        registry = self.world.contracts.registry
        return [Newcomer(*registry.newcomer_of(account), registry.deposit_of(account)) for account in accounts]

    def _seated(self, what: str, leases: Sequence[SignedLease]) -> bytes:
        escrow = self.world.contracts.escrow
        for one in leases:
            seat = escrow.seat_id_of(one.lease)
            if escrow.seat_of(seat).state != terms.SeatState.NONE:
                self.world.leases[seat] = one.lease
        return self._mined(what)

    def _mined(self, what: str) -> bytes:
        self.world.transactions.append((what, self.account))
        return keccak(word(len(self.world.transactions)))

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.world.down:
            raise ChainError("chain_unavailable", "The chain does not answer.", reverted=False)


def _signature(signed: Signed | None) -> Signature:
    return Signature(*compact(signed.signature)) if signed else NONE


def _seating(signed: SignedLease) -> terms.Seating:
    worker, signer = compact(signed.worker_signature), compact(signed.signer_signature)
    return terms.Seating(signed.lease, Signature(*worker), Signature(*signer))


def _audit(order: Signed, verdict: Signed) -> terms.Audit:
    return terms.Audit(order.message, _signature(order), verdict.message, _signature(verdict))


def _end(ending: SeatEnding) -> terms.SeatEnd:
    return terms.SeatEnd(
        ending.lease,
        ending.accept.message if ending.accept else terms.NO_ACCEPT,
        _signature(ending.accept),
        ending.release.message if ending.release else terms.NO_RELEASE,
        _signature(ending.release),
        tuple(_audit(*pair) for pair in ending.audits),
    )
