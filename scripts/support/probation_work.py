"""What the newcomer of `scripts/probation` is given to do: a file of its own, because it is shipped."""

from __future__ import annotations


def tenth(item: int) -> int:
    return item * item % 1009
