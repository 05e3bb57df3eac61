"""An honest node that writes down every plaintext byte it receives from anybody, and everything that it signs.

``python -m cheats.tapped_node FILE`` with a node's environment. FILE holds records, in the order of what happened:
``received`` with the connection and the bytes, ``signed`` with the message's type and its wire form, ``opened`` with
every Open that is decoded. Tapped are the decrypted Noise messages of libp2p (requests, answers, gossip, blobs:
everything), the same bytes once more by stream (a hash could lie across two frames of the multiplexer), and what its
sockets carry in the clear (the chain's answers).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import trio

RECEIVED, SIGNED, OPENED = 1, 2, 3
_HEAD = struct.Struct(">BQI")


class Record(NamedTuple):
    """`channel`: the connection or stream that the bytes came by; of a signature, the message's type."""

    kind: int
    channel: int
    data: bytes


def read(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, channel, size = _HEAD.unpack(head)
            data = file.read(size)
            if len(data) < size:
                return  # being written
            yield Record(kind, channel, data)


class Tap:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._channels: dict[int, tuple[object, int]] = {}

    def received(self, source: object, data: bytes) -> None:
        # The object is kept, so that its id names nothing else later.
        _, channel = self._channels.setdefault(id(source), (source, len(self._channels)))
        self._write(RECEIVED, channel, data)

    def signed(self, kind: int, data: bytes) -> None:
        self._write(SIGNED, kind, data)

    def opened(self, data: bytes) -> None:
        self._write(OPENED, 0, data)

    def _write(self, kind: int, channel: int, data: bytes) -> None:
        self._file.write(_HEAD.pack(kind, channel, len(data)) + data)
        self._file.flush()


def install(tap: Tap) -> None:
    """Put the tap under everything by which bytes come in; nothing above it is changed."""
    from libp2p.security.noise.io import NoiseTransportReadWriter

    from tallymesh import wire
    from tallymesh.messages import Open
    from tallymesh_ledger.keys import AccountKey
    from tallymesh_node.network.wire import Wire

    decrypt, receive, sign = NoiseTransportReadWriter.decrypt, Wire._receive, AccountKey.sign
    receive_some, decode = trio.SocketStream.receive_some, wire.decode

    def tapped_decrypt(self: Any, data: bytes) -> bytes:
        plain: bytes = decrypt(self, data)
        tap.received(self, plain)
        return plain

    async def tapped_receive(self: Any) -> bytes:
        plain: bytes = await receive(self)
        tap.received(self, plain)
        return plain

    async def tapped_receive_some(self: Any, max_bytes: int | None = None) -> bytes | bytearray:
        data = await receive_some(self, max_bytes)
        tap.received(self, bytes(data))
        return data

    def tapped_sign(self: Any, domains: Any, message: Any) -> Any:
        signed = sign(self, domains, message)
        tap.signed(message.TYPE, signed.body)
        return signed

    def tapped_decode(data: bytes, expected: Any, *, peer: str = "") -> Any:
        signed = decode(data, expected, peer=peer)
        if expected is Open:
            tap.opened(signed.body)
        return signed

    wire.decode = tapped_decode
    NoiseTransportReadWriter.decrypt = tapped_decrypt
    Wire._receive = tapped_receive  # type: ignore[method-assign]
    trio.SocketStream.receive_some = tapped_receive_some  # type: ignore[method-assign]
    AccountKey.sign = tapped_sign  # type: ignore[method-assign]


if __name__ == "__main__":
    from tallymesh_node import config
    from tallymesh_node.daemon import Node, run_node

    with Path(sys.argv[1]).open("ab") as opened:
        install(Tap(opened))
        trio.run(run_node, Node(config.load()))
