"""Peers on the same local network find each other without anybody's address: says that this node is here, asks who else
is, and hands over whom it hears as candidates for connections.

It knows neither sockets nor the wire format. `Lan` is the local network as it is: nearby_socket.py has the real one,
tests have one in memory. Whoever writes to a Wi-Fi may write anything, so that everything here is counted: how many
peers are remembered, how many of one machine, how many packets are read.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

import msgspec
import trio

from tallymesh.exchange import Source
from tallymesh_node import beats
from tallymesh_node.network.addresses import host_and_port
from tallymesh_node.network.nearby_packets import TTL_S, Heard, question, read, statement

log = logging.getLogger(__name__)

MAX_PEERS: Final = 64  # remembered; the machines of an office. More have found enough of each other
MAX_PER_MACHINE: Final = 4  # of one address: so many nodes of one owner, or so many inventions of one stranger
MAX_PACKETS_S: Final = 100  # read in a second of all machines together, 0.1 ms each; the others are dropped unread
MAX_PACKETS_MACHINE_S: Final = 10  # of one machine, so that a flood of one leaves the others' to be read
FIRST_S: Final = 1.0  # pause after the first word; each is three times as long as the one before
EVERY_S: Final = 50.0  # the longest: two in the life of a record, so that one lost packet forgets nobody
LOOK_S: Final = 5.0  # how often interfaces are compared, and what was not said again is forgotten
ANSWER_S: Final = 1.0  # between two answers (RFC 6762, section 6), however many ask
DELAY_S: Final = 0.1  # an answer waits for a random part of it, so that not all speak at once
GOODBYE_S: Final = 1.0  # for the last word: whoever stops a node waits for that


class Place(msgspec.Struct, frozen=True):
    """One interface of this machine: its address there, and which others are on the same link (a mask)."""

    address: str
    mask: str


class Lan(Protocol):
    """The local network. Nothing raises: a network that is down is an empty one."""

    def places(self) -> Sequence[Place]:
        """Interfaces with a private address that are up."""

    async def listen(self, places: Sequence[Place]) -> str:
        """Hear what is said at these from now on, and at no others; "" or why that cannot be."""

    async def say(self, place: Place, packet: bytes) -> None:
        """To all on the link."""

    async def hear(self) -> tuple[bytes, str]:
        """The next packet, and the address of who sent it, which is on one of the links. Waits."""


@dataclass
class _Peer:
    source: Source
    machine: str
    until: float
    gone: bool = False  # said goodbye; it counts until its record ends, so that names cannot be changed quickly


class Nearby:
    """`run` speaks and listens for as long as it is not cancelled, and says goodbye then.

    `found` and `lost` are called when a peer appears (or moves) and when it is not heard any more. `listening` are the
    addresses that this node listens on: where none is at an interface, nothing is said or heard there.
    """

    def __init__(
        self,
        lan: Lan,
        topic: str,
        peer_id: str,
        listening: Callable[[], Sequence[str]],
        found: Callable[[Source], None],
        lost: Callable[[str], None],
        random: Random | None = None,
    ) -> None:
        self._lan = lan
        self._topic = topic
        self._peer_id = peer_id
        self._listening = listening
        self._found = found
        self._lost = lost
        self._random = random or Random()  # noqa: S311 - jitter, not a secret
        self._name = secrets.token_hex(16)
        self._places: tuple[Place, ...] = ()
        self._peers: dict[str, _Peer] = {}
        self._second = 0
        self._heard: Counter[str] = Counter()
        self._moved = trio.Event()
        self._asked = trio.Event()
        self.problem = ""
        self.dropped = 0  # packets that were not read

    @property
    def peers(self) -> list[Source]:
        return [peer.source for peer in self._peers.values() if not peer.gone]

    @property
    def listens(self) -> bool:
        return bool(self._places) and not self.problem

    @property
    def sentence(self) -> str:
        """For the node's owner."""
        if self.problem:
            return f"no: {self.problem}"
        if not self._places:
            return "nothing is said: the node listens at no address of a local network"
        count = len(self.peers)
        return f"{count} peer{'s' * (count != 1)} of this network heard on the local one"

    async def run(self) -> None:
        try:
            await self.look()
            async with trio.open_nursery() as nursery:
                for loop in (self._look_again, self._speak, self._answer, self._listen):
                    nursery.start_soon(loop)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GOODBYE_S):
                await self._say(ttl_s=0)

    # -- loops

    async def _look_again(self) -> None:
        while True:
            await beats.pause(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Where this node can be dialled may change: a laptop that is carried, a cable. And records end."""
        hosts = {host_and_port(address)[0] for address in self._listening()}
        places = tuple(place for place in self._lan.places() if place.address in hosts)
        if places != self._places or self.problem:
            self._places = places
            self.problem = await self._lan.listen(places)
            if places and not self.problem:
                log.info("looking for peers on the local network at %s", ", ".join(place.address for place in places))
            self._moved.set()
        now = trio.current_time()
        for peer_id, peer in list(self._peers.items()):
            if peer.until <= now:
                del self._peers[peer_id]
                if not peer.gone:
                    self._lost(peer_id)

    async def _speak(self) -> None:
        pause = FIRST_S
        while True:
            self._moved = trio.Event()
            await self._say(ask=True)
            with trio.move_on_after(pause * (0.9 + 0.2 * self._random.random())):
                await self._moved.wait()
            pause = FIRST_S if self._moved.is_set() else min(3 * pause, EVERY_S)

    async def _answer(self) -> None:
        while True:
            await self._asked.wait()
            await trio.sleep(DELAY_S * self._random.random())
            self._asked = trio.Event()
            await self._say()
            await trio.sleep(ANSWER_S)

    async def _listen(self) -> None:
        while True:
            data, machine = await self._lan.hear()
            if not self._admits(machine):
                self.dropped += 1
                continue
            packet = read(data, machine, self._topic)
            if packet.asks:
                self._asked.set()
            for heard in packet.peers:
                self._note(heard, machine)

    # -- steps

    async def _say(self, *, ask: bool = False, ttl_s: int = TTL_S) -> None:
        """At each interface what is true there. Nothing where the socket is not open."""
        if self.problem:
            return
        for place in self._places:
            here = tuple(each for each in self._listening() if host_and_port(each)[0] == place.address)
            if ask:
                await self._lan.say(place, question())
            await self._lan.say(place, statement(self._name, self._topic, Source(self._peer_id, here), ttl_s))

    def _admits(self, machine: str) -> bool:
        second = math.floor(trio.current_time())
        if second != self._second:
            self._second = second
            self._heard.clear()
        if self._heard.total() >= MAX_PACKETS_S or self._heard[machine] >= MAX_PACKETS_MACHINE_S:
            return False
        self._heard[machine] += 1
        return True

    def _note(self, heard: Heard, machine: str) -> None:
        peer_id = heard.source.peer_id
        known = self._peers.get(peer_id)
        if peer_id == self._peer_id:
            return
        if known is not None and known.machine != machine:
            return  # who was heard first: a stranger who says the id of another does not move it
        if heard.ttl_s == 0:
            if known is not None and not known.gone:
                known.gone = True
                self._lost(peer_id)
            return
        until = trio.current_time() + heard.ttl_s
        if known is not None and not known.gone and known.source == heard.source:
            known.until = max(known.until, until)
            return
        if known is None:
            of_machine = sum(peer.machine == machine for peer in self._peers.values())
            if len(self._peers) >= MAX_PEERS or of_machine >= MAX_PER_MACHINE:
                return
        # Never shorter than before: a short life would make room for the next invention.
        self._peers[peer_id] = _Peer(heard.source, machine, max(until, trio.current_time() + TTL_S))
        self._found(heard.source)
