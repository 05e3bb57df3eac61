"""A stored blob as its chunks: their hashes, in order, and one chunk by its hash, whichever blob has it.

This module does not know where blobs lie, nor who asks.
"""

from __future__ import annotations

import os
from io import FileIO
from typing import Protocol

from blake3 import blake3

from tallymesh.ids import BlobId
from tallymesh_node.blobs.disk import CHUNK_BYTES, disk
from tallymesh_node.blobs.lists import ChunkLists


class Whole(Protocol):
    """Blobs that are here. KeyError where one is not."""

    lists: ChunkLists

    def has(self, blob: BlobId) -> bool: ...

    def size(self, blob: BlobId) -> int: ...

    def open(self, blob: BlobId) -> FileIO: ...


def hashes_of(store: Whole, blob: BlobId) -> list[bytes]:
    """BLAKE3 of each chunk, in order, kept from then on. KeyError where the blob is not here. Reads it where they are
    not known."""
    size = store.size(blob)
    if size <= CHUNK_BYTES:
        return [blob] if size else []
    known = store.lists.get(blob, -(-size // CHUNK_BYTES))
    if known is not None:
        return known
    hashes: list[bytes] = []
    with store.open(blob) as file, disk():
        while data := file.read(CHUNK_BYTES):
            hashes.append(blake3(data).digest())
    store.lists.put(blob, hashes)
    return hashes


def chunk_of(store: Whole, digest: bytes, size: int) -> bytes | None:
    """A chunk of any blob that is here, verified; None where none has it. Blocks."""
    whole = BlobId(digest)  # a blob of one chunk has its hash for its name
    found = (whole, 0) if store.has(whole) else store.lists.find(digest)
    if found is None:
        return None
    try:
        with store.open(found[0]) as file:
            data = os.pread(file.fileno(), size, found[1] * CHUNK_BYTES)
    except (KeyError, OSError):  # it went, or its disk fails: then the chunk is fetched
        return None
    return data if len(data) == size and blake3(data).digest() == digest else None
