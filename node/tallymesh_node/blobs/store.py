"""Blobs on disk, named by their BLAKE3: a file is there whole or not at all, whenever the process was killed.

A blob is written to ``parts/``, made read-only and renamed to ``ab/cd/<hex>``. A rename survives kill -9 but not a
power cut before the data reached the disk: what was put since the last `sync` is verified again at the next start.
This module does not know peers.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path

from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import BlobId, blob_id
from tallymesh_node.blobs.chunks import chunk_of, hashes_of
from tallymesh_node.blobs.disk import disk, hash_of
from tallymesh_node.blobs.durable import Durable
from tallymesh_node.blobs.kept import Kept
from tallymesh_node.blobs.lists import ChunkLists
from tallymesh_node.blobs.pins import Pins
from tallymesh_node.blobs.writer import BlobWriter

Admit = Callable[[int], None]  # called with the bytes about to be stored; raises LocalError where they are too many


class BlobStore:
    """All blobs of this node. One process opens a folder; threads may share the object for `get`, `put` and `sync`."""

    def __init__(self, folder: Path, *, admit: Admit | None = None, clock: Callable[[], float] = time.time) -> None:
        self.folder = self._folder = folder
        self._admit = admit
        self._clock = clock
        self._parts = folder / "parts"
        self._lock = threading.Lock()
        self._durable = Durable(
            folder, self._lock, place=self._place, part=self.part, lost=self.delete, clock=self._clock
        )
        self._sizes: dict[BlobId, int] = {}
        self._used: dict[BlobId, float] = {}
        self._total = 0
        self._reserved: dict[BlobWriter, int] = {}
        self.lists = ChunkLists(folder / "lists", self.has)
        with disk():
            for each in (folder, self._parts, folder / "lists", folder / "pins"):
                each.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.pins = Pins(folder / "pins")
            self._kept = Kept(self._parts)
            self._load()
            self.lists.clean()

    # -- what Blobs asks -----------------------------------------------------------------------------------------------

    def has(self, blob: BlobId) -> bool:
        return blob in self._sizes

    def path(self, blob: BlobId) -> Path:
        """A read-only file holding exactly the blob. KeyError where it is not here."""
        if blob not in self._sizes:
            raise KeyError(blob.hex())
        self.touch(blob)
        return self._place(blob)

    def size(self, blob: BlobId) -> int:
        """In bytes. KeyError where it is not here."""
        return self._sizes[blob]

    def open(self, blob: BlobId) -> FileIO:
        """To read it from. KeyError where it is not here."""
        try:
            return FileIO(self.path(blob), "rb")
        except FileNotFoundError:  # somebody else removed it: it can be fetched anew
            self.delete(blob)
            raise KeyError(blob.hex()) from None

    def get(self, blob: BlobId) -> bytes:
        """Its bytes, verified. KeyError where it is not here; LocalError `corrupt_blob` where the disk changed it: then
        it is not here any more, and can be fetched anew."""
        path = self.path(blob)
        with disk():
            data = path.read_bytes()
        if blob_id(data) != blob:
            self.delete(blob)
            raise LocalError(
                "corrupt_blob", f"Blob {blob.hex()} changed on disk and was removed.", remedy="Check the disk."
            )
        return data

    def put(self, data: bytes) -> BlobId:
        """Store (whole or not at all) and name it. Not fsynced: call `sync` before signing anything about it."""
        name = blob_id(data)
        self.touch(name)
        if name not in self._sizes:
            writer = self.writer(name, len(data))
            try:
                writer.write(0, data)
                assert writer.finish()
            finally:
                writer.discard()
        return name

    def put_stream(self, name: BlobId, size: int, pieces: Iterable[bytes]) -> None:
        """Store `size` bytes that must be the blob `name`. CallerError `wrong_blob` where they are not."""
        if name in self._sizes:
            self.touch(name)
            return
        writer = self.writer(name, size)
        try:
            offset = 0
            for piece in pieces:
                if offset + len(piece) <= size:
                    writer.write(offset, piece)
                offset += len(piece)
            if offset != size or not writer.finish():
                raise CallerError("wrong_blob", f"What was given is not blob {name.hex()} of {size} bytes.")
        finally:
            writer.discard()

    # -- the rest ------------------------------------------------------------------------------------------------------

    @property
    def bytes_used(self) -> int:
        """Of blobs, of those that are arriving as if they were whole, and of what was kept of transfers that ended."""
        return self._total + sum(list(self._reserved.values())) + self._kept.bytes_used

    @property
    def bytes_kept(self) -> int:
        """Of transfers that ended: the first to go."""
        return self._kept.bytes_used

    @property
    def bytes_to_come(self) -> int:
        """Of what is arriving: not on the disk yet."""
        return sum(writer.bytes_to_come for writer in list(self._reserved))

    def pin(self, blob: BlobId, *, pinned: bool = True) -> None:
        """Keep it whatever needs room, or no longer. On the disk when this returns. LocalError where it refuses."""
        with disk():
            (self.pins.add if pinned else self.pins.remove)(blob)

    def touch(self, blob: BlobId) -> None:
        """It is of use now: what was not used for longest goes first when room is needed."""
        if blob in self._sizes:
            self._used[blob] = self._clock()

    def used_at(self, blob: BlobId) -> float:
        """Unix time of its last use, or since when it is here; after a restart as the file system knows it. 0 where it
        is not."""
        return self._used.get(blob, 0.0)

    def __iter__(self) -> Iterator[BlobId]:
        return iter(list(self._sizes))

    def __len__(self) -> int:
        return len(self._sizes)

    def writer(self, name: BlobId, size: int, *, resume: bool = False) -> BlobWriter:
        """To store a blob as it arrives; with `resume` it may have bytes of an earlier try, of which nothing is known,
        and can be kept for a later one. LocalError where the owner's limit forbids so many bytes."""
        with self._lock, disk():
            resume = resume and all(writer.name != name for writer in self._reserved)  # two must not share a file
            path = self._kept.take(name) if resume else None
            resumed = path is not None and path.stat().st_size <= size
            if path is None or not resumed:
                path = self._kept.path(name) if resume else self.part()
                path.unlink(missing_ok=True)
            self._admit_or_make_room(size)
            writer = BlobWriter(self, name, size, path, resumed=resumed)
            self._reserved[writer] = size
        return writer

    def _admit_or_make_room(self, size: int) -> None:
        """What was kept of transfers that ended goes first, the oldest before others."""
        while self._admit is not None:
            try:
                self._admit(size)
                return
            except LocalError:
                if not self._kept.drop_oldest():
                    raise

    def has_part(self, blob: BlobId) -> bool:
        """Whether something was kept of it."""
        return blob in self._kept

    def chunk_hashes(self, blob: BlobId) -> list[bytes]:
        """BLAKE3 of each chunk, in order. Reads the blob where they are not known: a thread is the place for it.
        KeyError where it is not here."""
        return hashes_of(self, blob)

    def chunk(self, digest: bytes, size: int) -> bytes | None:
        """A chunk of any blob that is here, verified; None where none has it. Blocks."""
        return chunk_of(self, digest, size)

    def drop_kept(self, before: float) -> None:
        """What was kept of transfers that ended before this Unix time."""
        with self._lock, disk():
            self._kept.drop_before(before)

    def came_at(self, blob: BlobId) -> float:
        """Unix time since when the blob is here. KeyError where it is not."""
        if blob not in self._sizes:
            raise KeyError(blob.hex())
        return self._place(blob).stat().st_ctime

    def delete(self, blob: BlobId) -> None:
        """Idempotent. Whoever has the file open or linked keeps it."""
        with self._lock:
            self._total -= self._sizes.pop(blob, 0)
            self._used.pop(blob, None)
            self._durable.went(blob)
        self.lists.forget(blob)
        with disk():
            self._place(blob).unlink(missing_ok=True)

    def sync(self) -> None:
        """Return once all that was put is on the disk. Blocks; a thread is the place for it."""
        self._durable.sync()

    # -- for BlobWriter ------------------------------------------------------------------------------------------------

    def part(self) -> Path:
        return self._parts / f"{secrets.token_hex(8)}.part"

    def ended(self, writer: BlobWriter, *, kept: Path | None = None) -> None:
        with self._lock:
            self._reserved.pop(writer, None)
            if kept is not None:
                self._kept.add(kept)

    def publish(self, part: Path, name: BlobId, size: int) -> None:
        place = self._place(name)
        with disk():
            os.chmod(part, 0o400)
            for folder in (place.parent.parent, place.parent):
                folder.mkdir(exist_ok=True, mode=0o700)
            with self._lock:
                os.replace(part, place)
                self._durable.came(name)
                self._total += size - self._sizes.get(name, 0)
                self._sizes[name] = size
                self._used[name] = self._clock()

    def _place(self, blob: BlobId) -> Path:
        text = blob.hex()
        return self._folder / text[:2] / text[2:4] / text

    def _load(self) -> None:
        synced = self._durable.since_ns()
        for path in self._folder.glob("??/??/" + "?" * 64):
            try:
                name = BlobId(bytes.fromhex(path.name))
            except ValueError:
                continue  # not ours
            status = path.stat()
            # ctime: a rename sets it, so it is never before the blob was put
            if status.st_ctime_ns >= synced and hash_of(path) != name:
                path.unlink()
                continue
            self._sizes[name] = status.st_size
            # Kernels note the last reading about once a day, or never; a use of our own would change the ctime.
            self._used[name] = max(status.st_atime, status.st_ctime)
            self._total += status.st_size
            if status.st_ctime_ns >= synced:
                self._durable.came(name)


def limit(store_bytes: Callable[[], int], maximum: int) -> Admit:
    """An `admit` hook: at most `maximum` bytes in all, `store_bytes()` being what is there."""

    def admit(size: int) -> None:
        if store_bytes() + size > maximum:
            raise LocalError(
                "disk_limit",
                f"{size} more bytes would be over this node's limit of {maximum} bytes for blobs.",
                remedy="Raise the limit (tallymesh node limit), or wait until jobs end.",
            )

    return admit
