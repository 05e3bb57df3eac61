"""The lane of the offer book for accounts without stake: who may be in it, and how often anybody may knock.

An account without a slot costs nothing to make, so its offers are bounded in all, by the address block that they name,
and by the neighbour that brought them; what is beyond that is turned away before a signature is checked. Addresses are
what an offer says (who lies cannot be dialled, and gets no work), neighbours are known for certain: one bound keeps an
honest crowd behind one router from filling the lane, the other a liar with many addresses. This module knows no chain,
and whether an account has stake it is told.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import Counter
from collections.abc import Callable

from tallymesh_node.network.gossip import Buckets

MAX_NEWCOMERS = 512  # 0.5 MB, and at one offer in 20 s each 26 of them a second: a fortieth of a core
MAX_OF_BLOCK = 16  # of one /24 or /48: machines of one house, or a small local network
MAX_OF_NEIGHBOUR = 128  # brought by one neighbour: a node has six or more in a network of that size
CHECKS_BURST = 2.0 * MAX_OF_NEIGHBOUR  # offers of one neighbour that are looked into at once …
CHECKS_PER_S = 50.0  # … and then: all its newcomers may say something new every 3 s, the development network's period
V4_PREFIX, V6_PREFIX = 24, 48  # what one customer of a provider is given at most


class Place:
    """Where one newcomer in the lane counts."""

    __slots__ = ("block", "neighbour")

    def __init__(self, block: str, neighbour: str) -> None:
        self.block = block
        self.neighbour = neighbour


class Lane:
    """Contract: never more than the bounds above; nobody is moved out for somebody of the same or a larger block."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._places: dict[bytes, Place] = {}
        self._blocks: Counter[str] = Counter()
        self._neighbours: Counter[str] = Counter()
        self._checks = Buckets(CHECKS_BURST, CHECKS_PER_S)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, account: bytes) -> bool:
        return account in self._places

    def may_knock(self, account: bytes, addresses: str, neighbour: str) -> bool:
        """Whether an offer is worth its signatures: asked with what it claims, before anything of it is checked."""
        if not self._checks.take(neighbour.encode(), self._now()):
            return False
        return account in self._places or self._has_room(block_of(addresses), neighbour)

    def enter(self, account: bytes, addresses: str, neighbour: str) -> tuple[bool, bytes | None]:
        """(whether a checked offer is in, the account that had to make room for it)."""
        block = block_of(addresses)
        place = self._places.get(account)
        if place is not None:
            if place.block == block:
                return True, None
            self.leave(account)  # it moved: its new block may be full
        if not self._has_room(block, neighbour):
            return False, None
        gone = self._largest() if len(self._places) >= MAX_NEWCOMERS else None
        if gone is not None:
            self.leave(gone)
        self._places[account] = Place(block, neighbour)
        self._blocks[block] += 1
        self._neighbours[neighbour] += 1
        return True, gone

    def leave(self, account: bytes) -> None:
        """It expired, or has stake now."""
        place = self._places.pop(account, None)
        if place is None:
            return
        for counter, key in ((self._blocks, place.block), (self._neighbours, place.neighbour)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def _has_room(self, block: str, neighbour: str) -> bool:
        if self._blocks[block] >= MAX_OF_BLOCK or self._neighbours[neighbour] >= MAX_OF_NEIGHBOUR:
            return False
        if len(self._places) < MAX_NEWCOMERS:
            return True
        # A full lane is shared out by blocks: somebody of the largest gives way to a block that has fewer.
        return self._blocks[block] + 1 < self._blocks.most_common(1)[0][1]

    def _largest(self) -> bytes:
        """The newest account of the block that holds most."""
        block = self._blocks.most_common(1)[0][0]
        return next(account for account in reversed(self._places) if self._places[account].block == block)


def block_of(addresses: str) -> str:
    """The /24 or /48 of the first address of an offer; "" for all that name none (a host name, a relay)."""
    parts = addresses.split(",")[0].split("/")
    for kind, text in itertools.pairwise(parts):
        if kind in ("ip4", "ip6"):
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                return ""
            mapped = getattr(address, "ipv4_mapped", None) or address
            prefix = V4_PREFIX if mapped.version == 4 else V6_PREFIX
            return str(ipaddress.ip_network((mapped, prefix), strict=False))
    return ""
