"""Who makes room when too many have connected: the inbound connections of a host, by what is known of their peers.

Who knocks is known after a handshake only, and a key costs nothing. So nobody is turned away: whoever comes is let in,
and above `MAX_PLACES` another leaves, out of the kind that is furthest over its share. Newcomers are a kind of their
own, so that no flood of them takes the share of peers that were of use, nor both that of those with stake, and nobody
the place of a peer with which this node works (as in a cache that no scan empties: 2Q, Johnson and Shasha 1994).

Among strangers the most crowded block of addresses gives way, in it the most crowded address, and there who was of no
use for longest. A flood from one address, or one block, so pushes out itself. Connections that this node made do not
count here. This module knows no libp2p, opens and closes nothing, and is told the time.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

MAX_PLACES = 300  # 0.15 MB each
MAX_OF_PEER = 3  # two where both dialled at once, one in exchange for a dying one
NOT_CROWDED = 16  # a block or an address with so few is as good as one with a single: a house, an office behind a NAT
V4_PREFIX, V6_PREFIX = 24, 48  # what one customer of a provider is given at most

Block = tuple[str, str]  # a /24 or /48, and the address in it
K = TypeVar("K", bound=Hashable)


class Standing(Enum):
    """What a peer is to this node, besides what its connection shows."""

    STRANGER = "stranger"
    STAKED = "staked"  # the registry has a slot of its account
    PARTNER = "partner"  # at work with us now: a seat, a call


class Kind(Enum):
    """The kinds that share the places. What one does not use of its share is lent to the others."""

    NEW = "new"  # a stranger; nothing was asked and answered yet
    USEFUL = "useful"  # a stranger; something was
    STAKED = "staked"
    PARTNER = "partner"  # gives way to nobody: each holds cores, or is paid, so they are few


SHARES = {Kind.NEW: 0.25, Kind.USEFUL: 0.25, Kind.STAKED: 0.5}  # of all places, for certain


@dataclass(frozen=True)
class _Place:
    peer: str
    block: Block
    since: float


class Places(Generic[K]):
    """Contract: never more than `total` are in, except partners; whoever enters is in until others came after it."""

    def __init__(self, standing: Callable[[str], Standing], total: int = MAX_PLACES) -> None:
        self._standing = standing
        self._total = total
        self._places: dict[K, _Place] = {}
        self._peers: Counter[str] = Counter()
        self._used: dict[str, float] = {}  # peer -> when something was asked and answered; of those that are in

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._places))

    def enter(self, key: K, peer: str, host: str, now: float) -> list[K]:
        """Takes a connection in; those that must be closed for it."""
        self._places[key] = _Place(peer, block_of(host), now)
        self._peers[peer] += 1
        own = [each for each, place in self._places.items() if place.peer == peer]
        gone = own[: max(0, len(own) - MAX_OF_PEER)]
        for each in gone:
            self.leave(each)
        while len(self._places) > self._total:
            leaving = self._next()
            if leaving is None:
                break
            self.leave(leaving)
            gone.append(leaving)
        return gone

    def leave(self, key: K) -> None:
        """Idempotent."""
        place = self._places.pop(key, None)
        if place is None:
            return
        self._peers[place.peer] -= 1
        if not self._peers[place.peer]:
            del self._peers[place.peer]
            self._used.pop(place.peer, None)

    def use(self, peer: str, now: float) -> None:
        """Something was asked and answered, by either side."""
        if peer in self._peers:
            self._used[peer] = now

    def _next(self) -> K | None:
        """Who makes room, out of the kind that is furthest over its share."""
        kinds: dict[Kind, dict[K, _Place]] = {}
        for key, place in self._places.items():
            kinds.setdefault(self._kind(place.peer), {})[key] = place
        kinds.pop(Kind.PARTNER, None)
        if not kinds:
            return None
        kind = max(kinds, key=lambda each: len(kinds[each]) - SHARES[each] * self._total)
        held = kinds[kind]
        if kind is not Kind.STAKED:  # each of those has paid for its place, whoever else is at its address
            strangers = [*kinds.get(Kind.NEW, {}).values(), *kinds.get(Kind.USEFUL, {}).values()]
            crowded = most_crowded([place.block for place in strangers], among={p.block for p in held.values()})
            held = {key: place for key, place in held.items() if place.block in crowded}
        return min(held, key=lambda key: self._used.get(held[key].peer, held[key].since))

    def _kind(self, peer: str) -> Kind:
        standing = self._standing(peer)
        if standing is Standing.STRANGER:
            return Kind.USEFUL if peer in self._used else Kind.NEW
        return Kind.PARTNER if standing is Standing.PARTNER else Kind.STAKED


def most_crowded(all_blocks: Collection[Block], *, among: Collection[Block], few: int = NOT_CROWDED) -> set[Block]:
    """Those of `among` in the block, and in it at the address, that most of `all_blocks` are in; up to `few` count as
    one another's equals."""
    blocks = Counter(block for block, _ in all_blocks)
    hosts = Counter(all_blocks)

    def crowd(each: Block) -> tuple[int, int]:
        return max(blocks[each[0]], few), max(hosts[each], few)

    most = max(crowd(each) for each in among)
    return {each for each in among if crowd(each) == most}


def block_of(host: str) -> Block:
    """Of an address as a socket says it; everybody of whom it says none is in one block."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "", host
    plain = getattr(address, "ipv4_mapped", None) or address
    prefix = V4_PREFIX if plain.version == 4 else V6_PREFIX
    block = str(ipaddress.ip_network((plain, prefix), strict=False))
    # One machine has a /64, and as many addresses in it as it likes.
    machine = str(plain) if plain.version == 4 else str(ipaddress.ip_network((plain, 64), strict=False))
    return block, machine
