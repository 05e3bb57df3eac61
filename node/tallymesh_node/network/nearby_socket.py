"""The local network as it is: one UDP socket of multicast DNS (RFC 6762), shared with whatever else on this machine
speaks it, and the interfaces at which it listens. What is said there is nearby.py's business, and who is dialled the
connections'.

IPv4 only: libp2p's addresses carry no zone, without which an IPv6 address of a link cannot be dialled.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

import psutil
import trio

from tallymesh_node.network.host import Libp2pNetwork
from tallymesh_node.network.nearby import Nearby, Place
from tallymesh_node.network.nearby_packets import MAX_PACKET, is_private

log = logging.getLogger(__name__)

GROUP: Final = "224.0.0.251"
PORT: Final = 5353
MAX_PLACES: Final = 8  # interfaces; a machine with more runs containers
RETRY_S: Final = 1.0  # after the socket failed under a reader


class LanSocket:
    """`nearby.Lan` over a real socket, which `listen` opens and whoever made this closes with `close`."""

    def __init__(self) -> None:
        self._socket: trio.socket.SocketType | None = None
        self._places: tuple[Place, ...] = ()
        self._opened = trio.Event()
        self._saying = trio.Lock()  # the interface of a packet is a setting of the socket

    def places(self) -> Sequence[Place]:
        up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
        found = [
            Place(each.address, each.netmask or "255.255.255.255")
            for name, addresses in psutil.net_if_addrs().items()
            if name.partition(":")[0] in up  # an alias of an interface has a label of its own
            for each in addresses
            if each.family == socket.AF_INET and is_private(each.address)
        ]
        return sorted(found, key=lambda place: int(IPv4Address(place.address)))[:MAX_PLACES]

    async def listen(self, places: Sequence[Place]) -> str:
        self.close()
        self._places = tuple(places)
        if not places:
            return ""
        made = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)  # RFC 6762, section 11
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)  # other nodes of this machine
            await made.bind((GROUP, PORT))  # nothing that is sent to this machine alone is ever read
        except OSError as error:
            made.close()
            return f"the port of multicast DNS cannot be opened ({error.strerror})"
        joined = [place for place in places if _join(made, place)]
        if not joined:
            made.close()
            return "no interface of a local network takes multicast"
        self._socket = made
        self._opened.set()
        return ""

    async def say(self, place: Place, packet: bytes) -> None:
        async with self._saying:
            if self._socket is not None:
                try:
                    self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(place.address))
                    await self._socket.sendto(packet, (GROUP, PORT))
                except (OSError, trio.ClosedResourceError) as error:  # the interface is going: the next look sees it
                    log.debug("nothing said at %s: %s", place.address, error)

    async def hear(self) -> tuple[bytes, str]:
        while True:
            await self._opened.wait()
            opened = self._socket
            if opened is None:  # closed again since
                continue
            try:
                data, (machine, *_) = await opened.recvfrom(MAX_PACKET + 1)  # one byte over: a reader sees that it was
            except (OSError, trio.ClosedResourceError) as error:
                log.debug("nothing heard: %s", error)
                if opened is self._socket:
                    await trio.sleep(RETRY_S)
                continue
            if self._on_link(machine):
                return data, machine

    def _on_link(self, machine: str) -> bool:
        """RFC 6762, section 11: what comes from elsewhere is ignored."""
        with suppress(ValueError):
            found = IPv4Address(machine)
            return any(found in IPv4Interface(f"{place.address}/{place.mask}").network for place in self._places)
        return False

    def close(self) -> None:
        """Who waits in `hear` goes on with the next socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._opened = trio.Event()


def _join(made: trio.socket.SocketType, place: Place) -> bool:
    """A tunnel may take no multicast: that is no reason to hear nobody at home."""
    member = socket.inet_aton(GROUP) + socket.inet_aton(place.address)
    try:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    except OSError as error:
        log.debug("nobody is heard at %s: %s", place.address, error.strerror)
        return False
    return True


@asynccontextmanager
async def open_nearby(network: Libp2pNetwork) -> AsyncIterator[Nearby]:
    """Say and hear who is near until the block ends; peers become candidates for `network`'s connections."""
    with closing(LanSocket()) as lan:
        connections = network.connections
        nearby = Nearby(
            lan,
            network.topic,
            network.peer_id,
            lambda: network.listening,
            found=connections.near,
            lost=connections.not_near,
        )
        await nearby.look()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nearby.run)
            yield nearby
            nursery.cancel_scope.cancel()
