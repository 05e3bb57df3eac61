"""The hashes of each blob's chunks, kept beside the store, and where a chunk of a given hash lies.

A list is derived from its blob and never believed where that matters: what it says of a chunk is verified when the
chunk is read. A list that was lost or torn is made anew. This module does not know peers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from tallymesh.ids import BlobId

HASH_BYTES = 32
KEY_BYTES = 8  # of a hash in the index: two chunks with the same eight bytes cost a look at the wrong one
INDEXED = 131_072  # chunks, 128 GiB of blobs: 20 MB of memory, on nodes that have so much
_PLACE_BITS = 16  # of a chunk in its blob; blobs have at most 16,384 chunks


class ChunkLists:
    """The lists of one store, in one folder; threads may share it. `present` says whether a blob is still here."""

    def __init__(self, folder: Path, present: Callable[[BlobId], bool]) -> None:
        self._folder = folder
        self._present = present
        self._lock = threading.Lock()
        self._index: dict[bytes, int] | None = None  # made when it is first asked for
        self._blobs: list[BlobId] = []  # what the index's numbers mean
        self._stale = False  # the index has blobs that went

    def get(self, blob: BlobId, chunks: int) -> list[bytes] | None:
        """The list, or None where there is none that is whole."""
        try:
            data = (self._folder / blob.hex()).read_bytes()
        except OSError:
            return None
        body, sum_ = data[:-HASH_BYTES], data[-HASH_BYTES:]
        if len(body) != chunks * HASH_BYTES or blake3(body).digest() != sum_:
            return None
        return [body[at : at + HASH_BYTES] for at in range(0, len(body), HASH_BYTES)]

    def put(self, blob: BlobId, hashes: list[bytes]) -> None:
        """Best effort: without it the blob is read again when somebody asks."""
        body = b"".join(hashes)
        with suppress(OSError):
            (self._folder / blob.hex()).write_bytes(body + blake3(body).digest())
        with self._lock:
            if self._index is not None:
                self._add(blob, hashes)

    def forget(self, blob: BlobId) -> None:
        with suppress(OSError):
            (self._folder / blob.hex()).unlink()
            self._stale = True

    def find(self, digest: bytes) -> tuple[BlobId, int] | None:
        """A blob of several chunks and which of them may have this hash. Blocks the first time."""
        with self._lock:
            if self._index is None or (self._stale and len(self._index) >= INDEXED):
                self._load()
            assert self._index is not None
            place = self._index.get(digest[:KEY_BYTES])
            return None if place is None else (self._blobs[place >> _PLACE_BITS], place & ((1 << _PLACE_BITS) - 1))

    def clean(self) -> None:
        """Remove the lists of blobs that are not here."""
        for blob, path in self._all():
            if not self._present(blob):
                path.unlink(missing_ok=True)

    def _load(self) -> None:
        self._index = {}
        self._blobs = []
        self._stale = False
        for blob, path in self._all():
            with suppress(OSError):
                chunks = path.stat().st_size // HASH_BYTES - 1
                self._add(blob, self.get(blob, chunks) or [])

    def _add(self, blob: BlobId, hashes: list[bytes]) -> None:
        assert self._index is not None
        self._blobs.append(blob)
        for place, digest in enumerate(hashes[: INDEXED - len(self._index)]):
            self._index[digest[:KEY_BYTES]] = (len(self._blobs) - 1) << _PLACE_BITS | place

    def _all(self) -> Iterator[tuple[BlobId, Path]]:
        for path in self._folder.iterdir():
            with suppress(ValueError):
                yield BlobId(bytes.fromhex(path.name)), path
