"""Blobs from other peers: chunk by chunk, from several sources at once, over a direct socket where a peer can be
dialled and over a libp2p stream otherwise; what an earlier try left or another blob has is not fetched.

A source's own list of chunk hashes is held against each chunk as it arrives, so what breaks or lies is left after one
chunk and nothing that was right is sent again; the list itself is proved when the whole blob has the hash that is its
name, and a source whose list was false is not believed again. (BLAKE3's inner tree would prove each chunk by the name
alone, but its Python package does not give access to it.) This module does not know what blobs contain.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import trio
from blake3 import blake3

from tallymesh.errors import LocalError, RemoteError, TallymeshError
from tallymesh.exchange import Source
from tallymesh.ids import BlobId, short
from tallymesh_node.blobs.disk import CHUNK_BYTES
from tallymesh_node.blobs.pipes import Pipe, StreamPipe
from tallymesh_node.blobs.plan import Plan
from tallymesh_node.blobs.serving import (
    MAX_HEADER_BYTES,
    SENDING_PER_PEER,
    Authorize,
    BlobServer,
    Header,
    Question,
    decode_header,
    protocol_name,
)
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.blobs.writer import BlobWriter
from tallymesh_node.limits.bandwidth import Pace
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.direct import Ask, DirectSocket
from tallymesh_node.network.requests import Limits
from tallymesh_node.network.wire import Wire, expect_protocol

log = logging.getLogger(__name__)

MAX_SOURCES = 16  # of one blob; a payer, its worker and a few holders
FETCHING = 16  # transfers at once
PARALLEL = 4  # sources of one blob at once; with FETCHING no more than the direct sockets that may work at once
PARALLEL_BYTES = 8 * CHUNK_BYTES  # missing; less comes from one source before others are asked
DIRECT_BYTES = 4 * CHUNK_BYTES  # missing; for less the handshake (15 ms of both sides) costs more than it saves
NO_DIRECT_S = 300.0  # a peer that gave no direct socket is not asked for one again for so long
MAX_NO_DIRECT = 256  # such peers remembered; one that was forgotten is asked
FAR_S = 0.005  # of round trip: for each of them one more chunk is asked for ahead, enough for 200 MiB/s …
AHEAD = 16  # … with so many at most. Nearby none: whoever is killed has at most one chunk sent again
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

    def serve_direct(self, handler: Callable[[DirectSocket], None]) -> None: ...

    async def open_direct(self, peer: Source) -> DirectSocket: ...


class _Offer(msgspec.Struct, eq=False):
    """A source of one transfer, with the ticket to show there."""

    source: Source
    ticket: bytes
    failures: int = 0  # in a row, without any progress of the transfer
    error: TallymeshError | None = None
    busy: bool = False  # it is being taken from
    agreed: bool = False  # the list in use is what it said
    aside: bool = False  # it said another one, and waits until that in use turned out false


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
        self.plan: Plan | None = None
        self.tasks = 0  # that take from a source
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
        """The source that failed least, the first of equals; None when all gave up or are taken from."""
        free = (o for o in self.offers if o.failures < ATTEMPTS and not o.busy and not o.aside)
        return min(free, key=lambda o: o.failures, default=None)

    @property
    def nothing_to_ask(self) -> bool:
        return self.plan is not None and self.plan.missing_bytes == 0

    def reasons(self) -> str:
        found = (f"{o.source.peer_id[-6:]}: {o.error.sentence}" for o in self.offers if o.error is not None)
        return " ".join(found) or "No source was named."

    def blame(self) -> None:
        """The list in use was false: whoever gave it lied."""
        for offer in self.offers:
            if offer.agreed:
                offer.failures = ATTEMPTS
                offer.error = RemoteError(
                    "wrong_bytes", "What it announced is not this blob.", peer=offer.source.peer_id
                )

    def drop_list(self) -> None:
        """Go on with another source's list. What arrived stays in the file, and is kept where both agree on it."""
        self.plan = None
        for offer in self.offers:
            offer.agreed = offer.aside = False

    def end(self) -> None:
        """Keep what arrived where it may be of use; nothing of a blob that is here."""
        if self.writer is None:
            return
        if self.plan is not None and self.plan.arrived:
            self.writer.keep()
        else:
            self.writer.discard()
        self.writer = None


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
        self._asking = Limits(FETCHING * PARALLEL, SENDING_PER_PEER)  # so that an honest source never says `busy`
        self._no_direct: OrderedDict[str, float] = OrderedDict()  # peer -> until when
        self._counting = threading.Lock()
        self._server = BlobServer(store, authorize, network.counters)
        self.make_room: Callable[[int], Awaitable[None]] | None = (
            None  # before so many bytes come; LocalError `no_room`
        )
        self.pace_in, self.pace_out = Pace(), self._server.pace
        network.serve_streams(self._protocol, lambda wire: self._server.serve(StreamPipe(wire)))
        network.serve_direct(lambda socket: nursery.start_soon(self._serve_direct, socket))

    def has(self, blob: BlobId) -> bool:
        """Whoever asks is about to use it: it does not go for room from under them."""
        self.store.touch(blob)
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
        if self.has(blob):
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
                transfer.end()
                self._forget(transfer)
            transfer.done.set()

    async def _gather(self, transfer: _Transfer) -> None:
        while True:
            async with trio.open_nursery() as nursery:
                self._start(transfer, nursery)
            if transfer.error is not None:
                raise transfer.error
            if transfer.plan is not None and transfer.plan.complete:
                assert transfer.writer is not None
                if await trio.to_thread.run_sync(transfer.writer.finish):
                    transfer.writer = None
                    if len(transfer.plan.hashes) > 1:
                        await trio.to_thread.run_sync(self.store.lists.put, transfer.blob, transfer.plan.hashes)
                    return
                transfer.blame()
            elif not any(offer.aside for offer in transfer.offers):
                failed = [offer.error for offer in transfer.offers if offer.error is not None]
                if failed and all(isinstance(error, LocalError) for error in failed):
                    raise failed[0]
                raise RemoteError("not_found", f"Blob {short(transfer.blob)} could not be had. {transfer.reasons()}")
            transfer.drop_list()

    def _start(self, transfer: _Transfer, nursery: trio.Nursery) -> None:
        transfer.tasks += 1
        nursery.start_soon(self._take_from_sources, transfer, nursery)

    async def _take_from_sources(self, transfer: _Transfer, nursery: trio.Nursery) -> None:
        """From one after the other, until nothing is left to ask for or nobody to ask."""

        def known() -> None:
            """The list is: others may help where much is missing."""
            plan = transfer.plan
            if plan is not None and plan.missing_bytes >= PARALLEL_BYTES:
                for _ in transfer.offers[transfer.tasks : PARALLEL]:
                    self._start(transfer, nursery)

        try:
            while not transfer.nothing_to_ask and (offer := transfer.next_offer()) is not None:
                offer.busy = True
                try:
                    await self._try(transfer, offer, known)
                finally:
                    offer.busy = False
        except LocalError as error:
            transfer.error = error
            nursery.cancel_scope.cancel()
        finally:
            transfer.tasks -= 1

    async def _try(self, transfer: _Transfer, offer: _Offer, known: Callable[[], None]) -> None:
        try:
            if offer.failures:
                await trio.sleep(PAUSE_S)
            async with self._asking.slot(offer.source.peer_id):
                await self._fetch_from(transfer, offer, known)
        except trio.TooSlowError:
            offer.failures += 1
            offer.error = RemoteError("timeout", "It was too slow.", peer=offer.source.peer_id)
        except RemoteError as error:
            again = error.code in ("unreachable", "busy", "timeout")
            offer.failures = offer.failures + 1 if again else ATTEMPTS
            offer.error = error
            log.info("blob %s from %s: %s", short(transfer.blob), offer.source.peer_id, error.sentence)
        except LocalError as error:
            if transfer.plan is not None:
                raise
            offer.failures, offer.error = ATTEMPTS, error  # no room for what it announces, which may be a lie

    async def _fetch_from(self, transfer: _Transfer, offer: _Offer, known: Callable[[], None]) -> None:
        """Take what is missing from one source, or put it aside. RemoteError says why it is of no use (`wrong_bytes`:
        it lied)."""
        # The first chunk comes with the list, unless something of the blob may be here.
        eager = transfer.plan is None and transfer.writer is None and not self.store.has_part(transfer.blob)
        pipe = await self._open_stream(transfer, offer, 0 if eager else -1)
        try:
            header = await self._header(pipe, transfer.blob)
            if not await self._agree(transfer, offer, header):
                return
            plan = transfer.plan
            assert plan is not None
            known()
            if eager and header.chunks:
                await self._take(transfer, offer, pipe, unasked=True)
            if plan.missing_bytes >= DIRECT_BYTES and (direct := await self._open_direct(offer)) is not None:
                await pipe.abort()
                pipe = direct
                with trio.fail_after(ANSWER_S):
                    await pipe.send_frame(msgspec.msgpack.encode(Question(transfer.blob, -1, offer.ticket)))
                again = await self._header(pipe, transfer.blob)
                if not plan.same(again.size, again.chunks):
                    raise RemoteError("wrong_bytes", "It changed its list of chunks.", peer=pipe.peer_id)
            await self._take(transfer, offer, pipe)
        finally:
            await pipe.abort()

    async def _open_stream(self, transfer: _Transfer, offer: _Offer, chunk: int) -> Pipe:
        question = msgspec.msgpack.encode(Question(transfer.blob, chunk, offer.ticket))
        with trio.fail_after(ANSWER_S):
            wire = await self._network.open_wire(offer.source, self._protocol, question)
            try:
                await expect_protocol(wire, self._protocol)
            except BaseException:
                await wire.abort()
                raise
        return StreamPipe(wire)

    async def _open_direct(self, offer: _Offer) -> DirectSocket | None:
        peer = offer.source.peer_id
        if self._no_direct.get(peer, 0.0) > trio.current_time():
            return None
        try:
            return await self._network.open_direct(offer.source)
        except RemoteError as error:
            log.debug("no direct socket to %s: %s", peer, error)
        self._no_direct[peer] = trio.current_time() + NO_DIRECT_S
        self._no_direct.move_to_end(peer)
        while len(self._no_direct) > MAX_NO_DIRECT:
            self._no_direct.popitem(last=False)
        return None

    async def _header(self, pipe: Pipe, blob: BlobId) -> Header:
        with trio.fail_after(ANSWER_S):
            return decode_header(await pipe.read_frame(MAX_HEADER_BYTES), blob, pipe.peer_id)

    async def _agree(self, transfer: _Transfer, offer: _Offer, header: Header) -> bool:
        """Whether this source's list is the one in use, or is from now on. Where not, one of the sources is wrong, and
        only the whole blob can tell which."""
        if transfer.plan is not None:
            offer.agreed = transfer.plan.same(header.size, header.chunks)
            offer.aside = not offer.agreed
            return offer.agreed
        if transfer.writer is not None and transfer.writer.size != header.size:
            transfer.writer.discard()
            transfer.writer = None
        if transfer.writer is None and self.make_room is not None:
            await self.make_room(header.size)
        if transfer.writer is None:
            transfer.writer = self.store.writer(transfer.blob, header.size, resume=True)
        transfer.plan = Plan(header.size, header.chunks)
        offer.agreed = True
        if len(header.chunks) > 1:  # a single one has the blob's own hash, and that is not here
            await trio.to_thread.run_sync(self._fill, transfer.plan, transfer.writer)
        return True

    def _fill(self, plan: Plan, writer: BlobWriter) -> None:
        """Take over what an earlier try left, and what other blobs have. In a thread."""

        def found(index: int) -> bool:
            trio.from_thread.check_cancelled()
            digest, size, at = plan.hashes[index], plan.length(index), index * CHUNK_BYTES
            kept = writer.read(at, size)
            if len(kept) == size and blake3(kept).digest() == digest:
                return True
            other = self.store.chunk(digest, size)
            if other is None:
                return False
            writer.write(at, other)
            self._counters.blob_bytes_found += size
            return True

        plan.fill(found)

    async def _take(self, transfer: _Transfer, offer: _Offer, pipe: Pipe, *, unasked: bool = False) -> None:
        """Ask for missing chunks until there are none, or take the first one, which comes `unasked` with the header."""
        taking = _Taking(self._received, transfer, offer, unasked=unasked)
        ahead = 1 + min(AHEAD - 1, int(pipe.round_trip_s() / FAR_S))
        try:
            await pipe.take(taking.ask, taking.use, CHUNK_S, ahead)
        finally:
            taking.end()

    def _received(self, transfer: _Transfer, offer: _Offer, size: int) -> None:
        """A chunk was verified and written, in whatever thread. The next one is asked for when the pace allows it."""
        self.pace_in.wait_in_thread(size)
        with self._counting:
            self._counters.blob_bytes_received += size
            assert transfer.plan is not None
            if transfer.plan.arrived > transfer.furthest:
                transfer.furthest = transfer.plan.arrived
                offer.failures = 0

    async def _serve_direct(self, socket: DirectSocket) -> None:
        try:
            await self._server.serve(socket)
        except RemoteError as error:  # it left, which is how transfers end, or spoke nonsense
            log.debug("direct socket of %s: %s", socket.peer_id, error)
        except Exception:
            log.exception("a direct socket of %s failed", socket.peer_id)
        finally:
            await socket.abort()


