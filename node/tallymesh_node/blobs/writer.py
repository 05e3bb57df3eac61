"""A blob that is still arriving: a file among the store's parts. It becomes a blob once its bytes are those that its
name says.

This module knows neither peers nor what else is in the store.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from tallymesh.ids import BlobId
from tallymesh_node.blobs.disk import CHUNK_BYTES, begin_writing, disk, private
from tallymesh_node.blobs.kept import BLOCK

if TYPE_CHECKING:
    from tallymesh_node.blobs.store import BlobStore

BEGIN_BYTES = 8 * CHUNK_BYTES  # written before the disk is set to work on them: few calls, and little left for fsync


class BlobWriter:
    """A blob of known name and size that is still arriving. It counts as nothing until `finish`. Threads may write
    different chunks at the same time; the rest is for one."""

    def __init__(self, store: BlobStore, name: BlobId, size: int, path: Path, *, resumed: bool) -> None:
        self.name = name
        self.size = size
        self._store = store
        self._path = path
        self._file = open(path, "r+b" if resumed else "x+b", buffering=0, opener=private)  # noqa: SIM115 - finish, discard and keep close it
        self._lock = threading.Lock()
        self._hash = blake3()
        self._hashed = 0  # bytes in `_hash`, as far as the blob arrived in order
        self._unbegun = 0  # bytes written since the disk was last set to work

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset`; again, if what was there turned out to be wrong."""
        assert offset + len(data) <= self.size, (offset, len(data), self.size)
        with disk():
            done = 0
            while done < len(data):
                done += os.pwrite(self._file.fileno(), memoryview(data)[done:], offset + done)
        with self._lock:
            self._unbegun += len(data)
            if offset == self._hashed:
                self._hash.update(data)
                self._hashed += len(data)
            elif offset < self._hashed:  # the running hash is of other bytes than the file: begin again
                self._hash = blake3()
                self._hashed = 0

    def begin_writing(self) -> None:
        """Set the disk to work where much was written since the last time. It may make its caller wait for a busy
        disk: a thread is the place for it."""
        with self._lock:
            if self._unbegun < BEGIN_BYTES:
                return
            self._unbegun = 0
        begin_writing(self._file.fileno())

    def read(self, offset: int, size: int) -> bytes:
        """What a resumed file has there; anything, until its hash was compared."""
        with disk():
            return os.pread(self._file.fileno(), size, offset)

    def finish(self) -> bool:
        """Make the blob present if the bytes are those that its name says; False if not, and writing may go on. Reads
        what did not arrive in order: for many bytes a thread is the place for it."""
        with disk():
            if os.fstat(self._file.fileno()).st_size != self.size:
                return False
            while data := os.pread(self._file.fileno(), CHUNK_BYTES, self._hashed):
                self._hash.update(data)
                self._hashed += len(data)
        right = self._hash.digest() == self.name
        if right:
            self._file.close()
            self._store.publish(self._path, self.name, self.size)
            self._store.ended(self)
        else:
            self._hash, self._hashed = blake3(), 0
        return right

    @property
    def bytes_to_come(self) -> int:
        """That are not on the disk yet."""
        try:
            return max(0, self.size - os.fstat(self._file.fileno()).st_blocks * BLOCK)
        except (OSError, ValueError):  # it ended
            return 0

    def discard(self) -> None:
        """Forget what arrived. Does nothing after a `finish` that succeeded, or `keep`."""
        if not self._file.closed:
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._store.ended(self)

    def keep(self) -> None:
        """Leave what arrived for a later try, also after a restart. Only for a resumable writer."""
        if not self._file.closed:
            self._file.close()
            self._store.ended(self, kept=self._path)
