"""A few slots that many strangers ask for: who holds one keeps it for a while at most, and the next is not who came
first but who comes from where the fewest seconds were spent of late.

A key costs nothing and an address little, so what is spent is counted by blocks of addresses, in them by address (as
fair queueing counts bytes by conversation: Demers, Keshav and Shenker 1989). A crowd from one block has a part of the
slots, and waits behind whoever else comes; who shares the block with it shares its part. This module does not know what
the slots are for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tallymesh_node.network.places import Block, block_of

HALF_LIFE_S = 60.0  # what was spent counts half after this
MAX_BLOCKS = 1024  # remembered, and as many addresses; those that spent least are forgotten


class Turn:
    """Of one that waits, or has a slot."""

    def __init__(self, host: str) -> None:
        self.block: Block = block_of(host)
        self.woken = trio.Event()
        self.since: float | None = None  # when it got its slot
        self.scope = trio.CancelScope()
        self.hurried = False  # others wait: its time is over sooner

    @property
    def cut_short(self) -> bool:
        """Whether its time was over before it was done, because others waited."""
        return self.hurried and self.scope.cancelled_caught


class FairSlots:
    """`total` slots, `each` of one block; `waiting` may stand in line, for `wait_s`. Who has a slot keeps it for
    `hold_s`, and for `hurried_s` where others wait for it."""

    def __init__(
        self,
        total: int,
        each: int,
        *,
        waiting: int,
        wait_s: float,
        hold_s: float,
        hurried_s: float,
    ) -> None:
        self._total = total
        self._each = each
        self._waiting_max = waiting
        self._wait_s = wait_s
        self._hold_s = hold_s
        self._hurried_s = hurried_s
        self._line: list[Turn] = []  # the longest waiting first
        self._holders: set[Turn] = set()
        self._blocks = _Spent()
        self._machines = _Spent()

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[Turn]:
        """What the block waits for is cancelled when its time is over. trio.TooSlowError where there was no slot."""
        mine = Turn(host)
        self._line.append(mine)
        try:
            self._go_on()
            if mine.since is None:
                with trio.move_on_after(self._wait_s):
                    await mine.woken.wait()
            if mine.since is None:
                raise trio.TooSlowError
            with mine.scope:
                yield mine
        finally:
            self._leave(mine)

    def _go_on(self) -> None:
        """Slots that are free to those that come next; who has one is hurried where others wait for it."""
        while first := self._next():
            self._line.remove(first)
            first.since = trio.current_time()
            first.scope.deadline = first.since + self._hold_s
            self._holders.add(first)
            self._spend(first, self._hold_s)  # what it does not use is given back
            first.woken.set()
        if len(self._line) > self._waiting_max:
            last = max(reversed(self._line), key=self._spent)
            self._line.remove(last)
            last.woken.set()
        full = len(self._holders) >= self._total
        blocks = {each.block[0] for each in self._line}
        for holder in self._holders:
            if holder.block[0] in blocks or (full and blocks):
                assert holder.since is not None
                holder.scope.deadline = holder.since + self._hurried_s
                holder.hurried = True

    def _next(self) -> Turn | None:
        if len(self._holders) >= self._total:
            return None
        busy = Counter(holder.block[0] for holder in self._holders)
        return min((each for each in self._line if busy[each.block[0]] < self._each), key=self._spent, default=None)

    def _leave(self, mine: Turn) -> None:
        if mine in self._line:
            self._line.remove(mine)
        if mine in self._holders:
            assert mine.since is not None
            self._holders.remove(mine)
            self._spend(mine, trio.current_time() - mine.since - self._hold_s)
            self._go_on()

    def _spend(self, one: Turn, seconds: float) -> None:
        self._blocks.add(one.block[0], seconds)
        self._machines.add(one.block[1], seconds)

    def _spent(self, one: Turn) -> tuple[float, float]:
        return self._blocks[one.block[0]], self._machines[one.block[1]]


class _Spent:
    """Seconds by name, of which half is forgotten every HALF_LIFE_S."""

    def __init__(self) -> None:
        self._seconds: dict[str, tuple[float, float]] = {}  # and as of when

    def __getitem__(self, name: str) -> float:
        seconds, then = self._seconds.get(name, (0.0, 0.0))
        left: float = seconds * 0.5 ** ((trio.current_time() - then) / HALF_LIFE_S)
        return left

    def add(self, name: str, seconds: float) -> None:
        self._seconds[name] = max(0.0, self[name] + seconds), trio.current_time()
        while len(self._seconds) > MAX_BLOCKS:
            del self._seconds[min(self._seconds, key=self.__getitem__)]
