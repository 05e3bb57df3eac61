"""Direct sockets between two peers: a TCP connection of its own, authenticated by libp2p's Noise handshake and then
handed to threads, with AES-256-GCM records in the place of Noise's 64 KiB messages and of yamux.

The dialling side connects to the port that the peer listens on anyway, so nothing more must be open to the world. In
the place where two hosts agree on a multiplexer they agree on `direct_protocol`; each then sends 32 secret bytes
inside Noise, and the keys of both directions come from the two (HKDF-SHA256). Whoever is not the peer that was dialled
fails the handshake and never learns them. Nonces count up and keys live as long as the socket: a record that is
changed, left out, repeated or moved ends it. This module does not know what travels.

A record: 4 bytes, big endian, the length of what follows; the ciphertext with its 16 bytes of tag. A part of a file is
as many records of PIECE_BYTES as it fills, and one of the rest: one side opens one while the other seals the next.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from libp2p.abc import IRawConnection, ISecureConn
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from tallymesh.errors import RemoteError
from tallymesh_node.limits.bandwidth import UNPACED, Pace
from tallymesh_node.network.mends import MendedRaw, MendedTCP, shielded

log = logging.getLogger(__name__)

RECORD_BYTES = 1024 * 1024  # of plain bytes: the longest frame, a blob's list of chunks, has half of it
PIECE_BYTES = 256 * 1024  # a quarter of a chunk: smaller ones cost more of both sides, larger ones make one side wait
ASK_BYTES = 16  # of a frame that asks for a part of a file
SECRET_BYTES = 32
TAG_BYTES = 16
DIAL_S = 4.0  # one address: TCP, Noise and the secrets take 15 ms nearby and six round trips far away
CLOSE_S = 2.0
ACCEPTED_PER_PEER = 8  # sockets: an honest peer takes 4 blobs at once, and those it ended may not be noticed yet …
ACCEPTED = 32  # … and of all peers: each may keep a thread busy, and two records of memory
DIALLED = 64  # of our own that work at once; the others wait
_LENGTH = struct.Struct(">I")
_MIN_RTT_AT = 148  # of tcpi_min_rtt in linux/tcp.h's struct tcp_info; in microseconds
_NONCE = struct.Struct(">IQ")
# Apart, so that no stranger's sockets keep ours from a thread. Accepted ones never wait: there are no more of them.
_accepted_threads = trio.CapacityLimiter(ACCEPTED)
_dialled_threads = trio.CapacityLimiter(DIALLED)

Span = tuple[int, int]  # offset and size, bytes
Ask = tuple[bytes, int]  # a frame to send, none where it is empty, and how many bytes answer it

T = TypeVar("T")


def direct_protocol(topic: str) -> str:
    return f"/{topic}/direct/2"


class DirectSocket:
    """Records to and from one authenticated peer. RemoteError: `unreachable` where it broke, `bad_message` where a
    record is not the peer's, `too_large`. One task sends and receives; `abort` may come from any."""

    def __init__(
        self,
        plain: socket.socket,
        peer_id: str,
        keys: tuple[bytes, bytes],  # what we send with, what the peer sends with
        threads: trio.CapacityLimiter,
        closed: Callable[[], None],
    ) -> None:
        plain.setblocking(True)  # `abort` wakes a thread that waits
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer_id = peer_id
        self._socket = plain
        self._out, self._in = (AESGCM(key) for key in keys)
        self._threads = threads
        self._closed = closed  # called once
        self._sent = 0
        self._received = 0
        self._aborted = False
        self._busy = False
        self._deadline = float("inf")  # time.monotonic; of the turn in a long visit to a thread
        # Kept between records: fresh memory for each costs as much as its encryption.
        self._sealed = bytearray()
        self._sealed_in = bytearray()
        self._plain = bytearray()

    # -- as a Wire -----------------------------------------------------------------------------------------------------

    async def send_frame(self, body: bytes) -> None:
        assert len(body) <= RECORD_BYTES, len(body)
        await self._in_thread(lambda: self._send(memoryview(body)))

    async def read_frame(self, limit: int) -> bytes:
        return await self._in_thread(lambda: bytes(self._receive(limit)))

    async def give(
        self,
        descriptor: int,
        first: Span | None,
        place: Callable[[bytes], Span],
        each_s: float,
        pace: Pace = UNPACED,
    ) -> NoReturn:
        """Answer each frame with the part of a file that `place` reads out of it, beginning with the part `first`, each
        when `pace` lets it go; in one visit to a thread, where a chunk costs no turn of trio's loop. Ends with
        RemoteError when the peer leaves or `place` raises it, TooSlowError when a turn takes longer than `each_s`."""

        def work() -> NoReturn:
            span = first
            while True:
                self._deadline = time.monotonic() + each_s
                if span is None:
                    span = place(bytes(self._receive(ASK_BYTES)))
                pace.wait_in_thread(span[1])
                self._deadline = time.monotonic() + each_s
                offset, left = span
                while left:
                    piece = self._room(min(left, PIECE_BYTES))
                    if os.preadv(descriptor, [piece], offset) != len(piece):
                        raise RemoteError("unreachable", "The blob's file became shorter.", peer=self.peer_id)
                    self._send(piece)
                    offset, left = offset + len(piece), left - len(piece)
                span = None

        never: NoReturn = await self._in_thread(work)
        return never

    async def take(
        self, ask: Callable[[], Ask | None], use: Callable[[memoryview, int], None], each_s: float, ahead: int
    ) -> None:
        """Send what `ask` returns and pass the bytes that answer, of exactly the size that it says, to `use` as they
        come (all so far, and where the new ones begin), until `ask` returns None; with as many questions on their way
        as `ahead` says. In one visit to a thread, where both are called. TooSlowError where an answer takes longer than
        `each_s`."""

        def work() -> None:
            sizes: deque[int] = deque()
            while True:
                self._deadline = time.monotonic() + each_s  # not before: what `use` took is not the peer's fault
                while len(sizes) < ahead and (asked := ask()) is not None:
                    if asked[0]:
                        self._send(memoryview(asked[0]))
                    sizes.append(asked[1])
                if not sizes:
                    return
                size = sizes.popleft()
                data = self._room(size)
                for at in range(0, size, PIECE_BYTES):
                    end = min(size, at + PIECE_BYTES)
                    if len(self._receive(end - at, data[at:end])) != end - at:
                        raise RemoteError("bad_message", "A record of another size than asked.", peer=self.peer_id)
                    use(data[:end], at)

        await self._in_thread(work)

    def round_trip_s(self) -> float:
        """The shortest that the kernel saw: its own answers, so that busy processes do not lengthen it. 0 where it
        does not say."""
        if sys.platform != "linux":
            return 0.0
        told = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT_AT + 4)
        if len(told) < _MIN_RTT_AT + 4:
            return 0.0
        (microseconds,) = struct.unpack_from("=I", told, _MIN_RTT_AT)
        return float(microseconds) / 1e6

    async def abort(self) -> None:
        """Close at once. Never raises; safe while a thread works on the socket, which ends then."""
        self._aborted = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._aborted and not self._busy and self._socket.fileno() != -1:
            self._socket.close()
            self._closed()

    # -- in threads ----------------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Cancelled, the socket is shut, and the thread ends with it."""
        if self._aborted:
            raise self._broken("it was closed")
        done: list[T] = []
        failed: list[Exception] = []

        def run() -> None:
            try:
                done.append(work())
            except Exception as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._shut_when_cancelled, nursery.cancel_scope)
            self._busy = True
            self._deadline = float("inf")
            try:
                await trio.to_thread.run_sync(run, limiter=self._threads)
            finally:
                self._busy = False
                self._close_if_idle()
            nursery.cancel_scope.cancel()
        if failed:
            error = failed[0]
            if isinstance(error, TimeoutError):
                raise trio.TooSlowError from None
            if isinstance(error, OSError):
                raise self._broken(error.strerror or type(error).__name__) from None
            raise error
        return done[0]

    async def _shut_when_cancelled(self, ended: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            if not ended.cancel_called:
                self._aborted = True
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _send(self, data: memoryview) -> None:
        size = len(data) + TAG_BYTES
        if len(self._sealed) < size + _LENGTH.size:
            self._sealed = bytearray(size + _LENGTH.size)
        whole = memoryview(self._sealed)[: size + _LENGTH.size]
        _LENGTH.pack_into(whole, 0, size)
        self._out.encrypt_into(_NONCE.pack(0, self._sent), data, None, whole[_LENGTH.size :])
        self._sent += 1
        self._set_timeout()
        self._socket.sendall(whole)

    def _receive(self, limit: int, into: memoryview | None = None) -> memoryview:
        """The next record's bytes, at most `limit`: at the beginning of `into`, or valid until the record after it."""
        head = bytearray(_LENGTH.size)
        self._fill(memoryview(head))
        (size,) = _LENGTH.unpack(head)
        if not TAG_BYTES <= size <= limit + TAG_BYTES:
            raise RemoteError("too_large", f"A record of {size} bytes is over {limit}.", peer=self.peer_id)
        if len(self._sealed_in) < size:
            self._sealed_in = bytearray(size)
        sealed = memoryview(self._sealed_in)[:size]
        self._fill(sealed)
        plain_size = size - TAG_BYTES
        plain = self._room(plain_size) if into is None else into[:plain_size]
        try:
            self._in.decrypt_into(_NONCE.pack(0, self._received), sealed, None, plain)
        except InvalidTag:
            raise RemoteError("bad_message", "A record was changed on its way.", peer=self.peer_id) from None
        self._received += 1
        return plain

    def _set_timeout(self) -> None:
        if self._deadline != float("inf"):
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
        elif self._socket.gettimeout() is not None:
            self._socket.settimeout(None)

    def _room(self, size: int) -> memoryview:
        if len(self._plain) < size:
            self._plain = bytearray(size)
        return memoryview(self._plain)[:size]

    def _fill(self, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            self._set_timeout()
            read = self._socket.recv_into(buffer[done:])
            if not read:
                raise self._broken("the peer closed it")
            done += read

    def _broken(self, why: str) -> RemoteError:
        return RemoteError("unreachable", f"The direct socket broke ({why}).", peer=self.peer_id)


class Direct:
    """Both ends of making one: `dial`, and `take_over` for MendedUpgrader. Who serves what is accepted is set later."""

    def __init__(self, topic: str) -> None:
        self.protocol = TProtocol(direct_protocol(topic))
        self.serve: Callable[[DirectSocket], None] | None = None  # at once; it aborts the socket in the end
        self.banned: Callable[[ID], bool] = lambda peer_id: False
        self._accepted: Counter[str] = Counter()  # open ones, by peer

    async def dial(self, swarm: Swarm, address: Multiaddr, peer_id: ID) -> DirectSocket:
        """RemoteError `unreachable` where nobody answers there, or not as that peer."""
        peer = peer_id.to_base58()
        with trio.move_on_after(DIAL_S):
            try:
                raw = await MendedTCP().dial(Multiaddr(f"{address}/p2p/{peer}"))
            except OpenConnectionError as error:
                raise RemoteError("unreachable", f"{address} does not answer.", peer=peer) from error
            try:
                secure = await swarm.upgrader.upgrade_security(raw, True, peer_id)
                await MultiselectClient().select_one_of([self.protocol], MultiselectCommunicator(secure))
                keys = await _agree(secure, dialled=True)
                return DirectSocket(_own(raw), peer, keys, _dialled_threads, lambda: None)
            except (BaseLibp2pError, OSError, EOFError, ValueError) as error:
                raise RemoteError("unreachable", f"{address} gives no direct socket.", peer=peer) from error
            finally:
                with shielded(CLOSE_S):
                    await raw.close()
        raise RemoteError("unreachable", f"{address} was too slow.", peer=peer)

    async def take_over(self, secure: ISecureConn, peer_id: ID) -> None:
        """An inbound connection whose dialler asked for a direct socket."""
        peer = peer_id.to_base58()
        if self.serve is None or self.banned(peer_id):
            return
        if self._accepted[peer] >= ACCEPTED_PER_PEER or self._accepted.total() >= ACCEPTED:
            log.info("%s has no direct socket: too many are open", peer)
            return
        self._accepted[peer] += 1
        try:
            keys = await _agree(secure, dialled=False)
            made = DirectSocket(_own(_raw(secure)), peer, keys, _accepted_threads, lambda: self._free(peer))
        except BaseException:
            self._free(peer)
            raise
        try:
            self.serve(made)
        except BaseException:
            await made.abort()
            raise

    def _free(self, peer: str) -> None:
        self._accepted[peer] -= 1
        if not self._accepted[peer]:
            del self._accepted[peer]


async def _agree(secure: ISecureConn, *, dialled: bool) -> tuple[bytes, bytes]:
    """A secret each way inside Noise; the keys for what we send and for what the peer sends."""
    mine = secrets.token_bytes(SECRET_BYTES)
    if dialled:
        await secure.write(mine)
    theirs = await secure.read(SECRET_BYTES)
    if len(theirs) != SECRET_BYTES:
        raise EOFError
    if not dialled:
        await secure.write(mine)
    both = mine + theirs if dialled else theirs + mine
    keys = HKDF(SHA256(), 64, salt=None, info=b"tallymesh direct socket 1").derive(both)
    return (keys[:32], keys[32:]) if dialled else (keys[32:], keys[:32])


def _own(raw: IRawConnection) -> socket.socket:
    """A second descriptor of the connection: libp2p closes its own, and trio's belongs to its loop. ValueError where
    records came before the keys were agreed: they were read with libp2p's bytes, and would be missing."""
    assert isinstance(raw, MendedRaw)
    assert isinstance(raw.stream, TrioTCPStream)
    if raw.ahead:
        raise ValueError(f"{len(raw.ahead)} bytes came too early")
    return socket.socket(fileno=os.dup(raw.stream.stream.socket.fileno()))


def _raw(secure: ISecureConn) -> IRawConnection:
    """What Noise reads from: libp2p has no public way down."""
    found: IRawConnection = secure.conn.read_writer.read_write_closer
    return found
