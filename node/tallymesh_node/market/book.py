"""What this node knows of the market: one offer an account, and what the chain says of each account.

Offers come by gossip and expire by themselves. The chain's part is read again every few seconds, so that a missed event
costs a delay and never a wrong answer. This module matches nothing; tallymesh_scheduler does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from tallymesh.errors import ChainError, RemoteError
from tallymesh.exchange import Source
from tallymesh.messages import Offer
from tallymesh_ledger.registry import RegistryAt
from tallymesh_node import beats
from tallymesh_node.complaints import level
from tallymesh_node.interfaces import Chain
from tallymesh_node.market.envelope import Opener
from tallymesh_node.market.lane import Lane
from tallymesh_node.network import Verdict
from tallymesh_scheduler.matching import Candidate

log = logging.getLogger(__name__)

MAX_OFFERS = 10_000  # of accounts with stake, 1 KiB each; beyond it the one that expires first makes room
REFRESH_S = 2.0  # how old the chain's part may be on a node that matches jobs
REFRESH_IDLE_S = 30.0  # … and on one that does not: there it only says whose offers to keep in a flood
UNREACHABLE_S = 30.0  # a peer that could not be dialled is tried again after this
MAX_STAKES = 500  # accounts whose free stake is asked for in one refresh


class Learner(Protocol):
    """The part of the network that wants to know which peers exist."""

    def learn(self, source: Source) -> None: ...


class Listed:
    """An offer with its peer, and the neighbour that brought it."""

    __slots__ = ("neighbour", "offer", "peer_id")

    def __init__(self, offer: Offer, peer_id: str, neighbour: str) -> None:
        self.offer = offer
        self.peer_id = peer_id
        self.neighbour = neighbour

    @property
    def source(self) -> Source:
        return Source(self.peer_id, tuple(address for address in self.offer.addresses.split(",") if address))


class OfferBook:
    """Contract: holds at most one offer an account (the highest `seq`), never an expired one, at most MAX_OFFERS of
    accounts with stake, and of the others what the lane takes. `own` is this node's account, which is always in."""

    def __init__(
        self,
        opener: Opener,
        chain: Chain,
        now: Callable[[], float],
        learner: Learner | None = None,
        *,
        own: bytes = b"",
    ) -> None:
        self._opener = opener
        self._chain = chain
        self._now = now
        self._learner = learner
        self._offers: dict[bytes, Listed] = {}
        self._accounts: dict[str, bytes] = {}  # peer id -> account
        self._free: dict[bytes, int] = {}
        self._unreachable: dict[bytes, tuple[str, float]] = {}  # account -> what the last dial said, until when
        self._changed = trio.Event()
        self._own = own
        self.heard_own: Callable[[Offer, str], None] = lambda offer, peer_id: None
        self._staked: frozenset[bytes] = frozenset()  # accounts with a live slot
        self.lane = Lane(now)
        self.registry: RegistryAt | None = None
        self.seen = 0

    def learn_with(self, learner: Learner) -> None:
        """Tell `learner` of every peer from now on; the network opens after the book, whose validator it takes."""
        self._learner = learner

    def validate(self, author: str, data: bytes, neighbour: str) -> Verdict:
        """Gossip's validator: bad ones are not relayed and count against the neighbour that relayed them. What the lane
        has no room for is not even checked."""
        try:
            unchecked = self._opener.read(author, data)
            claimed = unchecked.offer
            known = self._offers.get(claimed.account)
            if known is not None and known.offer.seq >= claimed.seq:
                return Verdict.IGNORE
            newcomer = self._is_newcomer(claimed.account)
            if newcomer and not self.lane.may_knock(claimed.account, claimed.addresses, neighbour):
                return Verdict.IGNORE
            offer = self._opener.check(author, unchecked, newcomer=newcomer)
        except RemoteError as error:
            return Verdict.IGNORE if error.code == "stale" else Verdict.REJECT
        return Verdict.ACCEPT if self.add(offer, author, neighbour) else Verdict.IGNORE

    def add(self, offer: Offer, peer_id: str, neighbour: str = "") -> bool:
        """Take in a checked offer. False where it is older than what is known, or there is no room for it."""
        if offer.account == self._own:
            self.heard_own(offer, peer_id)
        known = self._offers.get(offer.account)
        if known is not None and known.offer.seq >= offer.seq:
            return False
        if self._is_newcomer(offer.account):
            if not self._enter(Listed(offer, peer_id, neighbour)):
                return False
        elif known is None and len(self._offers) - len(self.lane) >= MAX_OFFERS and not self._make_room(offer):
            return False
        if known is not None and known.peer_id != peer_id:
            self._accounts.pop(known.peer_id, None)
        listed = Listed(offer, peer_id, neighbour)
        self._offers[offer.account] = listed
        self._accounts[peer_id] = offer.account
        self.seen += 1
        if self._learner is not None:
            self._learner.learn(listed.source)
        if known is None:
            self._wake()
        return True

    def expire(self) -> None:
        now = self._now()
        for account in [a for a, listed in self._offers.items() if listed.offer.expires <= now]:
            self._drop(account)
            self._unreachable.pop(account, None)

    def offers(self) -> list[Listed]:
        self.expire()
        return list(self._offers.values())

    def source_of(self, account: bytes) -> Source | None:
        """Where the account's peer is reached, None where no offer of it is known."""
        listed = self._offers.get(account)
        return listed.source if listed else None

    def staked_sources(self, *, besides: bytes) -> list[Source]:
        """Peers of accounts with stake that are not `besides`."""
        return [each.source for each in self.offers() if each.offer.account in self._staked - {besides}]

    def seq_of(self, account: bytes) -> int:
        """That of the newest offer of the account that came: only higher ones are taken. 0 where none did."""
        listed = self._offers.get(account)
        return listed.offer.seq if listed else 0

    def account_of(self, peer_id: str) -> bytes | None:
        return self._accounts.get(peer_id)

    def is_staked(self, peer_id: str) -> bool:
        """Whether the peer is bound to an account with a live slot, by an offer of it that has not expired."""
        return self._accounts.get(peer_id) in self._staked

    def note_unreachable(self, account: bytes, sentence: str) -> None:
        """What the last dial said; "" when it answered."""
        if sentence:
            self._unreachable[account] = (sentence, self._now() + UNREACHABLE_S)
        else:
            self._unreachable.pop(account, None)

    def candidates(self, now: int) -> list[Candidate]:
        """Every live offer with what the chain says of its account."""
        registry = self.registry
        if registry is None:
            return []
        return [self._candidate(listed, registry) for listed in self.offers()]

    async def wait_changed(self) -> None:
        """Until an account appears or the chain's part was read again."""
        await self._changed.wait()

    async def run(self, refresh_s: float = REFRESH_S) -> None:
        """Keep the chain's part fresh."""
        while True:
            try:
                await self.refresh()
            except (ChainError, RemoteError) as error:
                log.log(level(error), "the registry cannot be read: %s", error)
            await beats.pause(refresh_s)

    async def refresh(self) -> None:
        number, block_hash = await self._chain.final_block()
        registry = await self._chain.registry_at(number, block_hash)
        staked = frozenset(holder for holder in registry.slots if holder is not None)
        asked = [account for account in self._offers if account in staked][:MAX_STAKES]
        free = await self._chain.free_stakes(asked)
        # All at once: an account whose slot and class count is never taken for one without free stake meanwhile.
        before, self.registry, self._staked = self.registry, registry, staked
        self._free.update(zip(asked, free, strict=True))
        self._sort()
        if before is None or (before.slots, before.classes) != (self.registry.slots, self.registry.classes):
            self._wake()

    def _candidate(self, listed: Listed, registry: RegistryAt) -> Candidate:
        offer = listed.offer
        chain_class = registry.classes.get(offer.account, b"")
        sentence, until = self._unreachable.get(offer.account, ("", 0.0))
        accounts, share = registry.class_weight(offer.numeric_class, besides=offer.account)
        return Candidate(
            offer=offer,
            peer_id=listed.peer_id,
            slots=registry.slots_of(offer.account),
            free_stake=self._free.get(offer.account, 0),
            owner=registry.owner_of(offer.account),
            chain_class=chain_class,
            class_accounts=accounts,
            class_share_bp=share,
            free_cores=offer.cores,
            unreachable=sentence if until > self._now() else "",
        )

    def _make_room(self, offer: Offer) -> bool:
        """Among accounts with stake (before the chain was read: among all) the one that expires first gives way."""
        others = [
            (listed.offer.expires, account) for account, listed in self._offers.items() if account not in self.lane
        ]
        expires, account = min(others)
        if expires >= offer.expires:
            return False
        self._drop(account)
        return True

    def _is_newcomer(self, account: bytes) -> bool:
        """Before the chain was read nobody is: the first look sorts them."""
        return self.registry is not None and account not in self._staked and account != self._own

    def _enter(self, listed: Listed) -> bool:
        entered, gone = self.lane.enter(
            listed.offer.account, listed.offer.addresses, listed.neighbour or listed.peer_id
        )
        if gone is not None:
            self._drop(gone)
        if not entered:
            self._drop(listed.offer.account)
        return entered

    def _sort(self) -> None:
        """Stake came and went: whom the lane holds, and for whom it has no room."""
        for account, listed in list(self._offers.items()):
            if not self._is_newcomer(account):
                self.lane.leave(account)
            elif account not in self.lane and account in self._offers:
                self._enter(listed)

    def _drop(self, account: bytes) -> None:
        self.lane.leave(account)
        listed = self._offers.pop(account, None)
        if listed is not None:
            self._accounts.pop(listed.peer_id, None)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
