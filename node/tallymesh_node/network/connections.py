"""Connections to other peers: dialled when needed, kept open, restored by a loop that compares what should be with
what is. This module does not know what travels over them.

libp2p's own dialling tries one TCP address of a peer after a fixed delay, refuses a failed peer for a minute and has
no deadline; here each address is dialled for itself (`Swarm.dial_addr`), under a deadline, and the pause after a
failure is ours.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from multiaddr import Multiaddr

from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh_node import beats
from tallymesh_node.network.addresses import MAX_ADDRESSES, dialable
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.keys import parse_peer_id
from tallymesh_node.network.mends import shielded
from tallymesh_node.network.places import MAX_PLACES, Places, Standing

log = logging.getLogger(__name__)

DIAL_S = 5.0  # one address: TCP, Noise and yamux take 10 ms nearby, 4 round trips far away
REFUSED_S = 2.0  # a peer that could not be reached is not dialled again for this long: callers retry in loops
MAX_KNOWN = 512  # peers remembered as candidates for connections; the least recently heard of is forgotten
MAX_BANNED = 4096  # as many ids as a flood of them may make us remember
WANTED_PEERS = 8  # connections that the loop keeps up by itself: the gossip mesh needs 6
WANTED_NEAR = 4  # of these, to peers that the local network alone knows: half, since anybody there may make some up
RECONCILE_S = 1.0  # how often the loop looks, whatever it was told
SOON_S = 0.25  # from a change to the look at it: a peer that ends closes its connections before its port
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
DIALS_AT_ONCE = 4  # of the loop's own, so that a network that is down costs little


@dataclass
class _Candidate:
    """A peer to which the loop may connect, and when it may try again."""

    addresses: tuple[str, ...]
    lasting: bool  # a bootstrap peer is never forgotten
    near: tuple[str, ...] = ()  # addresses that somebody on the local network says it has
    said: tuple[str, ...] = ()  # what its last offer named, read already
    failures: int = 0
    not_before: float = 0.0


def backoff_s(failures: int, chance: float) -> float:
    """Pause after so many failures in a row, doubled each time and jittered by `chance` in [0, 1) to 50 … 100 %, so
    that peers that lost the same connection do not come back together."""
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16)) * (0.5 + chance / 2)


class Connections(INotifee):  # type: ignore[misc]
    """All connections of one swarm. RemoteError with code `unreachable` where there is none and none can be made."""

    def __init__(
        self, swarm: Swarm, counters: Counters, bootstrap: Sequence[Source], *, inbound: int = MAX_PLACES
    ) -> None:
        self.standing: Callable[[str], Standing] = lambda peer_id: Standing.STRANGER  # set by whoever knows more
        self.inbound: Places[INetConn] = Places(lambda peer_id: self.standing(peer_id), inbound)
        self._swarm = swarm
        self._counters = counters
        self._dialling: dict[ID, trio.Event] = {}
        self._refused: dict[ID, float] = {}  # peer -> when it may be dialled again
        self._banned: OrderedDict[ID, float] = OrderedDict()
        self._known: OrderedDict[ID, _Candidate] = OrderedDict()
        self._slots = trio.CapacityLimiter(DIALS_AT_ONCE)
        self._joined = trio.Event()
        self._changed = trio.Event()  # a connection was lost, or a peer is new
        self._random = random.Random()  # noqa: S311 - jitter, not a secret
        for source in bootstrap:
            self._note(source, lasting=True)
        swarm.register_notifee(self)

    # -- asked by others -------------------------------------------------------------------------------------------

    @property
    def peers(self) -> list[str]:
        """Peer ids to which a connection is open."""
        return [peer.to_base58() for peer in self._swarm.connections if self._open(peer)]

    async def wait_joined(self) -> None:
        """Until a connection to anybody was open once."""
        await self._joined.wait()

    def learn(self, source: Source) -> None:
        """A peer that exists (from its valid offer): the loop may connect to it. Never raises."""
        with suppress(RemoteError):
            self._note(source, lasting=False)

    def near(self, source: Source) -> None:
        """A peer of the local network, by what was said there. Nobody signed that: what is known of the peer otherwise
        stays, and is tried first. Never raises."""
        with suppress(RemoteError):
            peer_id = parse_peer_id(source.peer_id)
            addresses = tuple(str(address) for address in dialable(source.addresses))
            if peer_id != self._swarm.get_peer_id() and addresses:
                self._known.setdefault(peer_id, _Candidate((), lasting=False)).near = addresses
                self._forget_oldest()
                self._changed.set()

    def not_near(self, peer_id: str) -> None:
        """Not heard any more. Its connection, if there is one, stays."""
        with suppress(RemoteError):
            peer = parse_peer_id(peer_id)
            known = self._known.get(peer)
            if known is not None:
                known.near = ()
                if not known.addresses:
                    del self._known[peer]

    async def connect(self, peer: Source) -> None:
        """Open a connection unless there is one. Concurrent calls for one peer share the dial."""
        peer_id = parse_peer_id(peer.peer_id)
        while (under_way := self._dialling.get(peer_id)) is not None:
            await under_way.wait()  # where it failed, the refusal below says so; where it was cancelled, dial anew
        if self._open(peer_id):
            return
        if self.is_banned(peer_id):
            raise RemoteError("unreachable", "This peer is banned here for now.", peer=peer.peer_id)
        if peer_id == self._swarm.get_peer_id():
            raise RemoteError("unreachable", "A peer does not dial itself.", peer=peer.peer_id)
        known = self._known.get(peer_id)
        addresses = dialable([*peer.addresses, *((*known.addresses, *known.near) if known else ())])
        if not addresses:
            raise RemoteError("unreachable", "No address of this peer is known.", peer=peer.peer_id)
        if trio.current_time() < self._refused.get(peer_id, 0.0):
            raise self._unreachable(peer_id)
        done = self._dialling[peer_id] = trio.Event()
        try:
            for address in addresses:
                if await self._dial(address, peer_id):
                    self._refused.pop(peer_id, None)
                    return
        finally:
            del self._dialling[peer_id]
            done.set()
        self._forget_refusals()
        self._refused[peer_id] = trio.current_time() + REFUSED_S
        raise self._unreachable(peer_id)

    async def open_stream(self, peer: Source) -> INetStream:
        """A new stream, without a protocol chosen yet. A connection that turns out dead is dialled anew, once."""
        peer_id = parse_peer_id(peer.peer_id)
        for _ in range(2):
            await self.connect(peer)
            connections = self._open(peer_id)
            if not connections:
                continue
            try:
                # A stream that was announced but never handed out would stay in the books: no cancellation in between
                # (bounded: the muxer gives up a peer that reads nothing).
                with trio.CancelScope(shield=True):
                    return await connections[0].new_stream()
            except (SwarmException, MuxedConnError, MuxedStreamError, OSError) as error:
                log.debug("connection to %s was dead: %r", peer.peer_id, error)
                await self.disconnect(peer_id)
        raise self._unreachable(peer_id)

    def dialled(self, peer_id: ID) -> bool:
        """Whether a connection to the peer is open that this side made."""
        return any(connection.muxed_conn.is_initiator for connection in self._open(peer_id))

    async def disconnect(self, peer_id: ID) -> None:
        with shielded(DIAL_S):
            async with trio.open_nursery() as nursery:
                for connection in self._swarm.get_connections(peer_id):
                    nursery.start_soon(connection.close)

    async def close(self) -> None:
        """All at once: libp2p closes one after the other, and waits 0.2 s in each."""
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.get_connections():
                nursery.start_soon(connection.close)

    async def ban(self, peer_id: ID, seconds: float) -> None:
        """Close the peer's connections and refuse new ones for a while."""
        self._banned[peer_id] = trio.current_time() + seconds
        self._banned.move_to_end(peer_id)
        while len(self._banned) > MAX_BANNED:
            self._banned.popitem(last=False)
        await self.disconnect(peer_id)

    def use(self, peer: str) -> None:
        """One of the two asked the other something, and it was answered."""
        self.inbound.use(peer, trio.current_time())

    def is_banned(self, peer_id: ID) -> bool:
        return trio.current_time() < self._banned.get(peer_id, 0.0)

    # -- the loop --------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Keep WANTED_PEERS connections, the bootstrap peers first, for ever. Joining through any one is enough."""
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                for peer_id in self._missing(trio.current_time()):
                    candidate = self._known[peer_id]
                    candidate.not_before = float("inf")  # until this attempt ends
                    nursery.start_soon(self._restore, peer_id, candidate)
                with trio.move_on_after(self._pause_s()):
                    await self._changed.wait()
                    await trio.sleep(SOON_S)

    def _pause_s(self) -> float:
        """Until somebody may be tried again, and not for long: whether a connection still lives nobody has to say."""
        now = trio.current_time()
        again = (c.not_before - now for peer, c in self._known.items() if c.not_before > now and not self._open(peer))
        return min(beats.left(RECONCILE_S), *again, RECONCILE_S)

    def _missing(self, now: float) -> list[ID]:
        """Candidates to dial now. Strangers who came by themselves do not count: they may all be one, and would be all
        that this node hears of."""
        due = [peer for peer, c in self._known.items() if c.not_before <= now and not self._open(peer)]
        if not due:
            return []
        wanted = [peer for peer in self._swarm.connections if self.dialled(peer) or self._has_standing(peer)]
        free = WANTED_PEERS - len(wanted) - len(self._dialling)
        self._random.shuffle(due)  # else everybody leans on the same few
        near = {peer for peer, c in self._known.items() if not c.addresses}
        room = WANTED_NEAR - sum(1 for peer in near if self._open(peer) or peer in self._dialling)
        spare = set([peer for peer in due if peer in near][max(0, room) :])
        due = [peer for peer in due if peer not in spare]
        due.sort(key=lambda peer: not self._known[peer].lasting)
        return [peer for peer in due[: max(0, free)] if peer not in self._dialling and not self.is_banned(peer)]

    async def _restore(self, peer_id: ID, candidate: _Candidate) -> None:
        try:
            async with self._slots:
                self._refused.pop(peer_id, None)  # the loop has its own, longer pauses
                await self.connect(Source(peer_id=peer_id.to_base58(), addresses=candidate.addresses))
            candidate.failures = 0
        except RemoteError as error:
            candidate.failures += 1
            log.debug("candidate not reached: %s", error)
        pause = backoff_s(max(1, candidate.failures), self._random.random())
        candidate.not_before = trio.current_time() + pause
        self._changed.set()

    def _note(self, source: Source, *, lasting: bool) -> None:
        peer_id = parse_peer_id(source.peer_id)
        known = self._known.get(peer_id)
        if known is not None and known.said == source.addresses:  # an offer comes every few seconds, and says the same
            self._known.move_to_end(peer_id)
            return
        addresses = tuple(str(address) for address in dialable(source.addresses))
        if peer_id == self._swarm.get_peer_id() or not addresses:
            return
        if known is None:
            self._known[peer_id] = _Candidate(addresses, lasting, said=source.addresses)
            self._changed.set()
        else:
            known.said = source.addresses
            # A bootstrap peer may be listed under several addresses; an offer replaces what an earlier one said.
            merged = dict.fromkeys((*known.addresses, *addresses)) if known.lasting else dict.fromkeys(addresses)
            known.addresses = tuple(merged)[:MAX_ADDRESSES]
            self._known.move_to_end(peer_id)
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        while len(self._known) > MAX_KNOWN:
            oldest = next((peer for peer, candidate in self._known.items() if not candidate.lasting), None)
            if oldest is None:
                break
            del self._known[oldest]

    # -- dialling --------------------------------------------------------------------------------------------------

    async def _dial(self, address: Multiaddr, peer_id: ID) -> bool:
        self._counters.dials += 1
        reached = False
        with trio.move_on_after(DIAL_S):
            try:
                await self._swarm.dial_addr(address, peer_id)
                reached = True
            except SwarmException as error:
                log.debug("dialling %s at %s failed: %s", peer_id, address, error.__cause__ or error)
        if not reached:
            self._counters.dials_failed += 1
        return reached

    def _open(self, peer_id: ID) -> list[INetConn]:
        return [c for c in self._swarm.connections.get(peer_id, ()) if not c.is_closed and not c.muxed_conn.is_closed]

    def _has_standing(self, peer_id: ID) -> bool:
        return bool(self._open(peer_id)) and self.standing(peer_id.to_base58()) is not Standing.STRANGER

    def _unreachable(self, peer_id: ID) -> RemoteError:
        return RemoteError(
            "unreachable",
            "The peer cannot be reached at any of its addresses.",
            peer=peer_id.to_base58(),
            remedy="It may be offline, or its port is closed.",
        )

    def _forget_refusals(self) -> None:
        now = trio.current_time()
        self._refused = {peer: until for peer, until in self._refused.items() if until > now}

    # -- told by libp2p --------------------------------------------------------------------------------------------

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        peer_id = conn.muxed_conn.peer_id
        if self.is_banned(peer_id):
            await conn.close()
            return
        self._joined.set()
        if not conn.muxed_conn.is_initiator:
            await self._let_in(conn, peer_id)

    async def _let_in(self, conn: INetConn, peer_id: ID) -> None:
        """Whoever makes room for it is cut at once: a close in good order waits for the other side."""
        for each in self.inbound:
            if each.is_closed:  # libp2p may say so before it says that it was open
                self.inbound.leave(each)
        remote = conn.muxed_conn.get_remote_address()
        for each in self.inbound.enter(conn, peer_id.to_base58(), remote[0] if remote else "", trio.current_time()):
            self._counters.connections_displaced += 1
            log.debug("the connection of %s makes room", each.muxed_conn.peer_id)
            await each.muxed_conn.give_up()

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self.inbound.leave(conn)
        self._changed.set()
        peer_id = conn.muxed_conn.peer_id
        if not self._open(peer_id):
            with suppress(PeerStoreError):  # else every peer that ever called stays in memory
                self._swarm.peerstore.clear_peerdata(peer_id)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
