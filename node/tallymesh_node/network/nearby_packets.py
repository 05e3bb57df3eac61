"""What peers on one local network say to each other by multicast DNS: packets made and read, as libp2p's discovery has
them (https://github.com/libp2p/specs/blob/master/discovery/mdns.md), after RFC 6762 and 6763.

Anybody on the same Wi-Fi writes these. Reading never raises and believes three things of a record only: that its sender
has the address from which the packet came, which port to dial there, and which peer id to expect; the Noise handshake
proves or refutes the id. Wire format and its bounds are zeroconf's. This module opens no socket and reads no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final

import msgspec
from zeroconf import (  # type: ignore[attr-defined] # public names of the package that its list leaves out
    DNSIncoming,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSText,
)

from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh_node.network.addresses import dialable, host_and_port
from tallymesh_node.network.keys import parse_peer_id

SERVICE: Final = "_p2p._udp.local."
SERVICES: Final = "_services._dns-sd._udp.local."  # asked by who wants to know which services there are
NETWORK_KEY: Final = "tallymesh"  # of the text that names the network; libp2p's own peers have none
ADDRESS_KEY: Final = "dnsaddr"

MAX_PACKET: Final = 1500  # what an Ethernet frame carries; ours have 300 bytes, and bigger ones are of other services
MAX_ADDRESSES: Final = 8  # read of one record; one of them is used, the sender's own
TTL_S: Final = 120  # RFC 6762's for records that name a host; also the longest that a stranger's counts

_PTR, _TXT, _ANY, _IN, _FLUSH = 12, 16, 255, 1, 0x8000
_ANSWER: Final = 0x8400  # flags: a response, with authority
# Where home and office networks are (RFC 1918), and what machines give themselves without a router (RFC 3927).
_PRIVATE: Final = tuple(IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"))


class Heard(msgspec.Struct, frozen=True):
    """A peer of our network, as a packet had it. `ttl_s` of 0: it says goodbye."""

    source: Source
    ttl_s: int


class Packet(msgspec.Struct, frozen=True):
    """What a packet means to us: whether it asks who is there, and who says to be."""

    asks: bool = False
    peers: tuple[Heard, ...] = ()


def is_private(address: str) -> bool:
    """Of a local network, and of no interface that loops back."""
    try:
        found = IPv4Address(address)
    except AddressValueError:
        return False
    return any(found in network for network in _PRIVATE)


def question() -> bytes:
    out = DNSOutgoing(0)
    out.add_question(DNSQuestion(SERVICE, _PTR, _IN))
    return out.packets()[0]


def mark(topic: str) -> str:
    """Of a network, as records have it: members know it again, and who does not know the network reads no name."""
    return hashlib.blake2b(topic.encode(), digest_size=16, person=b"tallymesh-nearby").hexdigest()


def statement(name: str, topic: str, source: Source, ttl_s: int = TTL_S) -> bytes:
    """Who is here, for all who listen. `name` is a label that only this run of the node uses, as libp2p asks for; a
    `ttl_s` of 0 withdraws it."""
    full = f"{name}.{SERVICE}"
    texts = [f"{NETWORK_KEY}={mark(topic)}"]
    texts += [f"{ADDRESS_KEY}={address}/p2p/{source.peer_id}" for address in source.addresses[:MAX_ADDRESSES]]
    out = DNSOutgoing(_ANSWER)
    out.add_answer_at_time(DNSPointer(SERVICES, _PTR, _IN, ttl_s, SERVICE), 0)
    out.add_answer_at_time(DNSPointer(SERVICE, _PTR, _IN, ttl_s, full), 0)
    out.add_additional_answer(DNSText(full, _TXT, _IN | _FLUSH, ttl_s, _text(texts)))
    packets = out.packets()
    assert len(packets) == 1, "a peer id, a network's mark and a few addresses fit"
    return packets[0]


def read(data: bytes, origin: str, topic: str) -> Packet:
    """`origin` is the address from which the packet came. Records of other networks, and addresses of anybody but the
    sender, are left out: a packet makes nobody dial a third machine."""
    if len(data) > MAX_PACKET or not is_private(origin):
        return Packet()
    packet = DNSIncoming(data)
    if not packet.valid:
        return Packet()
    if packet.is_query():
        names = {each.name.lower() for each in packet.questions if each.type in (_PTR, _ANY)}
        return Packet(asks=not names.isdisjoint((SERVICE, SERVICES)))
    found = []
    for record in packet.answers():
        if isinstance(record, DNSText) and record.name.lower().endswith(f".{SERVICE}"):
            source = _source(_texts(record.text), origin, topic)
            if source is not None:
                found.append(Heard(source, min(record.ttl, TTL_S)))
    return Packet(peers=tuple(found))


def _source(texts: Sequence[str], origin: str, topic: str) -> Source | None:
    if f"{NETWORK_KEY}={mark(topic)}" not in texts:
        return None
    given = [text.removeprefix(f"{ADDRESS_KEY}=") for text in texts if text.startswith(f"{ADDRESS_KEY}=")]
    for text in given[:MAX_ADDRESSES]:
        address, _, peer_id = text.partition("/p2p/")
        try:
            parse_peer_id(peer_id)
        except RemoteError:
            continue
        for each in dialable([address]):
            host, port = host_and_port(str(each))
            if host == origin and port:
                return Source(peer_id=peer_id, addresses=(str(each),))
    return None


def _text(texts: Sequence[str]) -> bytes:
    """A TXT record's bytes: each text behind its length (RFC 6763, section 6.1)."""
    return b"".join(bytes([len(text.encode())]) + text.encode() for text in texts)


def _texts(data: bytes) -> list[str]:
    found, at = [], 0
    while at < len(data):
        end = at + 1 + data[at]
        found.append(data[at + 1 : end].decode(errors="replace"))
        at = end
    return found
