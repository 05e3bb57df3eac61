"""How fast blobs may move: one pace for all that is sent, and one for all that is received, whatever carries it.

Whoever moves bytes asks first how long it has to wait for them; the pace is shared by everybody who asks, in the order
in which they ask, in whatever thread. Control messages are not paced: they are small, and a late one costs work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import trio

BURST_S = 1.0  # of silence that may be made up for: a chunk that comes after a pause does not wait
STEP_S = 0.2  # in a thread: what waits there notices within this that it was cancelled


class Pace:
    """`rate` in bytes a second, 0 being no limit; it may change at any time, for what is asked for from then on."""

    def __init__(self, rate: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._free_at = -float("inf")
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Pace {self.rate / 2**20:g} MiB/s>"

    def wait_s(self, size: int) -> float:
        """Seconds until `size` bytes may move. They count as moved from then on."""
        with self._lock:
            if not self.rate:
                return 0.0
            now = self._clock()
            begin = max(self._free_at, now - BURST_S)
            self._free_at = begin + size / self.rate
            return max(0.0, begin - now)

    def wait_in_thread(self, size: int) -> None:
        """In a thread of trio's: waits, and ends with trio.Cancelled where whoever started the thread is cancelled."""
        until = time.monotonic() + self.wait_s(size)
        while (left := until - time.monotonic()) > 0:
            trio.from_thread.check_cancelled()
            time.sleep(min(left, STEP_S))


UNPACED = Pace()
