"""Requests between peers: one stream each, ``[name, body]`` out, ``["ok", body]`` or ``["refused", code, sentence]``
back (docs/PROTOCOL.md section 2). This module does not know what a request means.

`Dispatcher` is the answering side without any stream, so that a network in memory behaves as the real one does.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
import trio

from tallymesh.errors import CallerError, RemoteError, TallymeshError
from tallymesh.exchange import MAX_BODY_BYTES, Source
from tallymesh.text import sentence as one_line
from tallymesh_node.interfaces import Handler
from tallymesh_node.network.arriving import Arriving
from tallymesh_node.network.connections import Connections
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.places import block_of
from tallymesh_node.network.wire import Wire, expect_protocol, opening

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = MAX_BODY_BYTES + 1024  # the name and msgpack's own bytes
MAX_NAME = 64
MAX_SENTENCE = 1000  # of a refusal: a person reads it
HANDLED_PER_PEER = 32  # a peer's requests answered at once; a payer with 16 leases at one worker has a few under way
HANDLED = 256  # of all peers together: each may hold a body of 1 MiB
# Of all peers at one address: a key costs nothing, so that one machine could else take all of them as eight peers. Two
# busy nodes behind one NAT have enough. Programs of this machine are its owner's: a network of its own runs there.
HANDLED_PER_ADDRESS = 2 * HANDLED_PER_PEER
ASKED_PER_PEER = 32  # our own, so that an honest peer never sees `busy` from one as strict as we are
ASKED = 256
READ_S = 10.0  # for the request's bytes once the stream is open: 1 MiB at 100 kB/s
ANSWER_S = 30.0  # for the other side to take our answer
HANDLE_S = 120.0  # a handler that takes longer is cut; the longest wait of the protocol between two peers is 60 s

Request = tuple[str, bytes]
_decode_request = msgspec.msgpack.Decoder(Request)
_decode_answer = msgspec.msgpack.Decoder()
_encoder = msgspec.msgpack.Encoder()


def encode_request(name: str, body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise CallerError("too_large", f"A body of {len(body)} bytes is over {MAX_BODY_BYTES}; send it as a blob.")
    return _encoder.encode([name, body])


def encode_refusal(code: str, sentence: str) -> bytes:
    return _encoder.encode(["refused", one_line(code, MAX_NAME), one_line(sentence, MAX_SENTENCE)])


def encode_answer(body: bytes) -> bytes:
    return _encoder.encode(["ok", body])


def decode_answer(data: bytes, *, peer: str) -> bytes:
    """The body in an answer; RemoteError with the other side's code, or `bad_message`."""
    try:
        answer = _decode_answer.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        answer = []
    match answer:
        case ["ok", bytes(body)] if len(body) <= MAX_BODY_BYTES:
            return body
        case ["refused", str(code), str(sentence)]:
            raise RemoteError(one_line(code, MAX_NAME), one_line(sentence, MAX_SENTENCE), peer=peer)
    raise RemoteError("bad_message", "The peer's answer is not one of the protocol.", peer=peer)


