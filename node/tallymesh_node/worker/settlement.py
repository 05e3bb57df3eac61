"""Compares what the payers accepted with what the chain has paid, and settles, expires and withdraws until they agree.

Level-triggered and for all seats together: one look at the chain each, then at most one transaction of a kind. Whoever
settles, the escrow pays once, so a race with the payer costs gas and nothing else. This module signs no message.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable

import trio

from tallymesh.errors import ChainError, RemoteError
from tallymesh.messages import Lease, Order
from tallymesh.wire import Signed
from tallymesh_ledger.phases import Phase
from tallymesh_node import beats
from tallymesh_node.complaints import level
from tallymesh_node.worker.policy import SettlePolicy, Standing, settle_reason, worth_withdrawing
from tallymesh_node.worker.stake import OwnStake
from tallymesh_node.worker.tools import Bell, Tools, Work, log

LOOK_S = 10.0  # between looks at the chain
LOOK_SOON_S = 1.0  # while a seat is not on chain yet
FAILED_S = 15.0  # after a transaction that failed: the chain is down, or there is no gas
MAX_ITEMS = 64  # Accepts in one transaction: about 4 M gas
EXPIRE_SLACK_S = 60  # the payer closes its expired seats itself as a rule


class Settlement:
    def __init__(
        self,
        tools: Tools,
        works: Callable[[], Iterable[Work]],
        policy: SettlePolicy,
        own_stake: OwnStake,
        over: Callable[[Work, str], object],
    ) -> None:
        self.tools = tools
        self.works = works
        self.policy = policy
        self.own_stake = own_stake
        self.bell = Bell()
        self._over = over  # called with a seat that needs nothing more, and why
        self._account_at = 0.0  # trio time: when our stake and credits are to be looked at again
        self._not_before = 0.0  # trio time: after a failed transaction

    async def run(self) -> None:
        while True:
            pause = LOOK_S
            try:
                await self._look()
                if trio.current_time() >= self._not_before:
                    await self._act()
            except ChainError as error:
                log.log(level(error), "chain: %s", error)
            except RemoteError as error:
                log.warning("chain: %s", error)
            if any(work.state is None for work in self.works()):
                pause = LOOK_SOON_S
            await self.bell.wait(beats.left(pause))

    async def _look(self) -> None:
        for work in list(self.works()):
            state = await self.tools.chain.seat_state(work.record.id)
            changed = state != work.state
            work.state, work.looked_at = state, self.tools.chain.block_time()
            if state is not None and not state.open:
                self._over(work, "closed")
            elif state is None and self._never_seated(work):
                self._over(work, "unseated")
            if changed or state is None:
                work.keeper_bell.ring()

    def _never_seated(self, work: Work) -> bool:
        """Whether the seat can no longer get on chain, and the payer was told that we left."""
        if not work.seat_missed or work.record.seat.phase is Phase.OPEN:
            return False
        told = work.leave_sent or not work.record.leave
        return told or trio.current_time() - work.heard_at >= self.policy.silence_s

    async def _act(self) -> None:
        await self._settle()
        await self._expire()
        if trio.current_time() >= self._account_at:
            await self.own_stake.refresh(self.works())
            await self._withdraw()
            self._account_at = trio.current_time() + LOOK_S

    def _unpaid(self, work: Work) -> int:
        """Units that an Accept covers and the chain has not paid, as far as it ever will."""
        if work.state is None or not work.state.open:
            return 0
        return min(work.record.voucher_units, work.state.units) - work.paid_units

    async def _settle(self) -> None:
        due: list[tuple[Lease, Signed]] = []
        for work in self.works():
            reason = settle_reason(self.policy, self._standing(work))
            if reason and work.record.voucher is not None and len(due) < MAX_ITEMS:
                log.info("seat %s: settling %d units (%s)", work.record.id[:4].hex(), self._unpaid(work), reason)
                due.append((work.record.lease, work.record.voucher))
        if due:
            await self._send(functools.partial(self.tools.chain.settle, due))
            self.tools.counters["settlements"] += 1
            await self._look()

    def _standing(self, work: Work) -> Standing:
        now, record = trio.current_time(), work.record
        return Standing(
            unpaid_units=self._unpaid(work),
            price=record.lease.price,
            now=self.tools.chain.block_time(),
            since=record.line.at,
            until=record.lease.until,
            silent_s=now - work.heard_at,
            over_s=None if work.done_at is None else now - work.done_at,
        )

    async def _expire(self) -> None:
        """Close a seat that nobody closed: until then it locks this node's stake."""
        now = self.tools.chain.block_time()
        by_order: dict[bytes, tuple[Order, list[Lease]]] = {}
        for work in self.works():
            record = work.record
            end = record.lease.until + record.order.claim_window + EXPIRE_SLACK_S
            if work.seated and now >= end and not self._unpaid(work) and not work.claimed:
                by_order.setdefault(record.lease.job, (record.order, []))[1].append(record.lease)
        for order, leases in by_order.values():
            await self._send(functools.partial(self.tools.chain.expire, order, leases))

    async def _withdraw(self) -> None:
        idle = all(work.record.seat.phase is not Phase.OPEN for work in self.works())
        credits_wei = await self.tools.chain.credits(self.tools.key.address)
        if worth_withdrawing(self.policy, credits_wei, idle=idle):
            await self._send(self.tools.chain.withdraw)
            self.tools.counters["withdrawals"] += 1

    async def _send(self, transaction: Callable[[], Awaitable[bytes]]) -> None:
        try:
            await transaction()
        except ChainError:
            self._not_before = trio.current_time() + FAILED_S
            raise
