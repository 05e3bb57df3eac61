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
    """`count` may change while the node runs; who runs already goes on."""

    def __init__(self, count: int) -> None:
        assert count >= 1
        self._count = count
        self._busy = 0
        self._waiting: list[tuple[int, int, trio.Event]] = []
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
    def busy(self) -> int:
        return self._busy

    def turn(self) -> int:
        """A place in the queue, to be used once."""
        return next(self._order)

    @asynccontextmanager
    async def one(self, kind: int = UNIT, turn: int | None = None) -> AsyncIterator[None]:
        """Hold one core. Waits for it; whoever is cancelled while waiting gives its place up. `turn` is from `turn()`:
        whoever took it early goes first, however late it comes here."""
        place = (kind, self.turn() if turn is None else turn, trio.Event())
        heapq.heappush(self._waiting, place)
        self._give()
        try:
            await place[2].wait()
            yield
        finally:
            if place[2].is_set():
                self._busy -= 1
            else:
                self._waiting.remove(place)
                heapq.heapify(self._waiting)
            self._give()

    def _give(self) -> None:
        while self._waiting and self._busy < self._count:
            self._busy += 1
            heapq.heappop(self._waiting)[2].set()
