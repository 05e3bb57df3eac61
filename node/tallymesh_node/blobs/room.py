"""Makes room for what comes: drops blobs that nothing needs, those that were not used for longest first.

What is needed is each role's to say (`Holder`): the blobs that it stands for now, those that it can still be asked
about, or that it cannot tell yet, and then nothing goes. What the owner pinned stays, and so does what came or was used
a moment ago: whoever fetched it may not have written down why. This module does not know what the roles are.

Order is all that a crash needs: a blob's file goes last, and at a start the files are what is there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence, Set
from pathlib import Path

import msgspec
import trio

from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import BlobId
from tallymesh_node.blobs.store import BlobStore, limit

log = logging.getLogger("tallymesh.blobs")

FRESH_S = 600.0  # between a blob's coming (or its last use) and the journal line of whoever needs it lie seconds
LOOK_S = 60.0  # between looks at whether there is room to spare: what is made on this machine does not ask first
SPARE_PARTS = 16  # of the limit, that is kept free where something can go: one pass then serves many that come
DISK_SPARE = 64 * 1024 * 1024  # bytes of the disk that blobs never take: journal and logs must go on being written
AGAIN_S = 5.0  # a pass that found too little is not repeated sooner: it reads the journals of all seats
BATCH = 256  # files dropped between two looks at what the roles need now
NOT_KNOWN = "not known yet"

FRESH = "came or used within the last 10 minutes"
PINNED = "pinned by the owner"


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who needs blobs. `now` says at once which, None while that is not known; `past` names what journals stand for;
    `lately_s`: what came or was used within so many seconds counts, for who cannot name it. `firm`: the owner, too,
    does not remove it by hand."""

    name: str
    now: Callable[[], Set[bytes] | None] = frozenset
    past: Callable[[], Awaitable[Set[bytes] | None]] | None = None
    lately_s: Callable[[], float] = float
    firm: bool = True


class Freed(msgspec.Struct, frozen=True):
    blobs: int = 0
    bytes: int = 0


