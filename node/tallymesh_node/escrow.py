"""`interfaces.Chain` over the contracts: what the roles ask of escrow and registry, for one account.

Loops keep the newest block's time, so that asking for it costs nothing, and watch transactions until they are final;
everything else is read when it is needed. This module decides nothing and keeps no books.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from tallymesh.errors import ChainError
from tallymesh.messages import Lease, Order, Result
from tallymesh.network import Network
from tallymesh.wire import Signed
from tallymesh_ledger.chain import Audit, Contracts, Rpc, SeatEnd, Seating, SeatStatus, Sender, Settlement
from tallymesh_ledger.chain.fees import NO_LIMITS, GasPolicy
from tallymesh_ledger.chain.outbox import Outbox
from tallymesh_ledger.chain.registry_view import RegistryView
from tallymesh_ledger.chain.rpc import Block, block_of
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_ledger.registry import RegistryAt
from tallymesh_node import beats
from tallymesh_node.complaints import LIMITS, NO_COIN
from tallymesh_node.interfaces import JobState, SeatEnding, SeatState, SignedLease
from tallymesh_node.newest import SOON, Newest
from tallymesh_node.quiet import Quiet

log = logging.getLogger("tallymesh.escrow")

TELL_S = 3.0  # without an answer: then the owner is told, long before calls that are under way give up
POLL_S = 1.0  # how often the newest block is looked at; blocks come every few seconds
UNAVAILABLE_SHARE = 10  # an auditor that could not have the unit gets a tenth of its fee
STALE_S = 300.0  # a newest block older than this, or than …
STALE_BLOCKS = 50  # … this many usual ones, means that the node we ask has stopped following its chain


class EscrowChain:
    """`outbox` keeps what was sent over a restart; `policy` is what the owner pays for gas."""

    def __init__(
        self,
        rpc: Rpc,
        network: Network,
        key: AccountKey,
        *,
        outbox: Outbox | None = None,
        policy: GasPolicy = NO_LIMITS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rpc = rpc
        self.account = key.address
        self.contracts = Contracts.of(rpc, network)
        self.facts = network.chain
        self.policy = policy
        confirmations = network.parameters.confirmations
        self.sender = Sender(rpc, key, outbox=outbox, policy=policy, facts=network.chain, confirmations=confirmations)
        self.view = RegistryView(rpc, self.contracts.registry, deployed_block=network.contracts.deployed_block)
        self._confirmations = confirmations
        self._fee_bp = network.parameters.fee_bp
        self._stale_s = max(STALE_S, STALE_BLOCKS * network.chain.block_ms / 1000)
        self._clock = clock
        self._time = 0
        self._asked_at = math.inf  # trio time of the look that is under way
        self.newest = Newest()
        self.quiet = Quiet(self.newest, network.contracts, self.sender)
        self.unavailable = ""  # why the chain could not be asked the last time, "" if it could
        self.held_back: ChainError | None = None  # pay that the owner's limits on gas keep from being redeemed

    async def look(self) -> None:
        """Read the newest block, and those that came since the last look where they are few."""
        block = await self.rpc.block()
        for between in await self._between(block):
            self.newest.note(between)
        self._time = block.timestamp
        self.newest.note(block)

    async def _between(self, block: Block) -> list[Block]:
        numbers = self.newest.missing(block)
        if not numbers:
            return []
        answers = await self.rpc.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
        return [block_of(answer) for answer in answers if isinstance(answer, dict)]

    async def head(self) -> int:
        """The newest block's number, as the loop saw it a moment ago, or asked for."""
        known = self.newest.number
        return (await self.rpc.block()).number if known is None else known

    async def run(self) -> None:
        """Keep the newest block's time, and watch what was sent until it is final."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._tell_late)
            nursery.start_soon(self.sender.run)

    async def _keep_time(self) -> None:
        """A chain that is away, or whose node stands still, is told once, and once more when it is back."""
        while True:
            self._asked_at = trio.current_time()
            try:
                await self.look()
                problem = self._stale()
            except ChainError as error:
                problem = str(error)
            self._asked_at = math.inf
            self._tell(problem)
            await beats.pause(POLL_S)

    async def _tell_late(self) -> None:
        """Before a look that is under way has lost its patience, and knows more."""
        while True:
            await beats.pause(POLL_S)
            if not self.unavailable and trio.current_time() - self._asked_at > TELL_S - POLL_S / 2:
                self._tell(f"The chain has not answered for {TELL_S:g} s.")

    def _tell(self, problem: str) -> None:
        if problem and not self.unavailable:
            log.warning("the chain cannot be used: %s", problem)
        elif self.unavailable and not problem:
            log.info("the chain is back")
        self.unavailable = problem

    def _stale(self) -> str:
        age_s = self._clock() - self._time
        if age_s <= self._stale_s:
            return ""
        return f"The chain's newest block is {age_s / 60:.0f} minutes old: its node has stopped following the chain."

    def block_time(self) -> int:
        return self._time

    async def final_block(self) -> tuple[int, bytes]:
        number = max(0, await self.head() - self._confirmations)
        final = self.newest.block(number) or await self.rpc.block(number)
        return final.number, final.hash

    async def registry_at(self, number: int, block_hash: bytes) -> RegistryAt:
        found = self._registry_unchanged(number, block_hash)
        if found is None:
            found = await self.view.at(number, block_hash)
            await self._judge()
        return found

    def _registry_unchanged(self, number: int, block_hash: bytes) -> RegistryAt | None:
        """As the newest headers allow to say it without asking, None where they do not."""
        block, scan, newest = self.newest.block(number), self.view.scan, self.newest
        if block is None or block.hash != block_hash or scan is None or not newest.follows(scan.number, scan.hash):
            return None
        silent = newest.silent(self.contracts.registry.address, scan.number, scan.at, lately=SOON)
        return self.view.unchanged(block) if silent else None

    async def _judge(self) -> None:
        """Once: whether this chain's headers tell what was logged, by a block in which the registry did."""
        scan = self.view.scan
        if self.newest.unjudged and scan is not None and scan.logged is not None:
            self.newest.judge(await self.rpc.block(scan.logged), self.contracts.registry.address)

    async def seat_state(self, seat: bytes) -> SeatState | None:
        found = await self.contracts.escrow.seat_of(seat)
        if found.state is SeatStatus.NONE:
            return None
        return SeatState(
            units=found.units,
            paid_units=found.paid_units,
            until=found.until,
            open=found.state is SeatStatus.OPEN,
            bond=found.bond,
            cases=found.cases,
            unlocked=found.state is SeatStatus.UNLOCKED,
            newcomer=found.newcomer,
        )

    async def job_state(self, job: bytes) -> JobState | None:
        found = await self.contracts.escrow.job_of(job)
        if not found.opened:
            return None
        return JobState(
            signer=found.signer,
            free=found.free,
            reserve=found.reserve,
            open_seats=found.open_seats,
            last_closed=found.last_closed,
        )

    async def open(self, order: Order, leases: Sequence[SignedLease]) -> bytes:
        outcome = await self.contracts.escrow.open(self.sender, order, [_seating(each) for each in leases])
        return outcome.mined.hash

    async def seat(self, order: Order, leases: Sequence[SignedLease]) -> bytes:
        outcome = await self.contracts.escrow.seat(self.sender, order, [_seating(each) for each in leases])
        return outcome.mined.hash

    async def settle(self, items: Sequence[tuple[Lease, Signed]]) -> bytes:
        settlements = [Settlement(lease, accept.message, accept.signature) for lease, accept in items]
        brings_wei = await self._brings(items)
        with self._redeeming():
            return (await self.contracts.escrow.settle(self.sender, settlements, brings_wei=brings_wei)).mined.hash

    async def _brings(self, items: Sequence[tuple[Lease, Signed]]) -> int | None:
        """What this settlement credits to this account after the fee; None where it is not only about our own pay (a
        payer owes it whatever gas costs), or the owner named no price to compare it with."""
        if not self.policy.coin_price_wei or any(lease.worker != self.account for lease, _ in items):
            return None
        accepts = [accept.message for _, accept in items]
        seats = await self.contracts.escrow.seats_of([accept.seat for accept in accepts])
        owed_wei = sum(
            max(0, min(accept.units, seat.units) - seat.paid_units) * lease.price
            for (lease, _), accept, seat in zip(items, accepts, seats, strict=True)
            if seat.state is SeatStatus.OPEN
        )
        return int(owed_wei - owed_wei * self._fee_bp // 10_000)

    async def finish(self, order: Order, endings: Sequence[SeatEnding]) -> bytes:
        outcome = await self.contracts.escrow.finish(self.sender, order, [_ending(each) for each in endings])
        for item, why in outcome.refused.items():
            log.info("the escrow left out %s: %s", item[:4].hex(), why.name.lower())
        return outcome.mined.hash

    async def pay_audits(self, lease: Lease, audits: Sequence[tuple[Signed, Signed]]) -> int:
        pairs = [_audit(order, verdict) for order, verdict in audits]
        if not await self.contracts.escrow.payable_audits(lease, pairs):
            return 0
        brings_wei = self._fees(pairs) if self.policy.coin_price_wei else None
        with self._redeeming():
            outcome = await self.contracts.escrow.pay_audits(self.sender, lease, pairs, brings_wei=brings_wei)
        return len(outcome.of("AuditPaid"))

    def _fees(self, pairs: Sequence[Audit]) -> int | None:
        """What these audits credit to this account at most; None where it is not only about our own."""
        if any(audit.order.auditor != self.account for audit in pairs):
            return None
        return sum(
            audit.order.fee // (UNAVAILABLE_SHARE if audit.verdict.result == Result.UNAVAILABLE else 1)
            for audit in pairs
        )

    async def expire(self, order: Order, leases: Sequence[Lease]) -> bytes:
        return (await self.contracts.escrow.expire(self.sender, order, leases)).mined.hash

    async def unlock(self, leases: Sequence[Lease]) -> bytes:
        return (await self.contracts.escrow.unlock(self.sender, leases)).mined.hash

    async def refund(self, order: Order) -> bytes:
        return (await self.contracts.escrow.refund(self.sender, order)).mined.hash

    async def withdraw(self) -> bytes:
        brings_wei = await self.credits(self.account) if self.policy.coin_price_wei else None
        with self._redeeming():
            return (await self.contracts.escrow.withdraw(self.sender, self.account, brings_wei=brings_wei)).mined.hash

    @contextmanager
    def _redeeming(self) -> Iterator[None]:
        """Remembers, and tells once, that the owner's limits hold something back."""
        try:
            yield
        except ChainError as error:
            if error.code in LIMITS or error.code == NO_COIN:
                if self.held_back is None or self.held_back.code != error.code:
                    log.warning("not redeemed: %s", error)
                self.held_back = error
            raise
        self.held_back = None

    async def tokens(self) -> int:
        return await self.tokens_of(self.account)

    async def tokens_of(self, account: bytes) -> int:
        return await self.contracts.token.balance_of(account)

    async def credits(self, account: bytes) -> int:
        ask = self.contracts.escrow.credit_of
        return await self.quiet.ask(("credit", account), lambda: ask(account))

    async def free_stake(self, account: bytes) -> int:
        return (await self.free_stakes([account]))[0]

    async def free_stakes(self, accounts: Sequence[bytes]) -> list[int]:
        stakes_of = self.contracts.registry.stakes_of

        async def ask(missing: Sequence[bytes]) -> list[int]:
            return [stake.free for stake in await stakes_of(missing)]

        return await self.quiet.ask_many("free", accounts, ask)

    async def newcomers(self, accounts: Sequence[bytes]) -> list[Newcomer]:
        return await self.quiet.ask_many("newcomer", accounts, self.contracts.registry.newcomers)


def _seating(each: SignedLease) -> Seating:
    return Seating(each.lease, each.worker_signature, each.signer_signature)


def _audit(order: Signed, verdict: Signed) -> Audit:
    return Audit(order.message, verdict.message, order.signature, verdict.signature)


def _ending(each: SeatEnding) -> SeatEnd:
    audits = tuple(_audit(order, verdict) for order, verdict in each.audits)
    end = SeatEnd(each.lease, audits=audits)
    if each.accept is not None:
        end = SeatEnd(end.lease, each.accept.message, each.accept.signature, audits=audits)
    if each.release is not None:
        end = SeatEnd(end.lease, end.accept, end.accept_signature, each.release.message, each.release.signature, audits)
    return end
