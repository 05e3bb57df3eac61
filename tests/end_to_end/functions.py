"""Functions that tests map: in a file of their own, as what is beside them travels with them."""

from __future__ import annotations

import time


def square(x: int) -> dict[str, int]:
    return {"square": x * x}


def slow(x: int, seconds: float = 0.5) -> int:
    """Takes its time without taking the processor's."""
    time.sleep(seconds)
    return 3 * x + 1
