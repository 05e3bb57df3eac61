"""The program whose units tell when they began. It travels to the workers, so it stands alone and imports nothing."""

from __future__ import annotations

import time

PREFIX = "began at "


def mark(item: object) -> object:
    """Its first instruction prints the machine's clock, which sandboxes share. That line is no part of the output, so
    the unit stays a pure function and its audit finds the same bytes."""
    print(PREFIX, time.monotonic(), sep="")
    return item


def stay(x: int, seconds: float) -> int:
    """The same, and then it takes its time without taking the processor's."""
    print(PREFIX, time.monotonic(), sep="")
    time.sleep(seconds)
    return 3 * x + 1


def began_at(line: str) -> float | None:
    """The moment (time.monotonic) that a line of `mark` tells; None for any other line."""
    return float(line.removeprefix(PREFIX)) if line.startswith(PREFIX) else None
