"""Blobs from other peers: chunk by chunk, resumed after a break, from several sources one after the other.

The source's own list of chunk hashes is held against each chunk as it arrives, so what breaks or lies is left after one
chunk and nothing that was right is sent again; the list itself is proved when the whole blob has the hash that is its
name, and a source whose list was false is not believed again. (BLAKE3's inner tree would prove each chunk by the name
alone, but its Python package does not give access to it.) This module does not know what blobs contain.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import trio
from blake3 import blake3

from tallymesh.errors import RemoteError, TallymeshError
from tallymesh.exchange import Source
from tallymesh.ids import BlobId, short
from tallymesh_node.blobs.serving import (
    MAX_HEADER_BYTES,
    Authorize,
    BlobServer,
    Header,
    Question,
    decode_header,
    protocol_name,
)
from tallymesh_node.blobs.store import CHUNK_BYTES, BlobStore, BlobWriter
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.wire import Wire, expect_protocol

log = logging.getLogger(__name__)

MAX_SOURCES = 16  # of one blob; a payer, its worker and a few holders
FETCHING = 16  # transfers at once
ANSWER_S = 15.0  # for a source's header: it may have to hash the blob first
CHUNK_S = 20.0  # for one chunk, 50 kB/s: a slower source is left
ATTEMPTS = 3  # of one source without any progress
PAUSE_S = 0.25  # before a source that broke is asked again


class Streams(Protocol):
    """What transfer needs of Libp2pNetwork."""

    @property
    def topic(self) -> str: ...

    @property
    def peer_id(self) -> str: ...

    @property
    def counters(self) -> Counters: ...

    def serve_streams(self, protocol: str, handler: Callable[[Wire], object]) -> None: ...

    async def open_wire(self, peer: Source, protocol: str, frame: bytes) -> Wire: ...


class _Offer(msgspec.Struct):
    """A source of one transfer, with the ticket to show there."""

    source: Source
    ticket: bytes
    failures: int = 0  # in a row, without any progress of the transfer
    error: TallymeshError | None = None


class _Transfer:
    """One blob on its way, however many wait for it."""

    def __init__(self, blob: BlobId, me: str) -> None:
        self.blob = blob
        self.me = me
        self.offers: list[_Offer] = []
        self.waiting = 0
        self.done = trio.Event()
        self.error: TallymeshError | None = None
        self.scope = trio.CancelScope()
        self.writer: BlobWriter | None = None
        self.hashes: list[bytes] = []  # of the chunks that arrived, a prefix of the blob
        self.furthest = 0  # the most chunks that there ever were: progress is what goes beyond

    def add(self, sources: Sequence[Source], ticket: bytes) -> None:
        for source in sources:
            mine = source.peer_id == self.me  # whoever sends us a list of holders may well name us
            if (
                not mine
                and len(self.offers) < MAX_SOURCES
                and all(o.source.peer_id != source.peer_id for o in self.offers)
            ):
                self.offers.append(_Offer(source, ticket))

    def next_offer(self) -> _Offer | None:
        """The source that failed least, the first of equals; None when all gave up."""
        return min((o for o in self.offers if o.failures < ATTEMPTS), key=lambda o: o.failures, default=None)

    def reasons(self) -> str:
        found = (f"{o.source.peer_id[-6:]}: {o.error.sentence}" for o in self.offers if o.error is not None)
        return " ".join(found) or "No source was named."

    def discard(self) -> None:
        if self.writer is not None:
            self.writer.discard()
        self.writer = None
        self.hashes.clear()


class BlobExchange:
    """`interfaces.Blobs`: the store of this node, and fetching into it. Made by `open_blobs`."""

    def __init__(self, network: Streams, store: BlobStore, authorize: Authorize, nursery: trio.Nursery) -> None:
        self._protocol = protocol_name(network.topic)
        self.store = store
        self._network = network
        self._counters = network.counters
        self._nursery = nursery
        self._transfers: dict[BlobId, _Transfer] = {}
        self._fetching = trio.Semaphore(FETCHING)
        network.serve_streams(self._protocol, BlobServer(store, authorize, network.counters).serve)

    def has(self, blob: BlobId) -> bool:
        return self.store.has(blob)

    def path(self, blob: BlobId) -> Path:
        return self.store.path(blob)

    def get(self, blob: BlobId) -> bytes:
        return self.store.get(blob)

    def put(self, data: bytes) -> BlobId:
        return self.store.put(data)

    async def sync(self) -> None:
        """All that was put so far is on the disk when this returns. LocalError `disk` where it cannot be."""
        await trio.to_thread.run_sync(self.store.sync)

    # -- fetching ------------------------------------------------------------------------------------------------------

    async def fetch(self, blob: BlobId, sources: Sequence[Source], *, ticket: bytes, timeout_s: float) -> None:
        """Make the blob present. RemoteError `not_found` where no source gave it (with each one's reason), `timeout`;
        LocalError where the disk is full. Concurrent calls for one blob share one transfer and all their sources."""
        if self.store.has(blob):
            return
        transfer = self._transfers.get(blob)
        if transfer is None:
            transfer = self._transfers[blob] = _Transfer(blob, self._network.peer_id)
            self._nursery.start_soon(self._run, transfer)
        transfer.add(sources, ticket)
        transfer.waiting += 1
        try:
            with trio.move_on_after(timeout_s):
                await transfer.done.wait()
        finally:
            transfer.waiting -= 1
            if not transfer.waiting:
                transfer.scope.cancel()
                self._forget(transfer)
        if transfer.error is not None:
            raise transfer.error
        if not transfer.done.is_set():
            raise RemoteError("timeout", f"Blob {short(blob)} did not arrive within {timeout_s:g} s.")

    def _forget(self, transfer: _Transfer) -> None:
        if self._transfers.get(transfer.blob) is transfer:
            del self._transfers[transfer.blob]

    async def _run(self, transfer: _Transfer) -> None:
        with transfer.scope:
            try:
                async with self._fetching:
                    await self._gather(transfer)
            except TallymeshError as error:
                transfer.error = error
            finally:
                transfer.discard()
                self._forget(transfer)
            transfer.done.set()

    async def _gather(self, transfer: _Transfer) -> None:
        while (offer := transfer.next_offer()) is not None:
            if offer.failures:
                await trio.sleep(PAUSE_S)
            try:
                if await self._fetch_from(transfer, offer):
                    return
                offer.failures += 1  # it must be asked again, from further back
            except trio.TooSlowError:
                offer.failures += 1
                offer.error = RemoteError("timeout", "It was too slow.", peer=offer.source.peer_id)
            except RemoteError as error:
                again = error.code in ("unreachable", "busy", "timeout")
                offer.failures = offer.failures + 1 if again else ATTEMPTS
                offer.error = error
                log.info("blob %s from %s: %s", short(transfer.blob), offer.source.peer_id, error.sentence)
        raise RemoteError("not_found", f"Blob {short(transfer.blob)} could not be had. {transfer.reasons()}")

    async def _fetch_from(self, transfer: _Transfer, offer: _Offer) -> bool:
        """Take what is missing from one source. True when the blob is present, False where the source must be asked
        again from further back; RemoteError says why the source is of no use (`wrong_bytes`: it lied)."""
        peer = offer.source.peer_id
        question = Question(transfer.blob, len(transfer.hashes) * CHUNK_BYTES, offer.ticket)
        with trio.fail_after(ANSWER_S):
            wire = await self._network.open_wire(offer.source, self._protocol, msgspec.msgpack.encode(question))
        try:
            with trio.fail_after(ANSWER_S):
                await expect_protocol(wire, self._protocol)
                header = decode_header(await wire.read_frame(MAX_HEADER_BYTES), transfer.blob, peer)
            if not self._agree(transfer, header):
                return False
            assert transfer.writer is not None
            for index in range(len(transfer.hashes), len(header.chunks)):
                with trio.fail_after(CHUNK_S):
                    data = await wire.read_exactly(min(CHUNK_BYTES, header.size - index * CHUNK_BYTES))
                digest = blake3(data).digest()
                if digest != header.chunks[index]:
                    raise RemoteError("wrong_bytes", "It sent other bytes than it announced.", peer=peer)
                transfer.writer.write(index * CHUNK_BYTES, data)
                transfer.hashes.append(digest)
                self._counters.blob_bytes_received += len(data)
                if len(transfer.hashes) > transfer.furthest:
                    transfer.furthest = len(transfer.hashes)
                    offer.failures = 0
        finally:
            await wire.abort()
        if not transfer.writer.finish():
            raise RemoteError("wrong_bytes", "What it announced is not this blob.", peer=peer)
        transfer.writer = None
        return True

    def _agree(self, transfer: _Transfer, header: Header) -> bool:
        """Whether what has arrived fits this source's list. Where not, one of the sources is wrong, and only the whole
        blob can tell which: go on with this one's, keeping what both agree on."""
        if transfer.writer is not None and transfer.writer.size != header.size:
            transfer.discard()
            return False
        if transfer.writer is None:
            transfer.writer = self.store.writer(transfer.blob, header.size)
        same = 0
        for mine, its in zip(transfer.hashes, header.chunks, strict=False):
            if mine != its:
                break
            same += 1
        if same == len(transfer.hashes):
            return True
        del transfer.hashes[same:]
        return False


@asynccontextmanager
async def open_blobs(network: Streams, store: BlobStore, authorize: Authorize) -> AsyncIterator[BlobExchange]:
    """Serve the store's blobs to whom `authorize` allows, and fetch others into it, until the block ends."""
    async with trio.open_nursery() as nursery:
        yield BlobExchange(network, store, authorize, nursery)
        nursery.cancel_scope.cancel()
