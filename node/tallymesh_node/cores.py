"""The cores that this node sells, as one pool: units and audits of all jobs run side by side up to its size.

Audits go first: many wait for a verdict, and a unit loses nothing by starting one audit later. Within a kind it is
first come, first served. This module does not know what runs.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

AUDIT, UNIT = 0, 1  # order in which a free core is given away


class Cores:
    """`count` and `memory_mib` may change while the node runs; who runs already goes on. All that run side by side may
    use `memory_mib` together, 0 being no limit; one that may use more than that by itself runs alone."""

    def __init__(self, count: int, memory_mib: int = 0) -> None:
        assert count >= 1
        self._count = count
        self._memory_mib = memory_mib
        self._busy = 0
        self._held_mib = 0
        self._waiting: list[tuple[int, int, int, trio.Event]] = []
        self._order = itertools.count()

    def __repr__(self) -> str:
        return f"<Cores {self._busy}/{self._count} waiting={len(self._waiting)}>"

    @property
    def count(self) -> int:
        return self._count

    @count.setter
    def count(self, value: int) -> None:
        self._count = max(1, value)
        self._give()

    @property
    def memory_mib(self) -> int:
        return self._memory_mib

    @memory_mib.setter
    def memory_mib(self, value: int) -> None:
        self._memory_mib = value
        self._give()

    @property
    def busy(self) -> int:
        return self._busy

    def turn(self) -> int:
        """A place in the queue, to be used once."""
        return next(self._order)

    @asynccontextmanager
    async def one(self, kind: int = UNIT, turn: int | None = None, memory_mib: int = 0) -> AsyncIterator[None]:
        """Hold one core and some memory. Waits for both; whoever is cancelled while waiting gives its place up. `turn`
        is from `turn()`: whoever took it early goes first, however late it comes here. Nobody overtakes one that waits
        for memory: else it might wait for ever."""
        place = (kind, self.turn() if turn is None else turn, memory_mib, trio.Event())
        heapq.heappush(self._waiting, place)
        self._give()
        try:
            await place[3].wait()
            yield
        finally:
            if place[3].is_set():
                self._busy -= 1
                self._held_mib -= memory_mib
            else:
                self._waiting.remove(place)
                heapq.heapify(self._waiting)
            self._give()

    def _give(self) -> None:
        while self._waiting and self._busy < self._count and self._fits(self._waiting[0][2]):
            self._busy += 1
            _, _, memory_mib, event = heapq.heappop(self._waiting)
            self._held_mib += memory_mib
            event.set()

    def _fits(self, memory_mib: int) -> bool:
        return not self._busy or not self._memory_mib or self._held_mib + memory_mib <= self._memory_mib
