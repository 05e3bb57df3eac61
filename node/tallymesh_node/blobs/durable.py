"""Which blobs may not be on the disk yet: what was put since the last sync. A marker file says when that was, by the
clock of the file system, so that a start reads only what came later.

This module knows neither sizes nor peers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from tallymesh.ids import BlobId
from tallymesh_node.blobs.disk import begin_writing_all, disk, fsync

MANY = 256  # blobs: fewer are synced one by one in half a second, and nobody else's bytes have to be written for them


class Durable:
    """Of one store: `place` is where a blob's file lies, `part` a new name for a file that becomes none. `lock` is the
    store's: a blob gets its place and its mark here in one step, or a sync would take it for one that was there before.
    """

    def __init__(
        self, folder: Path, lock: threading.Lock, *, place: Callable[[BlobId], Path], part: Callable[[], Path]
    ) -> None:
        self._folder = folder
        self._marker = folder / "synced"
        self._lock = lock
        self._place = place
        self._part = part
        self._syncing = threading.Lock()
        self._waiting: set[BlobId] = set()
        # Linux says once that a file could not be written: the fsync after that returns as if all were well. What came
        # until then is tried again, and read again at the next start, whatever the disk says meanwhile.
        self._failed = False

    def since_ns(self) -> int:
        """What came before is on the disk; 0 where nobody ever synced."""
        return self._marker.stat().st_mtime_ns if self._marker.exists() else 0

    def came(self, blob: BlobId) -> None:
        """Under the lock."""
        self._waiting.add(blob)

    def went(self, blob: BlobId) -> None:
        """Under the lock."""
        self._waiting.discard(blob)

    def sync(self) -> None:
        """Return once all that came is on the disk. Blocks."""
        with self._syncing:  # whoever finds nothing left to do must still wait for whoever is doing it
            self._sync()

    def _sync(self) -> None:
        with self._lock:
            if not self._waiting:
                return
            begun = self._now_ns()  # may fail: then they still wait
            waiting, self._waiting = self._waiting, set()
        try:
            with disk():
                if len(waiting) >= MANY:  # the items of a map: 5,000 took 19 s, a commit of the disk's journal each
                    begin_writing_all(self._folder)
                folders = {self._folder}
                for blob in waiting:
                    place = self._place(blob)
                    if fsync(place):
                        folders.update((place.parent, place.parent.parent))
                for folder in folders:
                    fsync(folder)
                if not self._failed:
                    self._marker.touch(mode=0o600)
                    os.utime(self._marker, ns=(begun, begun))
        except BaseException:
            self._failed = True
            with self._lock:
                self._waiting |= waiting
            raise

    def _now_ns(self) -> int:
        """The file system's own clock, which is coarser than ours and must not be mixed with it."""
        probe = self._part()
        with disk():
            probe.touch(mode=0o600)
            now = probe.stat().st_ctime_ns
            probe.unlink()
        return now
