"""Gossip on one topic: small signed messages that reach every peer, judged by a hook before they are relayed.

libp2p signs each message with its author's peer key and checks that; whether the content is good (an offer with a valid
binding that has not expired) is the validator's business. This module knows neither offers nor freshness.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum

import trio
from libp2p.abc import IHost
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service import background_trio_service

from tallymesh.errors import CallerError
from tallymesh_node import beats
from tallymesh_node.network.connections import Connections
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.mends import MendedPubsub, gossipsub

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024  # larger ones are lost in silence somewhere on the way
QUEUE = 1024  # accepted messages that nobody took yet: twenty seconds of offers of 1,000 peers
AUTHOR_BURST = 20  # messages of one author at once: a node that restarts a few times in a row
AUTHOR_PER_S = 2.0  # then so many a second; an offer is due every 20 s
FORWARDER_BURST = 1000  # copies from one neighbour at once: what it has gathered when we connect
FORWARDER_PER_S = 200.0  # then so many a second: at 1 ms each a fifth of a core
MAX_BUCKETS = 4096  # authors remembered; the one not heard of for longest is forgotten
STRIKES = 10.0  # bad messages of one neighbour, an honest one forwards none …
STRIKES_PER_S = 0.1  # … forgotten at this rate
BAN_S = 600.0
REPAIR_S = 2.0  # how often connected peers without a gossip stream are looked for
REPAIR_TRY_S = 10.0


class Verdict(Enum):
    """What a validator says. A rejected message counts against the neighbour that forwarded it, who should have
    rejected it too; ignore what another peer may honestly see differently (an old offer, an unknown account)."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    REJECT = "reject"


# (peer id of the author, message, peer id of the neighbour that brought it), at once; what it raises means IGNORE
Validator = Callable[[str, bytes, str], Verdict]


class Buckets:
    """Token buckets by key, a bounded number of them: at most `burst` at once and `per_s` in the long run."""

    def __init__(self, burst: float, per_s: float, limit: int = MAX_BUCKETS) -> None:
        self._burst = burst
        self._per_s = per_s
        self._limit = limit
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # key -> (tokens, at)

    def take(self, key: bytes, now: float) -> bool:
        tokens, at = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_s)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._limit:
            self._buckets.popitem(last=False)
        return tokens >= 1