class _Taking:
    """The chunks that were asked of one source. `ask` and `use` run where the pipe calls them, mostly in a thread."""

    def __init__(
        self, received: Callable[[_Transfer, _Offer, int], None], transfer: _Transfer, offer: _Offer, *, unasked: bool
    ) -> None:
        assert transfer.plan is not None
        assert transfer.writer is not None
        self._received = received
        self._transfer = transfer
        self._offer = offer
        self._plan = transfer.plan
        self._writer = transfer.writer
        self._asked: deque[int] = deque()
        self._unasked = unasked
        self._one = unasked  # and then no more
        self._hash = blake3()  # of the chunk that is coming

    def ask(self) -> Ask | None:
        if self._one:
            if not self._unasked:
                return None
            self._unasked = False
            if self._plan.claim(0):
                self._asked.append(0)
            return b"", self._plan.length(0)
        index = self._plan.next()
        if index is None:
            return None
        self._asked.append(index)
        return msgspec.msgpack.encode(index), self._plan.length(index)

    def use(self, data: memoryview, new: int) -> None:
        """`data` is what came of the oldest chunk so far, new from `new` on."""
        if not self._asked:
            return  # the first chunk came unasked, and was here
        index = self._asked[0]
        self._hash.update(data[new:])
        if len(data) < self._plan.length(index):
            return
        digest, self._hash = self._hash.digest(), blake3()
        if digest != self._plan.hashes[index]:
            raise RemoteError("wrong_bytes", "It sent other bytes than it announced.", peer=self._offer.source.peer_id)
        self._writer.write(index * CHUNK_BYTES, data)
        self._writer.begin_writing()
        self._plan.came(self._asked.popleft())
        self._received(self._transfer, self._offer, len(data))

    def end(self) -> None:
        """What was asked for and did not come is missing again."""
        while self._asked:
            self._plan.lost(self._asked.pop())


@asynccontextmanager
async def open_blobs(network: Streams, store: BlobStore, authorize: Authorize) -> AsyncIterator[BlobExchange]:
    """Serve the store's blobs to whom `authorize` allows, and fetch others into it, until the block ends."""
    async with trio.open_nursery() as nursery:
        yield BlobExchange(network, store, authorize, nursery)
        nursery.cancel_scope.cancel()
