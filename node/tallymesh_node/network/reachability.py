"""Can others reach us, and can we reach them? A peer asks its neighbours to dial it back and says what they found;
and whoever would give a peer work dials what that peer announces.

The answering side dials only the address at which it sees the asker, at the port that the asker names, and counts only
a Noise handshake that proves the asker's own peer id: it can be used neither to reach third parties nor, beyond one
connection every few seconds, against the asker's neighbours behind the same address. Many askers that name ports at
which nobody answers hold its dials for no longer than it takes to see that (fair.py).
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.transport.exceptions import OpenConnectionError, SecurityUpgradeFailure
from multiaddr import Multiaddr

from tallymesh.errors import RemoteError
from tallymesh.exchange import Body, Source, decode, encode
from tallymesh_node.network.addresses import dialable
from tallymesh_node.network.fair import FairSlots
from tallymesh_node.network.keys import parse_peer_id
from tallymesh_node.network.mends import MendedTCP, shielded

log = logging.getLogger(__name__)

ASKED = 3  # neighbours that have answered: one may itself be behind a wall
TRIED = 9  # … of so many that were asked: some are too busy, or gone
ASK_S = 10.0  # the neighbour's dial takes up to DIAL_S, after waiting for its turn
DIAL_S = 4.0
HURRIED_S = 1.5  # where others wait: TCP and Noise are done after three round trips, a slow peer asks somebody else
WAIT_S = 5.0  # for a turn; with the dial within ASK_S
PAUSE_S = 5.0  # between two dials for one asker …
FAILED_PAUSE_S = 30.0  # … that could not be reached the first time: it has been told, or asks somebody else
MAX_ASKERS = 1024  # remembered for a pause; the first one is forgotten
DIALS_AT_ONCE = 16  # a descriptor each
DIALS_OF_BLOCK = 4  # of one /24 or /48
MAX_WAITING = 64  # for a turn; who comes from where most was spent is refused
PROBES_AT_ONCE = 16  # peers dialled at all their addresses before they get work
PROVEN_S = 300.0  # a peer that was reached counts as reachable for this long
MAX_PROVEN = 1024  # remembered; the oldest is forgotten, and dialled again


class DialbackRequest(Body, frozen=True):
    NAME = "dialback"
    port: int  # at which the asker says that it listens


class DialbackAnswer(Body, frozen=True):
    reached: bool
    sentence: str


@dataclass(frozen=True)
class Reachability:
    """Whether others can dial us; None where nobody could say. The sentence is for people."""

    reachable: bool | None
    sentence: str


class Dialback:
    """The answering side: the handler of `dialback`."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._paused: OrderedDict[str, float] = OrderedDict()  # asker -> until when
        self._slots = FairSlots(
            DIALS_AT_ONCE, DIALS_OF_BLOCK, waiting=MAX_WAITING, wait_s=WAIT_S, hold_s=DIAL_S, hurried_s=HURRIED_S
        )

    async def answer(self, peer: str, body: bytes) -> bytes:
        port = decode(body, DialbackRequest, peer=peer).port
        if not 1 <= port <= 65_535:
            raise RemoteError("bad_message", f"{port} is not a port.", peer=peer)
        host = self._seen_at(parse_peer_id(peer))
        left = self._paused.get(peer, 0.0) - trio.current_time()
        if left > 0:
            raise RemoteError("busy", f"Dialled for you a moment ago; ask again in {math.ceil(left)} s.", peer=peer)
        kind = "ip6" if ":" in host else "ip4"
        self._pause(peer, FAILED_PAUSE_S)
        reached = False
        try:
            async with self._slots.slot(host) as turn:
                reached = await _answers(self._swarm, Multiaddr(f"/{kind}/{host}/tcp/{port}"), parse_peer_id(peer))
        except trio.TooSlowError:
            self._pause(peer, PAUSE_S)
            raise RemoteError(
                "busy", f"Many wait to be dialled; ask somebody else, or again in {PAUSE_S:g} s.", peer=peer
            ) from None
        if turn.cut_short:
            raise RemoteError(
                "busy",
                f"Port {port} of {host} did not answer within {HURRIED_S:g} s, and others wait; ask somebody else, or "
                f"again in {FAILED_PAUSE_S:g} s.",
                peer=peer,
            )
        if reached:
            self._pause(peer, PAUSE_S)
        sentence = f"Reached you at {host} port {port}." if reached else f"Could not reach you at {host} port {port}."
        return encode(DialbackAnswer(reached=reached, sentence=sentence))

    def _pause(self, peer: str, seconds: float) -> None:
        self._paused[peer] = trio.current_time() + seconds
        self._paused.move_to_end(peer)
        while len(self._paused) > MAX_ASKERS:
            self._paused.popitem(last=False)

    def _seen_at(self, peer_id: ID) -> str:
        for connection in self._swarm.get_connections(peer_id):
            address = connection.muxed_conn.get_remote_address()
            if address:
                return str(address[0])
        raise RemoteError("unreachable", "You are not connected to this peer directly.", peer=peer_id.to_base58())


