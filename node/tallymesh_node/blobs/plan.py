"""Which chunks of one blob are here, on their way or missing, and whose word that is. Nothing is read or sent here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from tallymesh_node.blobs.disk import CHUNK_BYTES


class Plan:
    """A blob of `size` bytes by one list of its chunks' hashes. The list is somebody's word until the whole blob has
    the hash that is its name. Threads share it."""

    def __init__(self, size: int, hashes: Sequence[bytes]) -> None:
        self._lock = threading.Lock()
        self.size = size
        self.hashes = list(hashes)
        self._missing = deque(range(len(hashes)))
        self._here = bytearray(len(hashes))
        self.missing_bytes = size  # what is neither here nor on its way

    def length(self, index: int) -> int:
        return min(CHUNK_BYTES, self.size - index * CHUNK_BYTES)

    @property
    def complete(self) -> bool:
        return 0 not in self._here

    @property
    def arrived(self) -> int:
        return self._here.count(1)

    def same(self, size: int, hashes: Sequence[bytes]) -> bool:
        return self.size == size and self.hashes == list(hashes)

    def next(self) -> int | None:
        """A missing chunk, from now on on its way; None where there is none."""
        with self._lock:
            if not self._missing:
                return None
            index = self._missing.popleft()
            self.missing_bytes -= self.length(index)
            return index

    def claim(self, index: int) -> bool:
        """A chunk that was asked for before the list was known: False where it is here."""
        with self._lock:
            if self._here[index]:
                return False
            self._missing.remove(index)
            self.missing_bytes -= self.length(index)
            return True

    def came(self, index: int) -> None:
        """A chunk that was on its way is here, verified and written."""
        self._here[index] = 1

    def lost(self, index: int) -> None:
        """A chunk that was on its way is missing again; the next to ask takes it first."""
        with self._lock:
            self._missing.appendleft(index)
            self.missing_bytes += self.length(index)

    def fill(self, found: Callable[[int], bool]) -> None:
        """Take over what `found` says is here already."""
        for index in range(len(self.hashes)):
            if not self._here[index] and found(index):
                with self._lock:
                    self._here[index] = 1
                    self._missing.remove(index)
                    self.missing_bytes -= self.length(index)
