"""The libp2p host of a node: built from mended parts (mends.py), TCP with Noise and yamux and nothing else offered.

`open_network` is the only thing that the daemon needs: it listens, joins and serves until its block ends. This module
wires; what the parts do is theirs (connections, requests, gossip).
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import Source
from tallymesh_node.interfaces import Handler
from tallymesh_node.network.addresses import advertised, dialable, host_and_port, split_address, tcp_address
from tallymesh_node.network.connections import Connections
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.direct import Direct, DirectSocket
from tallymesh_node.network.gossip import Gossip, Validator, topic_name
from tallymesh_node.network.keys import PeerKey, parse_peer_id
from tallymesh_node.network.mends import MendedHost, MendedSwarm, MendedTCP, MendedUpgrader, guard_streams
from tallymesh_node.network.places import MAX_OF_PEER, MAX_PLACES
from tallymesh_node.network.reachability import Dialback, DialbackRequest, Prober
from tallymesh_node.network.requests import Requests
from tallymesh_node.network.wire import Handler as StreamHandler
from tallymesh_node.network.wire import Router, Wire, opening

log = logging.getLogger(__name__)

# libp2p's own bound, of both directions and of handshakes: nothing reaches it, for `Places` bounds the inbound ones, 64
# shake hands, and a few are being closed; the rest is for what this node dials, whoever has come.
MAX_CONNECTIONS = MAX_PLACES + 300
NEGOTIATE_S = 10.0  # for a stream's first lines
DIRECT_ADDRESSES = 2  # tried for a direct socket: there is another way, and each may take four seconds
CLOSE_S = 10.0  # each connection takes 0.2 s to close in good order; after this they are cut


class Libp2pNetwork:
    """`interfaces.PeerNetwork` over libp2p, with gossip, raw streams for blobs, and counters."""

    def __init__(
        self,
        host: BasicHost,
        router: Router,
        topic: str,
        announce: Sequence[str],
        connections: Connections,
        gossip: Gossip,
        counters: Counters,
        direct: Direct,
    ) -> None:
        self._host = host
        self._direct = direct
        direct.banned = connections.is_banned
        self._router = router
        self._announce = tuple(announce)
        self.topic = topic
        self.connections = connections
        self.gossip = gossip
        self.counters = counters
        self._requests = Requests(topic, connections, counters)
        router.serve(self._requests.protocol, self._requests.accept)
        self._requests.serve(DialbackRequest.NAME, Dialback(host.get_network()).answer)
        self._prober = Prober(host.get_network(), connections.dialled)

    @property
    def peer_id(self) -> str:
        text: str = self._host.get_id().to_base58()
        return text

    @property
    def addresses(self) -> Sequence[str]:
        return self._announce or self.listening

    @property
    def listening(self) -> Sequence[str]:
        """Addresses of this machine, whatever its owner has others told."""
        return advertised([str(address) for address in self._host.get_transport_addrs()])

    @property
    def source(self) -> Source:
        """What others need to fetch from us or to call us."""
        return Source(peer_id=self.peer_id, addresses=tuple(self.addresses))

    @property
    def peers(self) -> Sequence[str]:
        """Peer ids to which a connection is open."""
        return self.connections.peers

    def learn(self, source: Source) -> None:
        """A peer that exists, from its valid offer: a candidate for the connections that are kept up."""
        self.connections.learn(source)

    async def request(self, peer: Source, name: str, body: bytes, *, timeout_s: float) -> bytes:
        return await self._requests.request(peer, name, body, timeout_s=timeout_s)

    async def reach(self, peer: Source) -> None:
        await self._prober.reach(peer)

    def serve(self, name: str, handler: Handler) -> None:
        self._requests.serve(name, handler)

    def serve_streams(self, protocol: str, handler: StreamHandler) -> None:
        """Register the only handler of a protocol of raw streams; see wire.Router."""
        self._router.serve(protocol, handler)

    def serve_direct(self, handler: Callable[[DirectSocket], None]) -> None:
        """What to do with a direct socket that a peer opened; called at once, the handler aborts it in the end."""
        assert self._direct.serve is None
        self._direct.serve = handler

    async def open_direct(self, peer: Source) -> DirectSocket:
        """A direct socket to the peer at one of the addresses that it announces, or RemoteError `unreachable`. The
        caller aborts it in the end."""
        peer_id = parse_peer_id(peer.peer_id)
        error = RemoteError("unreachable", "No address of this peer is known.", peer=peer.peer_id)
        for address in dialable(peer.addresses)[:DIRECT_ADDRESSES]:
            try:
                return await self._direct.dial(self._host.get_network(), address, peer_id)
            except RemoteError as failed:
                error = failed
        raise error

    async def open_wire(self, peer: Source, protocol: str, frame: bytes) -> Wire:
        """A stream on which `protocol` and its first frame were sent; `wire.expect_protocol` reads the confirmation.
        The caller aborts it in the end, whatever happens."""
        wire = Wire(await self.connections.open_stream(peer))
        try:
            await wire.send(opening(protocol, frame))
        except BaseException:
            await wire.abort()
            raise
        return wire


@asynccontextmanager
async def open_network(
    key: PeerKey,
    topic: str,
    *,
    listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    announce: Sequence[str] = (),
    bootstrap: Sequence[str] = (),
    validator: Validator | None = None,
    inbound: int = MAX_PLACES,
) -> AsyncIterator[Libp2pNetwork]:
    """Listen, join through any of `bootstrap` (multiaddrs with ``/p2p/``) and serve until the block ends; `inbound`
    connections at most.

    `topic` is `Network.topic`. `announce` is what others are told to dial, in the place of the addresses listened on.
    Raises CallerError for an address that is none, LocalError `port_in_use` or `cannot_listen`.
    """
    _quiet_libp2p()
    sources = [split_address(text) for text in bootstrap]
    addresses = [tcp_address(text) for text in listen]
    for text in announce:
        tcp_address(text)
    for address in addresses:
        _check_free(address)
    counters = Counters()
    direct = Direct(topic)
    swarm = _build_swarm(key, counters, direct)
    host = MendedHost(
        network=swarm,
        addrs_factory=lambda found: [Multiaddr(a) for a in announce or advertised([str(f) for f in found])],
        disable_identify_address_discovery=True,  # the dialback request answers what it guesses at
    )
    router = Router(host.get_mux().handlers)
    connections = Connections(swarm, counters, sources, inbound=inbound)
    gossip = Gossip(host, topic_name(topic), connections, counters, validator)
    network = Libp2pNetwork(host, router, topic, announce, connections, gossip, counters, direct)

    async def accept(stream: object) -> None:
        await router.accept(stream, timeout_s=NEGOTIATE_S)

    swarm.set_stream_handler(guard_streams(accept))
    stop = trio.Event()

    async def run(task_status: Any) -> None:
        # Out of reach of the block's cancellation: cancelled at the wrong moment, libp2p marks a connection as closed
        # and leaves its socket open.
        with trio.CancelScope(shield=True) as scope:
            async with host.run(listen_addrs=addresses):
                missing = [str(address) for address in addresses if str(address) not in swarm.listeners]
                if missing:
                    task_status.started(_cannot_listen(", ".join(missing)))
                    return
                try:
                    async with gossip.run(), trio.open_nursery() as nursery:
                        nursery.start_soon(connections.keep)
                        task_status.started(None)
                        await stop.wait()
                        scope.deadline = trio.current_time() + CLOSE_S
                        nursery.cancel_scope.cancel()
                finally:
                    await connections.close()
                    await host.close()  # else port and connections outlive host.run()

    async with trio.open_nursery() as nursery:
        problem: LocalError | None = await nursery.start(run)
        if problem is None:
            log.info("listening on %s as %s", ", ".join(network.addresses), network.peer_id)
            try:
                yield network
            finally:
                stop.set()
    if problem is not None:
        raise problem


def _build_swarm(key: PeerKey, counters: Counters, direct: Direct) -> MendedSwarm:
    def sent(size: int) -> None:
        counters.bytes_sent += size

    def received(size: int) -> None:
        counters.bytes_received += size

    peer_id = ID.from_pubkey(key.pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, key.pair)
    noise = NoiseTransport(key.pair, noise_privkey=new_x25519_key_pair().private_key)
    upgrader = MendedUpgrader(
        secure_transports_by_protocol={NOISE: noise},  # plaintext and secio are offered by default
        muxer_transports_by_protocol={TProtocol(YAMUX): Yamux},
        sent=sent,
        received=received,
        direct=direct.protocol,
        take_over=direct.take_over,
    )
    return MendedSwarm(
        peer_id,
        peerstore,
        upgrader,
        [MendedTCP()],
        retry_config=RetryConfig(max_retries=0),  # connections.py retries, with its own pauses
        connection_config=ConnectionConfig(
            max_connections=MAX_CONNECTIONS,
            high_watermark=MAX_CONNECTIONS,
            low_watermark=0,  # else libp2p dials by itself whomever it heard of
            min_connections=0,
            max_connections_per_peer=MAX_OF_PEER,
        ),
    )


def _check_free(address: Multiaddr) -> None:
    """libp2p listens with SO_REUSEPORT: a second node on the port would share its connections without any error."""
    host, port = host_and_port(str(address))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise LocalError(
                    "port_in_use",
                    f"Port {port} is in use.",
                    remedy="Stop what uses it, or choose another with --listen-port.",
                ) from None
            raise _cannot_listen(f"{address} ({error.strerror})") from None


def _cannot_listen(where: str) -> LocalError:
    return LocalError(
        "cannot_listen",
        f"This machine cannot listen on {where}.",
        remedy="Choose an address of this machine and a free port with --listen-host and --listen-port.",
    )


def _quiet_libp2p() -> None:
    """libp2p logs what strangers do wrong as errors, some of it through the root logger, straight to stderr. It speaks
    when LIBP2P_DEBUG is set, as it documents; what matters is logged here."""
    if not os.environ.get("LIBP2P_DEBUG"):
        logging.getLogger("libp2p").setLevel(logging.CRITICAL)
