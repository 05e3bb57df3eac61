"""What arrived of blobs whose transfer ended before they were whole: files named by the blob, for a later try, also
after a restart or a kill. Nothing is remembered of what is in them: whoever goes on compares each chunk with its hash.

At most KEPT of them, the newest. This module does not know blobs that are whole.
"""

from __future__ import annotations

from pathlib import Path

from tallymesh.ids import BlobId

KEPT = 32  # files; with FETCHING transfers at once a node that is killed leaves half as many
SUFFIX = ".part"
BLOCK = 512  # what st_blocks counts in, whatever the file system


class Kept:
    """The files of one folder, the oldest first. What else lies there is a killed process's and is removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytes: dict[Path, int] = {}
        found = []
        for path in folder.iterdir():
            if _named(path):
                found.append((path.stat().st_mtime, path))
            else:
                path.unlink()
        for _, path in sorted(found):
            self.add(path)

    @property
    def bytes_used(self) -> int:
        return sum(list(self._bytes.values()))

    def path(self, blob: BlobId) -> Path:
        return self._folder / f"{blob.hex()}{SUFFIX}"

    def __contains__(self, blob: BlobId) -> bool:
        return self.path(blob) in self._bytes

    def take(self, blob: BlobId) -> Path | None:
        """What was kept of the blob; it is the caller's from here on."""
        path = self.path(blob)
        return path if self._bytes.pop(path, None) is not None else None

    def add(self, path: Path) -> None:
        # A chunk that came out of order leaves a hole before it, which costs no disk.
        self._bytes[path] = path.stat().st_blocks * BLOCK
        while len(self._bytes) > KEPT:
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """False where there is none."""
        path = next(iter(self._bytes), None)
        if path is None:
            return False
        del self._bytes[path]
        path.unlink(missing_ok=True)
        return True

    def drop_before(self, time: float) -> None:
        """Those last written before this Unix time."""
        for path in list(self._bytes):
            if path.stat().st_mtime < time:
                del self._bytes[path]
                path.unlink(missing_ok=True)


def _named(path: Path) -> bool:
    try:
        return path.suffix == SUFFIX and len(bytes.fromhex(path.stem)) == 32
    except ValueError:
        return False
