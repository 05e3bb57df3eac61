"""Multiaddrs: which can be dialled or listened on, which are worth telling others. Nothing is opened here."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence

import psutil
from multiaddr import Multiaddr
from multiaddr.exceptions import MultiaddrError

from tallymesh.errors import CallerError, RemoteError
from tallymesh.exchange import Source
from tallymesh_node.network.keys import parse_peer_id

MAX_ADDRESSES = 8  # of one peer that are tried; a machine with more interfaces lists the useful ones first
MAX_ADDRESS_CHARACTERS = 200
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


def split_address(text: str) -> Source:
    """A multiaddr with the peer's id (``/ip4/1.2.3.4/tcp/4001/p2p/12D3…``). CallerError: people type these."""
    address, found, peer_id = text.partition("/p2p/")
    try:
        parse_peer_id(peer_id)
        usable = dialable([address])
    except RemoteError:
        usable = []
    if not found or not usable:
        raise CallerError(
            "bad_address",
            f"{text[:MAX_ADDRESS_CHARACTERS]!r} is not the address of a peer.",
            remedy="Write it like /ip4/1.2.3.4/tcp/4001/p2p/12D3Koo…",
        )
    return Source(peer_id=peer_id, addresses=(address,))


def dialable(addresses: Iterable[str]) -> list[Multiaddr]:
    """Those that can be dialled by TCP, at most MAX_ADDRESSES; strangers write these, so nothing raises."""
    found: list[Multiaddr] = []
    for text in addresses:
        if len(found) == MAX_ADDRESSES:
            break
        if len(text) > MAX_ADDRESS_CHARACTERS:
            continue
        address = _parse(text)
        if address is not None:
            found.append(address)
    return found


def _parse(text: str) -> Multiaddr | None:
    """``/HOST/…/tcp/PORT`` and nothing more, or None."""
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
    except (MultiaddrError, ValueError, KeyError):
        return None
    return address if len(names) == 2 and names[0] in _HOSTS and names[1] == "tcp" else None


def tcp_address(text: str) -> Multiaddr:
    """An address that a person typed, or CallerError."""
    address = _parse(text)
    if address is None:
        raise CallerError(
            "bad_address",
            f"{text[:MAX_ADDRESS_CHARACTERS]!r} is not a TCP address.",
            remedy="Write it like /ip4/0.0.0.0/tcp/4001.",
        )
    return address


def host_and_port(address: str) -> tuple[str, int]:
    _, _, host, _, port = address.split("/")[:5]
    return host, int(port)


def advertised(listening: Sequence[str], interfaces: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """The addresses that others can dial: for 0.0.0.0 and :: those of the machine's interfaces (name -> IPs), public
    and private ones, loopback only where there is nothing else."""
    found: dict[str, None] = {}
    for text in listening:
        host, port = host_and_port(text)
        if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
            found[text] = None
            continue
        kind = "ip4" if host == "0.0.0.0" else "ip6"  # noqa: S104
        hosts = [ip for ips in (interfaces or _interfaces()).values() for ip in ips if (":" in ip) == (kind == "ip6")]
        outside = [ip for ip in hosts if not ip.startswith("127.") and ip != "::1" and not ip.startswith("fe80")]
        found.update(dict.fromkeys(f"/{kind}/{ip}/tcp/{port}" for ip in outside or hosts))
    return list(found)


def _interfaces() -> dict[str, list[str]]:
    return {
        name: [a.address.split("%")[0] for a in addresses if a.family in (socket.AF_INET, socket.AF_INET6)]
        for name, addresses in psutil.net_if_addrs().items()
    }
