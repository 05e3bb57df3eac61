"""Peers in memory: `PeerNetwork` and gossip without sockets, under a virtual clock if the test has one.

What a request and a refusal are comes from the real `Dispatcher`; what a network does to them (delay, loss, a peer that
is down) is the test's to say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from tallymesh.errors import CallerError, RemoteError
from tallymesh.exchange import Source
from tallymesh_node.interfaces import Handler
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.gossip import QUEUE, Validator, Verdict
from tallymesh_node.network.keys import generate
from tallymesh_node.network.requests import Dispatcher, decode_answer, encode_request

Tap = Callable[[str, str, bytes], None]  # (from, to, plaintext frame): sees every frame that one peer sends another


class World:
    """The peers that can reach each other. A peer in `down` neither answers nor asks."""

    def __init__(self, *, delay_s: float = 0.0) -> None:
        self.networks: dict[str, FakeNetwork] = {}
        self.down: set[str] = set()
        self.walled: set[str] = set()  # they dial others and cannot be dialled
        self.unconnected: set[str] = set()  # no connection to them is open; the next request makes one
        self.delay_s = delay_s
        self.tap: Tap = lambda sender, receiver, frame: None
        self.lose: Callable[[str, str, str], bool] = lambda sender, receiver, name: False  # drop this request?

    def join(self, peer_id: str | None = None, *, validator: Validator | None = None) -> FakeNetwork:
        network = FakeNetwork(self, peer_id or generate().peer_id, validator)
        self.networks[network.peer_id] = network
        return network


class FakeNetwork:
    """The `PeerNetwork` of one peer, and its gossip."""

    def __init__(self, world: World, peer_id: str, validator: Validator | None) -> None:
        self._world = world
        self._peer_id = peer_id
        self.counters = Counters()
        self.gossip = FakeGossip(world, self, validator)
        self._dispatcher = Dispatcher(self.counters)
        self.serve: Callable[[str, Handler], None] = self._dispatcher.serve

    @property
    def peer_id(self) -> str:
        return self._peer_id

    @property
    def addresses(self) -> Sequence[str]:
        return (f"/ip4/192.0.2.1/tcp/{4001 + list(self._world.networks).index(self._peer_id)}",)

    @property
    def source(self) -> Source:
        return Source(peer_id=self._peer_id, addresses=tuple(self.addresses))

    @property
    def peers(self) -> Sequence[str]:
        away = self._world.down | self._world.unconnected
        return [peer for peer in self._world.networks if peer != self._peer_id and peer not in away]

    async def request(self, peer: Source, name: str, body: bytes, *, timeout_s: float) -> bytes:
        frame = encode_request(name, body)
        self.counters.requests_sent += 1
        with trio.move_on_after(timeout_s):
            answer = await self._exchange(peer.peer_id, name, frame)
            return decode_answer(answer, peer=peer.peer_id)
        raise RemoteError("timeout", f"No answer to {name!r} within {timeout_s:g} s.", peer=peer.peer_id)

    async def reach(self, peer: Source) -> None:
        await trio.lowlevel.checkpoint()
        if peer.peer_id in self._world.walled | self._world.down:
            raise RemoteError("unreachable", "None of the addresses that it announces answers.", peer=peer.peer_id)

    async def _exchange(self, peer: str, name: str, frame: bytes) -> bytes:
        world = self._world
        other = world.networks.get(peer)
        if other is None or other is self or {peer, self._peer_id} & world.down:
            await trio.lowlevel.checkpoint()
            raise RemoteError("unreachable", "The peer cannot be reached at any of its addresses.", peer=peer)
        world.unconnected -= {peer, self._peer_id}
        await trio.sleep(world.delay_s)
        if world.lose(self._peer_id, peer, name):
            await trio.sleep_forever()
        world.tap(self._peer_id, peer, frame)
        answer: bytes | None = None

        async with trio.open_nursery() as nursery:  # a handler runs in a task of its own

            async def handle() -> None:
                nonlocal answer
                answer = await other._dispatcher.answer(self._peer_id, frame)

            nursery.start_soon(handle)
        assert answer is not None
        if {peer, self._peer_id} & world.down:
            raise RemoteError("unreachable", "The stream broke.", peer=peer)
        world.tap(peer, self._peer_id, answer)
        await trio.sleep(world.delay_s)
        return answer


class FakeGossip:
    """`Gossip` of one peer: what it publishes reaches everybody who accepts it."""

    def __init__(self, world: World, network: FakeNetwork, validator: Validator | None) -> None:
        self._world = world
        self._network = network
        self._validator = validator
        self._send, self._receive = trio.open_memory_channel[tuple[str, bytes]](QUEUE)

    def set_validator(self, validator: Validator) -> None:
        self._validator = validator

    @property
    def peers(self) -> int:
        return len(self._network.peers)

    async def publish(self, data: bytes) -> None:
        author = self._network.peer_id
        if self._judge(author, data) is not Verdict.ACCEPT:
            raise CallerError("bad_message", "The message would not pass this node's own validator.")
        self._network.counters.gossip_published += 1
        await trio.sleep(self._world.delay_s)
        if author in self._world.down:
            return
        for peer in self._network.peers:
            self._world.networks[peer].gossip._take(author, data)

    def _judge(self, author: str, data: bytes) -> Verdict:
        return Verdict.IGNORE if self._validator is None else self._validator(author, data, author)

    def _take(self, author: str, data: bytes) -> None:
        if self._judge(author, data) is Verdict.ACCEPT:
            self._network.counters.gossip_received += 1
            try:
                self._send.send_nowait((author, data))
            except trio.WouldBlock:
                self._network.counters.gossip_dropped += 1

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        return self._receive.__aiter__()

    def receive(self) -> Awaitable[tuple[str, bytes]]:
        return self._receive.receive()
