"""Which blobs may not be on the disk yet: what was put since the last sync. A marker file says when that was, by the
clock of the file system, so that a start reads only what came later.

Linux says once that a file could not be written, and takes its pages for clean from then on: the fsync after that
returns as if all were well (Rebello et al., "Can Applications Recover from fsync Failures?", 2020). So a file whose
fsync failed is believed no more, whatever the disk says: its bytes, as far as they are still those of its name, are
written to a new file, and a folder is changed before it is asked again. This module knows neither sizes nor peers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from tallymesh.errors import LocalError
from tallymesh.ids import BlobId
from tallymesh_node.blobs.disk import begin_writing_all, change, copy, disk, fsync

MANY = 256  # blobs: fewer are synced one by one in half a second, and nobody else's bytes have to be written for them
# For so long every sync fails after a blob was lost: whoever put it, and is about to sign something about it, asks
# within seconds, and cannot be told from others.
LOST_S = 600.0


class Durable:
    """Of one store: `place` is where a blob's file lies, `part` a new name for a file that becomes none. `lock` is the
    store's: a blob gets its place and its mark here in one step, or a sync would take it for one that was there before.
    `lost` is told of a blob that is none any more: its file is damaged.
    """

    def __init__(
        self,
        folder: Path,
        lock: threading.Lock,
        *,
        place: Callable[[BlobId], Path],
        part: Callable[[], Path],
        lost: Callable[[BlobId], None],
        clock: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._marker = folder / "synced"
        self._lock = lock
        self._place = place
        self._part = part
        self._syncing = threading.Lock()
        self._waiting: set[BlobId] = set()
        self._tell_lost = lost
        self._clock = clock
        self._doubted: set[BlobId] = set()  # their fsync failed
        self._shaky: set[Path] = set()  # folders, likewise
        self._lost: dict[BlobId, float] = {}
        self._failed = False  # once: then all that came since the last sync is read at the next start, to be sure

    def since_ns(self) -> int:
        """What came before is on the disk; 0 where nobody ever synced."""
        return self._marker.stat().st_mtime_ns if self._marker.exists() else 0

    def came(self, blob: BlobId) -> None:
        """Under the lock."""
        self._waiting.add(blob)
        self._doubted.discard(blob)  # it is a new file
        self._lost.pop(blob, None)

    def went(self, blob: BlobId) -> None:
        """Under the lock."""
        self._waiting.discard(blob)
        self._doubted.discard(blob)

    def sync(self) -> None:
        """Return once all that came is on the disk. LocalError where it refuses, or has lost some of that. Blocks."""
        with self._syncing:  # whoever finds nothing left to do must still wait for whoever is doing it
            self._sync()
            with self._lock:
                self._lost = {blob: at for blob, at in self._lost.items() if self._clock() < at + LOST_S}
                lost = next(iter(self._lost), None)
            if lost is not None:
                raise LocalError(
                    "disk",
                    f"The disk failed to keep blob {lost.hex()[:12]}…, and has damaged it: it was thrown away.",
                    remedy="Check the disk. What was lost is fetched, or computed, again.",
                )

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
                    if self._keep(blob, place):
                        folders.update((place.parent, place.parent.parent))
                for folder in folders:
                    self._keep_folder(folder)
                if not self._failed:
                    self._marker.touch(mode=0o600)
                    os.utime(self._marker, ns=(begun, begun))
        except BaseException:
            self._failed = True
            with self._lock:
                self._waiting |= waiting
            raise

    def _keep(self, blob: BlobId, place: Path) -> bool:
        """Whether its file is on the disk; False where it is not there any more. OSError where the disk refuses."""
        if blob in self._doubted and not self._write_anew(blob, place):
            return False
        try:
            return fsync(place)
        except OSError:
            self._doubted.add(blob)
            raise

    def _write_anew(self, blob: BlobId, place: Path) -> bool:
        """In a file of which the disk has not said yet that it could not be written. False where it is gone, or was not
        kept in memory either."""
        new = self._part()
        try:
            right = copy(place, new) == blob
            with self._lock:
                if blob not in self._doubted:  # deleted meanwhile, or put again
                    return place.exists()
                if right:
                    os.replace(new, place)
                else:
                    self._lost[blob] = self._clock()
                self._doubted.discard(blob)
        except FileNotFoundError:
            return False
        finally:
            new.unlink(missing_ok=True)
        if not right:
            self._tell_lost(blob)
        return right

    def _keep_folder(self, folder: Path) -> None:
        try:
            if folder in self._shaky:
                change(folder)
            fsync(folder)
            self._shaky.discard(folder)
        except OSError:
            self._shaky.add(folder)
            raise

    def _now_ns(self) -> int:
        """The file system's own clock, which is coarser than ours and must not be mixed with it."""
        probe = self._part()
        with disk():
            probe.touch(mode=0o600)
            now = probe.stat().st_ctime_ns
            probe.unlink()
        return now
