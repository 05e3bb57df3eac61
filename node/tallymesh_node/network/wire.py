"""One libp2p stream as our protocols use it: frames with a length before them, errors mapped, one round trip to open.

The choice of the protocol (multistream-select) travels together with the first frame, and its confirmation with the
first answer, as in go-libp2p's lazy negotiation. This module does not know what the frames say, nor any deadline:
callers set those.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.io.exceptions import IOException
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError

from tallymesh.errors import RemoteError
from tallymesh_node.network.mends import shielded

READ_BYTES = 64 * 1024  # one yamux frame
MAX_LINE = 16_383  # two bytes of varint; the longest name of a protocol in use has 120 bytes
MAX_TRIES = 8  # protocols that one stream may ask for; libp2p's own clients ask for 1 to 3
LINGER_S = 5.0  # how long the other side may take to read our last bytes
CLOSE_S = 2.0  # a reset is one small frame; a peer that takes none is cut by the muxer
_LENGTH = struct.Struct(">I")
_MULTISTREAM = b"/multistream/1.0.0\n"
_NOT_HERE = b"na\n"
# What libp2p raises where a stream or its connection is gone. (Its other stream errors are IOExceptions.)
_BROKEN = (IOException, MuxedConnError, MuxedStreamError, trio.BrokenResourceError, trio.ClosedResourceError)


class Wire:
    """A stream to or from one peer. RemoteError: `unreachable` where it broke or ended early, `too_large`."""

    def __init__(self, stream: INetStream) -> None:
        self.peer_id: str = stream.muxed_conn.peer_id.to_base58()
        self.stream = stream
        address = stream.muxed_conn.get_remote_address()
        self.host: str = address[0] if address else ""
        self.arrived: Callable[[int], None] = lambda size: None  # told of bytes that wait here for more of them
        self._received = bytearray()
        self._unsent = b""

    async def send(self, data: bytes) -> None:
        data, self._unsent = self._unsent + data, b""
        try:
            await self.stream.write(data)
        except _BROKEN as error:
            raise self._broken(error) from None

    async def send_frame(self, body: bytes) -> None:
        await self.send(_LENGTH.pack(len(body)) + body)

    def hold(self, data: bytes) -> None:
        """Send `data` together with what is sent next."""
        self._unsent += data

    @property
    def ahead(self) -> int:
        """Bytes that were read and that nobody has asked for yet."""
        return len(self._received)

    async def read_some(self) -> bytes:
        """What has arrived, at least one byte, or b"" at the end of the stream."""
        if not self._received:
            return await self._receive()
        data = bytes(self._received)
        self._received.clear()
        return data

    async def read_exactly(self, size: int) -> bytes:
        """`size` bytes. Memory is taken as they arrive, not as they are announced."""
        while len(self._received) < size:
            data = await self._receive()
            if not data:
                raise RemoteError("unreachable", "The peer ended the stream early.", peer=self.peer_id)
            self._received += data
            self.arrived(len(data))
        data = bytes(memoryview(self._received)[:size])
        del self._received[:size]
        return data

    async def read_frame(self, limit: int) -> bytes:
        (size,) = _LENGTH.unpack(await self.read_exactly(_LENGTH.size))
        if size > limit:
            raise RemoteError("too_large", f"A frame of {size} bytes is over {limit}.", peer=self.peer_id)
        return await self.read_exactly(size)

    async def read_line(self) -> bytes:
        """One line of multistream-select: a varint, then as many bytes, the last one a newline."""
        (size,) = await self.read_exactly(1)
        if size >= 0x80:
            (high,) = await self.read_exactly(1)
            size = size & 0x7F | high << 7
        if not 0 < size <= MAX_LINE:
            raise RemoteError("too_large", f"A line of {size} bytes in a stream's opening.", peer=self.peer_id)
        return await self.read_exactly(size)

    def rest(self) -> bytes:
        """What was read ahead; the stream is somebody else's from here on."""
        data = bytes(self._received)
        self._received.clear()
        return data

    async def _receive(self) -> bytes:
        try:
            data: bytes = await self.stream.read(READ_BYTES)
            return data
        except StreamEOF:
            return b""
        except _BROKEN as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> RemoteError:
        return RemoteError("unreachable", f"The stream broke ({error or type(error).__name__}).", peer=self.peer_id)

    async def finish(self) -> None:
        """Nothing more will be sent; the other side may still be reading."""
        with suppress(RemoteError, *_BROKEN):
            if self._unsent:
                await self.send(b"")
            await self.stream.close()

    async def abort(self) -> None:
        """Free the stream on both sides at once. Also the right end once all is read: a stream that only one side has
        closed stays in the muxer's books. Never raises but for cancellation, and acts under cancellation too."""
        with shielded(CLOSE_S), suppress(*_BROKEN):
            await self.stream.reset()