class Room:
    """The room of one store. `limit` is what the owner allows for blobs now, in bytes. Nothing is dropped before
    `open`: roles that have not read their journals need what they do not know of yet."""

    def __init__(
        self,
        store: BlobStore,
        *,
        limit: Callable[[], int],
        holders: Sequence[Holder] = (),
        disk_free: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._limit = limit
        self.holders = holders
        self._disk_free = disk_free or (lambda: _disk_free(store.folder))
        self._clock = clock
        self._turn = trio.Lock()
        self._opened = False
        self._refused: tuple[float, int, LocalError] | None = None  # trio time, bytes that were lacking, what was said
        self.dropped = Freed()

    def open(self) -> None:
        """From now on every holder can be asked."""
        self._opened = True

    # -- is there room

    @property
    def limit_bytes(self) -> int:
        return self._limit()

    @property
    def disk_free(self) -> int:
        return self._disk_free()

    def lacking(self, size: int) -> int:
        """How many bytes have to go before `size` more fit, once what was kept of transfers that ended is gone."""
        store = self._store
        of_limit = store.bytes_used - store.bytes_kept + size - self._limit()
        of_disk = size + store.bytes_to_come + DISK_SPARE - self._disk_free() - store.bytes_kept
        return max(0, of_limit, of_disk)

    def admit(self, size: int) -> None:
        """The store's hook: LocalError `disk_limit` or `disk_full` where `size` more bytes do not fit right now."""
        store = self._store
        limit(lambda: store.bytes_used, self._limit())(size)
        if size + store.bytes_to_come + DISK_SPARE > self._disk_free():
            raise LocalError(
                "disk_full", f"The disk of the blob store has no room for {size} more bytes.", remedy="Free some space."
            )

    # -- making it

    async def make(self, size: int) -> None:
        """Return when `size` more bytes fit. LocalError `no_room`, which says what holds the room that there is."""
        if not self.lacking(size):
            return
        async with self._turn:
            lacking = self.lacking(size)
            if not lacking:
                return
            refused = self._refused
            if refused is not None and trio.current_time() < refused[0] + AGAIN_S and lacking >= refused[1]:
                raise refused[2]
            await self._drop(lacking, lacking + self._limit() // SPARE_PARTS)
            if left := self.lacking(size):
                error = await self._no_room(size, left)
                self._refused = trio.current_time(), left, error
                raise error

    async def run(self) -> None:
        """Keep a part of the limit free for what is stored without asking. Until cancelled."""
        while True:
            freed = Freed()
            spare = self._limit() // SPARE_PARTS
            try:
                async with self._turn:
                    if lacking := self.lacking(spare):
                        freed = await self._drop(1, lacking + spare)
            except LocalError as error:
                log.error("old blobs cannot be dropped: %s", error)
            await trio.sleep(LOOK_S if freed.blobs or not self.lacking(spare) else FRESH_S)

    async def collect(self) -> Freed:
        """Drop all that nothing needs."""
        async with self._turn:
            return await self._drop(1, 1 << 62)

    async def remove(self, blob: BlobId) -> None:
        """At the owner's word. CallerError `no_blob`, `pinned`, or `needed` with who needs it."""
        async with self._turn:
            past = [await holder.past() if holder.past is not None else frozenset[bytes]() for holder in self.holders]
            if not self._store.has(blob):
                raise CallerError("no_blob", f"Blob {blob.hex()[:8]}… is not on this node.")
            if blob in self._store.pins:
                raise CallerError("pinned", "The blob is pinned.", remedy=f"tallymesh blob unpin {blob.hex()}")
            for holder, held in zip(self.holders, past, strict=True):
                now = holder.now() if self._opened else None
                if holder.firm and (now is None or held is None or blob in now or blob in held):
                    raise CallerError(
                        "needed", f"The blob is needed: {holder.name}.", remedy="It can go when that is over."
                    )
            self._store.delete(blob)

    async def _drop(self, enough: int, most: int) -> Freed:
        """Drop what nothing needs, the longest unused first, until `most` bytes are free; nothing at all where less
        than `enough` could go: whoever asks for more than there can be would empty the store for nothing."""
        # What is needed now is needed until the end of this pass: a job that ends meanwhile has its result read next.
        kept = self._now()
        past = await self._past()
        if kept is None or past is None:
            return Freed()
        kept |= past
        store = self._store
        order = sorted((blob for blob in store if self._may_go(blob, kept)), key=store.used_at)
        if sum(store.size(blob) for blob in order) < enough:
            return Freed()
        count = freed = 0
        while order and freed < most:
            # Nothing is waited for between what the roles say and the end of the batch: no role begins anything then.
            needed = self._now()
            if needed is None:
                break
            batch, order = order[:BATCH], order[BATCH:]
            for blob in batch:
                if freed < most and store.has(blob) and self._may_go(blob, needed):
                    freed += store.size(blob)
                    store.delete(blob)
                    count += 1
            await trio.lowlevel.checkpoint()
        if count:
            log.info("dropped %d blobs of %d bytes that nothing needed", count, freed)
        self.dropped = Freed(self.dropped.blobs + count, self.dropped.bytes + freed)
        return Freed(count, freed)

    def _may_go(self, blob: BlobId, needed: Set[bytes]) -> bool:
        stale = self._idle_s(blob) > max([FRESH_S, *(holder.lately_s() for holder in self.holders)])
        return stale and blob not in needed and blob not in self._store.pins

    def _now(self) -> set[bytes] | None:
        """What any role needs at this moment; None where one cannot say."""
        needed: set[bytes] = set()
        for holder in self.holders:
            found = holder.now() if self._opened else None
            if found is None:
                return None
            needed |= found
        return needed

    def _idle_s(self, blob: BlobId) -> float:
        return self._clock() - self._store.used_at(blob)

    async def _past(self) -> set[bytes] | None:
        held: set[bytes] = set()
        for holder in self.holders:
            found = await holder.past() if holder.past is not None else frozenset[bytes]()
            if found is None:
                return None
            held |= found
        return held

    # -- saying what holds it

    async def held_by(self) -> dict[str, set[BlobId]]:
        """What is here, by who needs it; a blob stands with each of them."""
        found: dict[str, set[BlobId]] = {}
        store = self._store
        for holder in self.holders:
            held = await holder.past() if holder.past is not None else frozenset[bytes]()
            now = holder.now() if self._opened else None
            if now is None or held is None:
                found[f"{holder.name}, {NOT_KNOWN}"] = set(store)
            else:
                lately_s = max(0.0, holder.lately_s())
                found[holder.name] = {b for b in store if b in now or b in held or 0 <= self._idle_s(b) < lately_s}
        found[PINNED] = {blob for blob in store if blob in store.pins}
        found[FRESH] = {blob for blob in store if self._idle_s(blob) <= FRESH_S}
        return {name: blobs for name, blobs in found.items() if blobs}

    async def _no_room(self, size: int, left: int) -> LocalError:
        store = self._store
        said = [
            f"{_mib(sum(store.size(b) for b in blobs if store.has(b)))} ({name})"
            for name, blobs in (await self.held_by()).items()
        ]
        if store.bytes_to_come:
            said.append(f"{_mib(store.bytes_to_come)} (arriving)")
        limit, free = self._limit(), self._disk_free()
        return LocalError(
            "no_room",
            f"There is no room for {_mib(size)}: {_mib(left)} too little, of a limit of {_mib(limit)} for blobs and "
            f"{_mib(free)} free on the disk. What is here is needed: {'; '.join(said) or 'nothing is here'}.",
            remedy="Raise the limit (tallymesh node limit --disk-gib), unpin blobs (tallymesh blob ls), or wait until "
            "jobs end.",
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _disk_free(folder: Path) -> int:
    """Bytes that this account may still write there."""
    try:
        told = os.statvfs(folder)
    except OSError as error:
        raise LocalError("disk", f"The blob store cannot be used: {error}.", remedy="Check its folder.") from error
    return told.f_bavail * told.f_frsize
