"""Fetches what the escrow and Rewards owe this account, while its owner sleeps: refunds and fees of a node that does
not work (a worker draws its own pay, `worker.settlement`), and the rewards of periods that are over.

Level-triggered, from the chain alone: a node that was off for a year finds what it missed at its first look. What is
worth less than a threshold, or than its gas where the owner named the coin's price, stays where it is; nobody else can
have it, and `tallymesh withdraw` and `tallymesh rewards collect` fetch it all the same. This module signs nothing else.
"""

from __future__ import annotations

import logging
from collections import Counter

from tallymesh import amounts
from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.errors import ChainError
from tallymesh_ledger.chain.rewards import Rewards
from tallymesh_node import beats
from tallymesh_node.complaints import level
from tallymesh_node.escrow import EscrowChain

log = logging.getLogger("tallymesh.purse")

PERIODS_MAX = 104  # looked back at the first look: two years of weeks, some hundred small questions
LOOKS_A_PERIOD = 20
LOOK_MIN_S, LOOK_MAX_S = 10.0, 600.0
CREDIT_WEI = WEI_PER_TOKEN  # refunds and fees worth a transaction, which costs about 50,000 gas
REWARD_WEI = WEI_PER_TOKEN // 10  # a reward worth one: it comes once a period, and never grows


class Purse:
    """`period_s`: of rewards, as the network has it; `deployed_block`: of its contracts; `credits`: whether to draw
    what the escrow owes, too."""

    def __init__(self, chain: EscrowChain, *, period_s: int, deployed_block: int, credits: bool) -> None:
        self._chain = chain
        self._rewards: Rewards | None = chain.contracts.rewards
        self._period_s = period_s
        self._deployed_block = deployed_block
        self._credits = credits
        self._next: int | None = None  # periods before this one are done with; None before the first look
        self._waiting: dict[int, int] = {}  # period -> wei, of periods that are over and worth a transaction
        self.counters: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Purse waiting={sum(self._waiting.values())} {dict(self.counters)}>"

    async def run(self) -> None:
        """Until cancelled."""
        pause = min(LOOK_MAX_S, max(LOOK_MIN_S, self._period_s / LOOKS_A_PERIOD))
        while True:
            try:
                await self.look()
            except ChainError as error:
                log.log(level(error), "not fetched yet: %s", error)
            await beats.pause(pause)

    async def look(self) -> None:
        """Fetch what is there. ChainError where the chain cannot be asked, or gas is too dear: the next one goes on."""
        if self._credits and await self._chain.credits(self._chain.account) >= CREDIT_WEI:
            await self._chain.withdraw()
            self.counters["withdrawals"] += 1
        if self._rewards is not None:
            await self._find(self._rewards)
            for period in sorted(self._waiting):
                await self._collect(self._rewards, period)

    async def _find(self, rewards: Rewards) -> None:
        """What the periods that ended since the last look give."""
        running = self._chain.block_time() // self._period_s
        first = await self._first_period() if self._next is None else self._next
        periods = range(max(first, running - PERIODS_MAX, 0), running)
        if periods:
            found = await rewards.read_many([("rewardOf", [self._chain.account, period]) for period in periods])
            self._waiting |= {
                period: int(wei) for period, wei in zip(periods, found, strict=True) if int(wei) >= REWARD_WEI
            }
        self._next = max(first, running)

    async def _first_period(self) -> int:
        """The one in which the contracts came to be: a young network has no hundred periods to ask about."""
        try:
            return int((await self._chain.rpc.block(self._deployed_block)).timestamp) // self._period_s
        except ChainError as error:
            if error.code != "no_block":  # a node that keeps no old headers
                raise
            return 0

    async def _collect(self, rewards: Rewards, period: int) -> None:
        brings = await rewards.reward_of(
            self._chain.account, period
        )  # somebody else may have: it goes to us all the same
        if brings:
            limit = brings if self._chain.policy.coin_price_wei else None
            await rewards.collect(self._chain.sender, self._chain.account, period, brings_wei=limit)
            self.counters["rewards_collected"] += 1
            log.info("collected the reward of period %d: %s", period, amounts.show(brings))
        del self._waiting[period]