def opening(protocol: str, frame: bytes) -> bytes:
    """The first bytes of a stream: multistream-select's two lines and our first frame, in one write."""
    return b"".join((_line(_MULTISTREAM), _line(protocol.encode() + b"\n"), _LENGTH.pack(len(frame)), frame))


async def expect_protocol(wire: Wire, protocol: str) -> None:
    """Read the other side's two lines; RemoteError `unreachable` where it does not speak `protocol`."""
    for expected in (_MULTISTREAM, protocol.encode() + b"\n"):
        if await wire.read_line() != expected:
            raise RemoteError(
                "unreachable",
                "The peer does not speak this network's protocol.",
                peer=wire.peer_id,
                remedy="It belongs to another network, or runs another version.",
            )


Handler = Callable[[Wire], Any]  # a coroutine function: serves one stream, which is freed when it returns


class Router:
    """Which handler a new inbound stream goes to: one of ours, or one of libp2p's own (identify, ping, gossip).

    In the place of libp2p's negotiation, which reads a line of any length into memory and needs six small writes.
    """

    def __init__(self, theirs: Mapping[TProtocol | None, StreamHandlerFn | None]) -> None:
        self._theirs = theirs
        self._ours: dict[str, Handler] = {}

    def serve(self, protocol: str, handler: Handler) -> None:
        assert protocol not in self._ours, protocol
        self._ours[protocol] = handler

    async def accept(self, stream: INetStream, *, timeout_s: float) -> None:
        """Serve one inbound stream to its end. Raises whatever the handlers raise: guard it (mends.guard_streams)."""
        wire = Wire(stream)
        protocol = ""
        try:
            with trio.move_on_after(timeout_s), suppress(RemoteError):
                protocol = await self._negotiate(wire)
            stream.set_protocol(TProtocol(protocol))
            if protocol in self._ours:
                await self._ours[protocol](wire)
                await wire.finish()
            elif protocol:
                theirs = self._theirs[TProtocol(protocol)]
                assert theirs is not None
                await wire.send(b"")
                rest = wire.rest()
                await theirs(_ReadAhead(stream, rest) if rest else stream)
            else:
                await wire.finish()  # what was said is still to be read: that nothing asked for is here
            # A stream that only we closed stays in the muxer's books for as long as the connection lives: wait for the
            # other side's end, which comes once it has read ours, and then free it.
            with trio.move_on_after(LINGER_S):
                while await wire.read_some():
                    pass
        except RemoteError:
            pass  # it broke: the usual end of a stream whose other side has what it wanted
        finally:
            await wire.abort()

    async def _negotiate(self, wire: Wire) -> str:
        if await wire.read_line() != _MULTISTREAM:
            raise RemoteError("bad_message", "Not multistream-select.", peer=wire.peer_id)
        wire.hold(_line(_MULTISTREAM))
        for _ in range(MAX_TRIES):
            if not wire.ahead:
                await wire.send(b"")  # the other side waits for our line before it names a protocol
            line = await wire.read_line()
            name = line[:-1].decode("utf-8", "replace")
            if name in self._ours or self._theirs.get(TProtocol(name)) is not None:
                wire.hold(_line(line))
                return name
            wire.hold(_line(_NOT_HERE))
        raise RemoteError("bad_message", "No protocol in common.", peer=wire.peer_id)


class _ReadAhead:
    """A stream of which some bytes were read already."""

    def __init__(self, stream: INetStream, rest: bytes) -> None:
        self._stream = stream
        self._rest = rest

    async def read(self, n: int | None = None) -> bytes:
        if not self._rest:
            data: bytes = await self._stream.read(n)
            return data
        size = len(self._rest) if n is None or n < 0 else n
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _line(line: bytes) -> bytes:
    size = len(line)
    return (bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])) + line
