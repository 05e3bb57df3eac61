"""Blobs that the node's owner wants to keep whatever else needs room: one empty file for each, named by the blob.

A pin is on the disk before the owner is told so, and there is no state between pinned and not: a node that is killed
at any moment has all pins that it confirmed. A blob may be pinned before it is here. This module does not know blobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tallymesh.errors import CallerError
from tallymesh.ids import BlobId
from tallymesh_node.blobs.disk import change, fsync

MAX_PINS = 65_536  # each is a file and 100 bytes of memory; who wants to keep more raises the limit for blobs


class Pins:
    """All pins of one store, in one folder. OSError where the disk refuses: then nothing changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pinned: set[BlobId] = set()
        self._failed = False
        for path in folder.iterdir():
            if len(path.name) == 64:
                try:
                    self._pinned.add(BlobId(bytes.fromhex(path.name)))
                except ValueError:
                    continue  # not ours

    def __contains__(self, blob: BlobId) -> bool:
        return blob in self._pinned

    def __iter__(self) -> Iterator[BlobId]:
        return iter(list(self._pinned))

    def __len__(self) -> int:
        return len(self._pinned)

    def add(self, blob: BlobId) -> None:
        """Idempotent; it is on the disk when this returns. CallerError `too_many_pins`."""
        if blob not in self._pinned and len(self._pinned) >= MAX_PINS:
            raise CallerError("too_many_pins", f"{MAX_PINS} blobs are pinned.", remedy="Unpin some: tallymesh blob ls")
        self._path(blob).touch(mode=0o600)
        self._to_disk()
        self._pinned.add(blob)

    def remove(self, blob: BlobId) -> None:
        """Idempotent; it is on the disk when this returns."""
        self._path(blob).unlink(missing_ok=True)
        self._to_disk()
        self._pinned.discard(blob)

    def _path(self, blob: BlobId) -> Path:
        return self._folder / blob.hex()

    def _to_disk(self) -> None:
        """Where that failed once, the system would say that all is well the next time (durable.py)."""
        if self._failed:
            change(self._folder)
        self._failed = True
        fsync(self._folder)
        self._failed = False
