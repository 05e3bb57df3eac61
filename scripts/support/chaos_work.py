"""What the jobs of `scripts/chaos` map: alone in its file, as what is beside it travels with it."""

from __future__ import annotations

import time


def slow(x: int, seconds: float) -> int:
    """Takes its time without taking the processor's."""
    time.sleep(seconds)
    return 3 * x + 1