class Dispatcher:
    """Who answers which request. Bytes in, bytes out; whatever comes in and whatever a handler raises, `answer` raises
    nothing but cancellation, and no peer keeps more than HANDLED_PER_PEER handlers busy."""

    def __init__(self, counters: Counters, served: Callable[[str], None] = lambda peer: None) -> None:
        self._counters = counters
        self._served = served  # told who was answered, and not refused
        self._handlers: dict[str, Handler] = {}
        self._running: Counter[str] = Counter()  # by peer
        self._running_from: Counter[str] = Counter()  # by address, of other machines

    def serve(self, name: str, handler: Handler) -> None:
        assert name not in self._handlers, name
        assert len(name) <= MAX_NAME, name
        self._handlers[name] = handler

    async def answer(self, peer: str, frame: bytes, host: str = "") -> bytes:
        """`host` is the peer's address; "" where it is not known, and has no share."""
        try:
            name, body = _decode_request.decode(frame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._refuse("bad_message", "Not a request: [name, body] was expected.")
        handler = self._handlers.get(name)
        if handler is None:
            return self._refuse("unknown_request", f"This peer does not answer {name[:MAX_NAME]!r}.")
        if len(body) > MAX_BODY_BYTES:
            return self._refuse("too_large", f"A body of {len(body)} bytes is over {MAX_BODY_BYTES}.")
        if self._running[peer] >= HANDLED_PER_PEER or self._running.total() >= HANDLED:
            return self._refuse("busy", "Too many requests at once; try again in a moment.")
        where = _address(host)
        if self._running_from[where] >= HANDLED_PER_ADDRESS:
            return self._refuse("busy", "Too many requests at once from one address; try again in a moment.")
        counted = [(self._running, peer), *([(self._running_from, where)] if where else [])]
        for counts, key in counted:
            counts[key] += 1
        try:
            return await self._handle(handler, peer, name, body)
        finally:
            for counts, key in counted:
                counts[key] -= 1
                if not counts[key]:
                    del counts[key]

    async def _handle(self, handler: Handler, peer: str, name: str, body: bytes) -> bytes:
        try:
            with trio.fail_after(HANDLE_S):
                answer = await handler(peer, body)
        except TallymeshError as error:
            return self._refuse(error.code, error.sentence)
        except Exception:
            log.exception("the handler of %r failed for %s", name, peer)
            return self._refuse("internal", "The peer failed to answer; its log says why.")
        if len(answer) > MAX_BODY_BYTES:
            log.error("the answer to %r has %d bytes", name, len(answer))
            return self._refuse("internal", "The peer's answer is too large to send.")
        self._counters.requests_served += 1
        self._served(peer)
        return encode_answer(answer)

    def _refuse(self, code: str, sentence: str) -> bytes:
        self._counters.requests_refused += 1
        return encode_refusal(code, sentence)


def _address(host: str) -> str:
    """For which a share is counted; "" for this machine's own, and where it is not known."""
    machine = block_of(host)[1]
    return "" if not host or host == "::1" or machine.startswith("127.") else machine


class Requests:
    """`PeerNetwork.request` and `serve` over libp2p streams of one protocol."""

    def __init__(self, topic: str, connections: Connections, counters: Counters) -> None:
        self.protocol = f"/{topic}/request/1"
        self._connections = connections
        self._counters = counters
        self._dispatcher = Dispatcher(counters, connections.use)
        self._asked = Limits(ASKED, ASKED_PER_PEER)
        self._arriving = Arriving()
        self.serve = self._dispatcher.serve

    async def request(self, peer: Source, name: str, body: bytes, *, timeout_s: float) -> bytes:
        """The answer's body. RemoteError: `unreachable`, `timeout`, `bad_message`, or the other side's refusal."""
        frame = opening(self.protocol, encode_request(name, body))
        self._counters.requests_sent += 1
        with trio.move_on_after(timeout_s):
            async with self._asked.slot(peer.peer_id):
                wire = Wire(await self._connections.open_stream(peer))
                try:
                    await wire.send(frame)
                    await expect_protocol(wire, self.protocol)
                    answer = await wire.read_frame(MAX_FRAME_BYTES)
                finally:
                    await wire.abort()
                body = decode_answer(answer, peer=peer.peer_id)
                self._connections.use(peer.peer_id)
                return body
        raise RemoteError("timeout", f"No answer to {name!r} within {timeout_s:g} s.", peer=peer.peer_id)

    async def accept(self, wire: Wire) -> None:
        """Serve one inbound stream: the router's handler."""
        frame: bytes | None = None
        try:
            with trio.fail_after(READ_S), self._arriving.one(wire.peer_id, wire.host) as part:
                wire.arrived = partial(self._arriving.add, part)
                wire.arrived(wire.ahead)
                frame = await wire.read_frame(MAX_FRAME_BYTES)
        except trio.TooSlowError:
            return
        except RemoteError as error:
            if error.code == "too_large":
                await self._send(wire, encode_refusal(error.code, error.sentence))
            return
        if frame is None:
            wire.rest()
            await self._send(wire, encode_refusal("busy", "Too much is on its way here; try again in a moment."))
            return
        whole = frame
        answer = await unless_gone(wire, lambda: self._dispatcher.answer(wire.peer_id, whole, wire.host))
        if answer is not None:
            await self._send(wire, answer)

    async def _send(self, wire: Wire, answer: bytes) -> None:
        with trio.move_on_after(ANSWER_S):
            await wire.send_frame(answer)


async def unless_gone(wire: Wire, work: Callable[[], Awaitable[bytes]]) -> bytes | None:
    """The result of `work`, or None where the caller went away first: then it is cancelled. `work` raises nothing."""
    result: bytes | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with suppress(RemoteError):
                await wire.read_some()  # nothing more is due: this is the end of the stream, or a peer that babbles
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        result = await work()
        nursery.cancel_scope.cancel()
    return result


class Limits:
    """At most so many at once in all and for each key; the others wait. Keys that nobody uses are forgotten."""

    def __init__(self, total: int, each: int) -> None:
        self._total = trio.Semaphore(total)
        self._each = each
        self._by_key: dict[str, trio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[None]:
        mine = self._by_key.setdefault(key, trio.Semaphore(self._each))
        self._users[key] += 1
        try:
            async with mine, self._total:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._by_key[key]
