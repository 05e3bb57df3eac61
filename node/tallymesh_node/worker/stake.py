"""What this account has at stake, kept warm: a payer waits for the answer to its lease, not for our questions to the
chain.

The account's own doings are all that changes it, apart from seats, whose locks are added here as long as the kept
figure does not contain them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import trio

from tallymesh_ledger.newcomers import Newcomer
from tallymesh_node.worker.tools import Tools, Work

FRESH_S = 30.0  # a figure may be this old; the loop over the seats renews it every ten seconds


class Stake(msgspec.Struct, frozen=True):
    """As the chain showed it; `counted` are the seats whose locks were taken off `free_wei`."""

    slots: int
    free_wei: int
    counted: frozenset[bytes]
    at: float  # trio time
    newcomer: Newcomer = Newcomer()  # … and whose unpaid value it holds, while there is no slot


class OwnStake:
    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._kept: Stake | None = None

    async def refresh(self, works: Iterable[Work]) -> Stake:
        """Ask the chain. ChainError where it does not answer."""
        chain, mine = self._tools.chain, self._tools.key.address
        works = list(works)
        counted = frozenset(work.record.id for work in works if work.state is not None)
        registry = await chain.registry_at(*await chain.final_block())
        free_wei, slots = await chain.free_stake(mine), registry.slots_of(mine)
        newcomer = Newcomer()
        if not slots:  # a hundredth of a slot is little: a seat that was counted twice would leave no room for another
            new = [work.record.id for work in works if work.state is None]
            counted |= {seat for seat in new if await chain.seat_state(seat) is not None}
            (newcomer,) = await chain.newcomers([mine])
        self._kept = Stake(slots, free_wei, counted, trio.current_time(), newcomer)
        return self._kept

    async def stake(self, works: Iterable[Work]) -> Stake:
        """The kept figure, or a new one where it is old or says that there is nothing: it may have come now."""
        kept = self._kept
        if kept is None or kept.slots == 0 or trio.current_time() - kept.at > FRESH_S:
            return await self.refresh(works)
        return kept
