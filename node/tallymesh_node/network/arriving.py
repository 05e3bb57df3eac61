"""Requests that are not all there yet: what they hold of this machine's memory, bounded for all peers together.

Whoever has a key may begin some ninety requests of 1 MiB and end none for as long as a request is given, and a key
costs nothing. Above the bound the one that goes is the largest of the peer that holds most, of the address and the
block of addresses that hold most. An honest peer's few kilobytes are never that while a crowd holds the rest. This
module reads nothing by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import trio

from tallymesh_node.network.places import Block, block_of

MAX_ARRIVING_BYTES = 64 * 1024 * 1024  # 64 of the largest at once; an honest one is there within a round trip

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Part:
    """What has come of one request."""

    def __init__(self, peer: str, host: str) -> None:
        self.peer = peer
        self.block: Block = block_of(host)
        self.size = 0
        self.scope = trio.CancelScope()
        self.counts = True  # until it is over, or made room


class Arriving:
    def __init__(self, total: int = MAX_ARRIVING_BYTES) -> None:
        self._total = total
        self.size = 0
        # By block, address and peer, the longest on its way first: a crowd may have begun twenty thousand, and which of
        # them goes is asked for each frame that it sends.
        self._parts: dict[str, dict[Block, dict[str, dict[Part, None]]]] = {}
        self._held: Counter[Hashable] = Counter()  # bytes of a block, of an address, of a peer

    @contextmanager
    def one(self, peer: str, host: str) -> Iterator[Part]:
        """What the block waits for is cancelled where it has to make room; then `scope.cancelled_caught` is set."""
        part = Part(peer, host)
        self._parts.setdefault(part.block[0], {}).setdefault(part.block, {}).setdefault(peer, {})[part] = None
        try:
            with part.scope:
                yield part
        finally:
            self._forget(part)

    def add(self, part: Part, size: int) -> None:
        if not part.counts:
            return
        part.size += size
        self._count(part, size)
        while self.size > self._total:
            last = self._largest()
            self._forget(last)
            last.scope.cancel()

    def _largest(self) -> Part:
        peers = self._most(self._most(self._parts))
        return max(self._most(peers), key=lambda each: each.size)

    def _most(self, among: Mapping[K, V]) -> V:
        """What is under the name that holds most."""
        return among[max(among, key=self._held.__getitem__)]

    def _count(self, part: Part, size: int) -> None:
        self.size += size
        for whose in (part.block[0], part.block, part.peer):
            self._held[whose] += size
            if not self._held[whose]:
                del self._held[whose]

    def _forget(self, part: Part) -> None:
        if not part.counts:
            return
        part.counts = False
        self._count(part, -part.size)
        machines = self._parts[part.block[0]]
        peers = machines[part.block]
        del peers[part.peer][part]
        if not peers[part.peer]:
            del peers[part.peer]
        if not peers:
            del machines[part.block]
        if not machines:
            del self._parts[part.block[0]]
