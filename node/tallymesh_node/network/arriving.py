"""Requests that are not all there yet: what they hold of this machine's memory, bounded for all peers together.

Whoever has a key may begin some ninety requests of 1 MiB and end none for as long as a request is given, and a key
costs nothing. Above the bound the one that goes is the largest of the peer that holds most, of the address and the
block of addresses that hold most. An honest peer's few kilobytes are never that while a crowd holds the rest. This
module reads nothing by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from tallymesh_node.network.places import Block, block_of

MAX_ARRIVING_BYTES = 64 * 1024 * 1024  # 64 of the largest at once; an honest one is there within a round trip


class Part:
    """What has come of one request."""

    def __init__(self, peer: str, host: str) -> None:
        self.peer = peer
        self.block: Block = block_of(host)
        self.size = 0
        self.scope = trio.CancelScope()


class Arriving:
    def __init__(self, total: int = MAX_ARRIVING_BYTES) -> None:
        self._total = total
        self.size = 0
        self._parts: dict[Part, None] = {}  # the longest on its way first

    @contextmanager
    def one(self, peer: str, host: str) -> Iterator[Part]:
        """What the block waits for is cancelled where it has to make room; then `scope.cancelled_caught` is set."""
        part = Part(peer, host)
        self._parts[part] = None
        try:
            with part.scope:
                yield part
        finally:
            self._forget(part)

    def add(self, part: Part, size: int) -> None:
        if part not in self._parts:
            return
        part.size += size
        self.size += size
        while self.size > self._total:
            last = self._largest()
            self._forget(last)
            last.scope.cancel()

    def _largest(self) -> Part:
        held: Counter[object] = Counter()
        for part in self._parts:
            for whose in (part.block[0], part.block, part.peer):
                held[whose] += part.size
        return max(self._parts, key=lambda each: (held[each.block[0]], held[each.block], held[each.peer], each.size))

    def _forget(self, part: Part) -> None:
        if part in self._parts:
            del self._parts[part]
            self.size -= part.size