class Gossip:
    """One topic. Iterate it to take the accepted messages of others: ``async for author, data in gossip``."""

    def __init__(
        self, host: IHost, topic: str, connections: Connections, counters: Counters, validator: Validator | None = None
    ) -> None:
        self.topic = topic
        self._host = host
        self._me: ID = host.get_id()
        self._connections = connections
        self._counters = counters
        self._validator = validator
        self._authors = Buckets(AUTHOR_BURST, AUTHOR_PER_S)
        self._forwarders = Buckets(FORWARDER_BURST, FORWARDER_PER_S)
        self._strikes = Buckets(STRIKES, STRIKES_PER_S)
        self._send, self._receive = trio.open_memory_channel[tuple[str, bytes]](QUEUE)
        self._nursery: trio.Nursery | None = None
        self._router = gossipsub()
        self._pubsub = MendedPubsub(
            host,
            self._router,
            admit=self._admit,
            deliver=self._deliver,
            misbehaved=self._misbehaved,
            strict_signing=True,
            allowed_topics={topic},
        )
        self._pubsub.counter = time.time_ns()  # counts seconds else: a restart within one would reuse message ids
        self._pubsub.set_topic_validator(topic, self._validate, is_async_validator=False)

    def set_validator(self, validator: Validator) -> None:
        """Judge messages by `validator` from now on. Until one is set, nothing is accepted."""
        self._validator = validator

    @property
    def peers(self) -> int:
        """Neighbours that listen to the topic."""
        return len(self._pubsub.peer_topics.get(self.topic, ()))

    async def publish(self, data: bytes) -> None:
        """Send `data` to everybody. CallerError where our own validator does not accept it: nobody would relay it."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise CallerError("too_large", f"A gossip message of {len(data)} bytes is over {MAX_MESSAGE_BYTES}.")
        me = self._me.to_base58()
        if self._judge(me, data, me) is not Verdict.ACCEPT:
            raise CallerError("bad_message", "The message would not pass this node's own validator.")
        await self._pubsub.publish(self.topic, data)
        self._counters.gossip_published += 1

    async def wait_for_peer(self) -> None:
        """Until some neighbour listens to the topic: a message published before that reaches nobody."""
        while not self.peers:  # noqa: ASYNC110 - libp2p has an event for one known peer, none for the first of any
            await trio.sleep(0.02)

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        return self._receive.__aiter__()

    async def receive(self) -> tuple[str, bytes]:
        """The next accepted message of another peer: (peer id of its author, data)."""
        return await self._receive.receive()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        async with (
            background_trio_service(self._pubsub),
            background_trio_service(self._router),
            trio.open_nursery() as nursery,
        ):
            await self._pubsub.wait_until_ready()
            await self._pubsub.subscribe(self.topic)
            self._nursery = nursery
            nursery.start_soon(self._repair)
            try:
                yield
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()

    # -- hooks of MendedPubsub, in the order in which a message meets them ---------------------------------------------

    def _admit(self, forwarder: ID, message: rpc_pb2.Message) -> bool:
        """Before the signature is checked: cheap limits only."""
        if forwarder == self._me:
            return True
        if not self._forwarders.take(forwarder.to_bytes(), trio.current_time()):
            self._counters.gossip_ignored += 1
            return False
        if len(message.data) > MAX_MESSAGE_BYTES or list(message.topicIDs) != [self.topic]:
            self._counters.gossip_rejected += 1
            self._misbehaved(forwarder)
            return False
        return True

    def _validate(self, forwarder: ID, message: rpc_pb2.Message) -> bool:
        """Once per message, its signature being good; a validator that raises would end libp2p's whole service."""
        author = ID(message.from_id)
        if author == self._me:
            return bool(forwarder == self._me)  # published just now and judged there, or our own coming back
        if not self._authors.take(message.from_id, trio.current_time()):
            self._counters.gossip_ignored += 1
            return False
        verdict = self._judge(author.to_base58(), message.data, forwarder.to_base58())
        if verdict is Verdict.REJECT:
            self._counters.gossip_rejected += 1
            self._misbehaved(forwarder)
        elif verdict is Verdict.IGNORE:
            self._counters.gossip_ignored += 1
        return verdict is Verdict.ACCEPT

    def _judge(self, author: str, data: bytes, neighbour: str) -> Verdict:
        if self._validator is None:
            return Verdict.IGNORE
        try:
            return self._validator(author, data, neighbour)
        except Exception:
            log.exception("the gossip validator failed on a message of %s", author)
            return Verdict.IGNORE

    def _deliver(self, message: rpc_pb2.Message) -> None:
        author = ID(message.from_id)
        if author == self._me:
            return
        self._counters.gossip_received += 1
        try:
            self._send.send_nowait((author.to_base58(), message.data))
        except trio.WouldBlock:
            self._counters.gossip_dropped += 1

    def _misbehaved(self, forwarder: ID) -> None:
        if self._strikes.take(forwarder.to_bytes(), trio.current_time()) or self._nursery is None:
            return
        log.warning("%s forwards what no honest peer does; banned for %d s", forwarder, BAN_S)
        self._nursery.start_soon(self._connections.ban, forwarder, BAN_S)

    async def _repair(self) -> None:
        """libp2p gives up a peer whose gossip stream failed to open once, for ever: look again, and again."""
        while True:
            await beats.pause(REPAIR_S)
            lost = [peer for peer in self._host.get_network().connections if peer not in self._pubsub.peers]
            if lost:
                async with trio.open_nursery() as nursery:
                    for peer_id in lost:
                        nursery.start_soon(self._open_stream, peer_id)

    async def _open_stream(self, peer_id: ID) -> None:
        with trio.move_on_after(REPAIR_TRY_S):
            try:
                await self._pubsub.ensure_peer_stream(peer_id, REPAIR_TRY_S)
            except Exception as error:  # libp2p's own, of any kind; the next round tries again
                log.debug("no gossip stream to %s: %r", peer_id, error)


def topic_name(network_topic: str) -> str:
    return f"{network_topic}/offers"
