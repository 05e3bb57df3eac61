"""Giving blobs to other peers: ``/{topic}/blob/2``, a libp2p stream or a direct socket for each taker of each blob.

[id, chunk, ticket] -> [size, hashes of the chunks] or a refusal, then the chunk of that number where there is one (-1
asks for none); then, as often as the taker likes, the number of a chunk -> that chunk. A taker asks for one when it has
use for it: nothing is pushed, so what a slow one holds up here is a chunk. This module does not know who may have what:
`authorize` does.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec
import trio
from blake3 import blake3

from tallymesh.errors import RemoteError
from tallymesh.ids import BlobId
from tallymesh_node.blobs.disk import CHUNK_BYTES
from tallymesh_node.blobs.pipes import Pipe
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.limits.bandwidth import Pace
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.direct import Span
from tallymesh_node.network.requests import Limits, decode_answer, encode_answer, encode_refusal

log = logging.getLogger(__name__)

MAX_BLOB_BYTES = 16 * 1024**3  # 16,384 chunks: the list of their hashes is 512 KiB
MAX_TICKET_BYTES = 4096  # an AuditOrder has 600
MAX_QUESTION_BYTES = MAX_TICKET_BYTES + 256
MAX_HEADER_BYTES = MAX_BLOB_BYTES // CHUNK_BYTES * 34 + 256
SENDING = 16  # takers served at once, each with a chunk in memory …
SENDING_PER_PEER = 4  # … and for one peer
READ_S = 10.0  # for the question
QUEUE_S = 10.0  # a question waits this long for its turn
SEND_S = 60.0  # for the other side to take a chunk and to ask for the next one

Authorize = Callable[[str, BlobId, bytes], bool]  # (peer id, blob, ticket) -> whether it may have the blob; at once


class Question(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    blob: bytes
    chunk: int  # to be sent with the header; -1 for none
    ticket: bytes


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    size: int
    chunks: list[bytes]  # BLAKE3 of each chunk


_questions = msgspec.msgpack.Decoder(Question)
_headers = msgspec.msgpack.Decoder(Header)
_asks = msgspec.msgpack.Decoder(int)


def protocol_name(network_topic: str) -> str:
    return f"/{network_topic}/blob/2"


class BlobServer:
    """Serves the store's blobs. `serve` is the handler of the protocol's streams and of direct sockets."""

    def __init__(self, store: BlobStore, authorize: Authorize, counters: Counters) -> None:
        self._store = store
        self._authorize = authorize
        self._counters = counters
        self._sending = Limits(SENDING, SENDING_PER_PEER)
        self._counting = threading.Lock()
        self.pace = Pace()  # of all that is sent; its owner may limit it

    async def serve(self, pipe: Pipe) -> None:
        """Until the taker leaves. RemoteError where it left in the middle of something, or asked nonsense."""
        try:
            with trio.fail_after(READ_S):
                question = decode_question(await pipe.read_frame(MAX_QUESTION_BYTES), pipe.peer_id)
            self._judge(pipe.peer_id, question)
        except trio.TooSlowError:
            return
        except RemoteError as error:
            await self._refuse(pipe, error.code, error.sentence)
            return
        with trio.move_on_after(QUEUE_S) as queue:
            async with self._sending.slot(pipe.peer_id):
                queue.deadline = float("inf")
                with suppress(trio.TooSlowError):
                    await self._send(pipe, question)
                return
        await self._refuse(pipe, "busy", "Too many blobs are being sent; try again in a moment.")

    def _judge(self, peer: str, question: Question) -> None:
        """Permission first: who may not have a blob does not learn whether it is here."""
        try:
            allowed = self._authorize(peer, BlobId(question.blob), question.ticket)
        except Exception:
            log.exception("the authorize hook failed for %s", peer)
            allowed = False
        if not allowed:
            raise RemoteError("not_allowed", "The ticket does not give a right to this blob.", peer=peer)
        if not self._store.has(BlobId(question.blob)):
            raise RemoteError("not_found", "The blob is not here.", peer=peer)

    async def _send(self, pipe: Pipe, question: Question) -> None:
        blob = BlobId(question.blob)
        try:
            if self._store.size(blob) > CHUNK_BYTES:
                hashes = await trio.to_thread.run_sync(self._store.chunk_hashes, blob)
            else:
                hashes = self._store.chunk_hashes(blob)
            file = self._store.open(blob)  # stays readable if it is deleted from here on
        except KeyError:
            await self._refuse(pipe, "not_found", "The blob is not here.")
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            with trio.fail_after(SEND_S):
                await pipe.send_frame(encode_answer(msgspec.msgpack.encode(Header(size, hashes))))

            def span(index: int) -> Span:
                offset = index * CHUNK_BYTES
                length = min(CHUNK_BYTES, size - offset)
                with self._counting:  # direct sockets call from their threads
                    self._counters.blob_bytes_sent += length
                return offset, length

            def place(frame: bytes) -> Span:
                return span(decode_ask(frame, len(hashes), pipe.peer_id))

            first = span(question.chunk) if 0 <= question.chunk < len(hashes) else None
            await pipe.give(file.fileno(), first, place, SEND_S, self.pace)

    async def _refuse(self, pipe: Pipe, code: str, sentence: str) -> None:
        with trio.move_on_after(SEND_S):
            await pipe.send_frame(encode_refusal(code, sentence))


def decode_question(frame: bytes, peer: str) -> Question:
    try:
        question = _questions.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RemoteError("bad_message", "Not [id, chunk, ticket].", peer=peer) from None
    if len(question.blob) != 32 or question.chunk < -1:
        raise RemoteError("bad_message", "A blob's id has 32 bytes, and chunks count from 0.", peer=peer)
    return question


def decode_ask(frame: bytes, chunks: int, peer: str) -> int:
    """The number of a chunk of a blob that has so many, or RemoteError `bad_message`."""
    try:
        index = _asks.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        index = -1
    if not 0 <= index < chunks:
        raise RemoteError("bad_message", "Not the number of a chunk of this blob.", peer=peer)
    return index


def decode_header(frame: bytes, blob: BlobId, peer: str) -> Header:
    """What a source says of the blob, or RemoteError: its refusal, `bad_message`, or `wrong_bytes`."""
    try:
        header = _headers.decode(decode_answer(frame, peer=peer))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RemoteError("bad_message", "Not [size, hashes of the chunks].", peer=peer) from None
    if not 0 <= header.size <= MAX_BLOB_BYTES or len(header.chunks) != -(-header.size // CHUNK_BYTES):
        raise RemoteError("bad_message", "The list of chunk hashes does not fit the size.", peer=peer)
    if any(len(chunk) != 32 for chunk in header.chunks):
        raise RemoteError("bad_message", "A hash has 32 bytes.", peer=peer)
    if header.size <= CHUNK_BYTES and b"".join(header.chunks or [blake3().digest()]) != blob:
        raise RemoteError("wrong_bytes", "A blob of one chunk has that chunk's hash for its name.", peer=peer)
    return header
