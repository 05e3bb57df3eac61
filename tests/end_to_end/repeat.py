"""For what a test needs and cannot bring about for certain: that of several peers a certain one is given the work, or
is in the middle of a unit when it is looked at. It is tried again, each time from the beginning, until it happened.

What is shown stays the same: everything is asserted of the attempt in which it happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# An attempt misses where a worker needs over two seconds for an answer (`lease_answer_s`), or a test's look comes
# seconds late. Were that so in one attempt of ten (it was not seen yet), all of these would miss once in 10^8 runs.
TRIES = 8


def until_it_happens(what: str, attempt: Callable[[], T | None]) -> T:
    """What the first attempt gives that does not miss (None)."""
    for _ in range(TRIES):
        if (found := attempt()) is not None:
            return found
    raise AssertionError(f"{what}: not in {TRIES} attempts")
