"""Giving blobs to other peers: ``/{topic}/blob/1``, one stream each.

[id, offset, ticket] -> [size, hashes of the chunks] or a refusal, then the bytes from `offset`. This module does not
know who may have what: `authorize` does.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from io import FileIO

import msgspec
import trio
from blake3 import blake3

from tallymesh.errors import RemoteError
from tallymesh.ids import BlobId
from tallymesh_node.blobs.store import CHUNK_BYTES, BlobStore
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.requests import Limits, decode_answer, encode_answer, encode_refusal
from tallymesh_node.network.wire import Wire

log = logging.getLogger(__name__)

MAX_BLOB_BYTES = 16 * 1024**3  # 16,384 chunks: the list of their hashes is 512 KiB
MAX_TICKET_BYTES = 4096  # an AuditOrder has 600
MAX_QUESTION_BYTES = MAX_TICKET_BYTES + 256
MAX_HEADER_BYTES = MAX_BLOB_BYTES // CHUNK_BYTES * 34 + 256
SENDING = 16  # streams served at once, each with a chunk in memory …
SENDING_PER_PEER = 4  # … and for one peer
READ_S = 10.0  # for the question
QUEUE_S = 10.0  # a question waits this long for its turn
SEND_S = 60.0  # for the other side to take a chunk
LISTS = 64  # lists of chunk hashes kept
HASH_PIECES = 8  # chunks hashed before others get a turn

Authorize = Callable[[str, BlobId, bytes], bool]  # (peer id, blob, ticket) -> whether it may have the blob; at once


class Question(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    blob: bytes
    offset: int
    ticket: bytes


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    size: int
    chunks: list[bytes]  # BLAKE3 of each chunk


_questions = msgspec.msgpack.Decoder(Question)
_headers = msgspec.msgpack.Decoder(Header)


def protocol_name(network_topic: str) -> str:
    return f"/{network_topic}/blob/1"


class BlobServer:
    """Serves the store's blobs. `serve` is the handler of the protocol's streams."""

    def __init__(self, store: BlobStore, authorize: Authorize, counters: Counters) -> None:
        self._store = store
        self._authorize = authorize
        self._counters = counters
        self._sending = Limits(SENDING, SENDING_PER_PEER)
        self._lists: OrderedDict[BlobId, list[bytes]] = OrderedDict()

    async def serve(self, wire: Wire) -> None:
        try:
            with trio.fail_after(READ_S):
                question = decode_question(await wire.read_frame(MAX_QUESTION_BYTES), wire.peer_id)
            self._judge(wire.peer_id, question)
        except trio.TooSlowError:
            return
        except RemoteError as error:
            await self._refuse(wire, error.code, error.sentence)
            return
        with trio.move_on_after(QUEUE_S) as queue:
            async with self._sending.slot(wire.peer_id):
                queue.deadline = float("inf")
                await self._send(wire, question)
                return
        await self._refuse(wire, "busy", "Too many blobs are being sent; try again in a moment.")

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

    async def _send(self, wire: Wire, question: Question) -> None:
        blob = BlobId(question.blob)
        with self._store.open(blob) as file:  # stays readable if it is deleted meanwhile
            chunks = await self._chunk_hashes(blob, file)
            size = os.fstat(file.fileno()).st_size
            with trio.fail_after(SEND_S):
                await wire.send_frame(encode_answer(msgspec.msgpack.encode(Header(size, chunks))))
            for offset in range(question.offset, size, CHUNK_BYTES):
                data = os.pread(file.fileno(), CHUNK_BYTES, offset)
                with trio.fail_after(SEND_S):
                    await wire.send(data)
                self._counters.blob_bytes_sent += len(data)

    async def _chunk_hashes(self, blob: BlobId, file: FileIO) -> list[bytes]:
        known = self._lists.get(blob)
        if known is not None:
            self._lists.move_to_end(blob)
            return known
        chunks: list[bytes] = []
        while data := os.pread(file.fileno(), CHUNK_BYTES, len(chunks) * CHUNK_BYTES):
            chunks.append(blake3(data).digest())
            if len(chunks) % HASH_PIECES == 0:
                await trio.lowlevel.checkpoint()
        self._lists[blob] = chunks
        while len(self._lists) > LISTS:
            self._lists.popitem(last=False)
        return chunks

    async def _refuse(self, wire: Wire, code: str, sentence: str) -> None:
        with trio.move_on_after(SEND_S):
            await wire.send_frame(encode_refusal(code, sentence))


def decode_question(frame: bytes, peer: str) -> Question:
    try:
        question = _questions.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RemoteError("bad_message", "Not [id, offset, ticket].", peer=peer) from None
    if len(question.blob) != 32 or question.offset < 0 or question.offset % CHUNK_BYTES:
        raise RemoteError("bad_message", "A blob's id has 32 bytes, and an offset is a whole chunk's.", peer=peer)
    return question


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