class Prober:
    """The dialling side: whether a peer can be reached at what it announces, whoever opened the connection in use."""

    def __init__(
        self, swarm: Swarm, dialled: Callable[[ID], bool], now: Callable[[], float] = trio.current_time
    ) -> None:
        self._swarm = swarm
        self._dialled = dialled  # whether a connection to the peer is open that we made ourselves
        self._now = now
        self._proven: OrderedDict[Source, float] = OrderedDict()  # until when
        self._slots = trio.CapacityLimiter(PROBES_AT_ONCE)

    async def reach(self, peer: Source) -> None:
        """RemoteError `unreachable` where none of the announced addresses answers as this peer."""
        peer_id = parse_peer_id(peer.peer_id)
        if self._proven.get(peer, 0.0) > self._now():
            return
        if not self._dialled(peer_id) and not await self._any(dialable(peer.addresses), peer_id):
            raise RemoteError(
                "unreachable",
                f"None of the addresses that it announces answers: {', '.join(peer.addresses) or 'there are none'}.",
                peer=peer.peer_id,
                remedy="Its port is closed, or it is offline.",
            )
        self._proven[peer] = self._now() + PROVEN_S
        self._proven.move_to_end(peer)
        while len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)

    async def _any(self, addresses: Sequence[Multiaddr], peer_id: ID) -> bool:
        """All at once: who announces many at which nobody answers takes no longer than who announces one."""
        found = False

        async def dial(address: Multiaddr) -> None:
            nonlocal found
            if await _answers(self._swarm, address, peer_id):
                found = True
                nursery.cancel_scope.cancel()

        async with self._slots, trio.open_nursery() as nursery:
            for address in addresses:
                nursery.start_soon(dial, address)
        return found


async def _answers(swarm: Swarm, address: Multiaddr, peer_id: ID) -> bool:
    """TCP and the Noise handshake, on a connection of its own that nothing else ever sees."""
    with trio.move_on_after(DIAL_S):
        try:
            raw = await MendedTCP().dial(Multiaddr(f"{address}/p2p/{peer_id.to_base58()}"))
        except OpenConnectionError:
            return False
        try:
            await swarm.upgrader.upgrade_security(raw, True, peer_id)
            return True
        except (SecurityUpgradeFailure, BaseLibp2pError, OSError) as error:
            log.debug("dialling %s: %r", address, error)
        finally:
            with shielded(DIAL_S):
                await raw.close()
    return False


class Asker(Protocol):
    """What asking needs of a network."""

    @property
    def peers(self) -> Sequence[str]: ...

    @property
    def addresses(self) -> Sequence[str]: ...

    async def request(self, peer: Source, name: str, body: bytes, *, timeout_s: float) -> bytes: ...


async def check_reachability(network: Asker, *, port: int | None = None) -> Reachability:
    """Ask neighbours until three have tried to dial us at `port` (the first address's by default), or there are no more
    of them. Never raises RemoteError."""
    if port is None:
        port = next((int(address.split("/tcp/")[1]) for address in network.addresses if "/tcp/" in address), 0)
    answers: list[bool] = []
    peers = iter(list(network.peers)[:TRIED])

    async def ask_until_one_answers() -> None:
        for peer in peers:
            try:
                body = encode(DialbackRequest(port=port))
                data = await network.request(Source(peer_id=peer), DialbackRequest.NAME, body, timeout_s=ASK_S)
                answers.append(decode(data, DialbackAnswer, peer=peer).reached)
                return
            except RemoteError as error:
                log.info("%s did not say whether it reaches us: %s", peer, error)

    async with trio.open_nursery() as nursery:
        for _ in range(ASKED):
            nursery.start_soon(ask_until_one_answers)
    if any(answers):
        return Reachability(True, f"yes: port {port} is open to others.")
    if not answers:
        return Reachability(None, "not known yet: no peer could be asked to dial back.")
    who = "A peer" if len(answers) == 1 else f"{len(answers)} peers"
    return Reachability(
        False,
        f"no: port {port} is closed. {who} tried to dial it and failed; "
        f"open or forward TCP port {port} to this machine.",
    )
