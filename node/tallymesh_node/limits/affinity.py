"""Keeps a process and all below it on certain cores, whatever they start and wherever they put themselves.

Units hold as many cores of the node as run side by side; this bounds what a unit with many threads or processes takes
beyond its own. The kernel lets a process change its own mask, so it is set again at each look.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tallymesh_node.limits.idle import tree


def some_cores(count: int, allowed: Iterable[int]) -> frozenset[int]:
    """The `count` last ones of what this process may use: the first ones are where most systems handle interrupts."""
    return frozenset(sorted(allowed)[-count:]) if count > 0 else frozenset(allowed)


def confine(pid: int, cpus: frozenset[int]) -> int:
    """Put a process tree on `cpus`; how many threads were elsewhere. Those that end meanwhile are left out."""
    moved = 0
    for process in tree(pid):
        try:
            threads = [int(entry.name) for entry in Path(f"/proc/{process}/task").iterdir()]
        except OSError:
            continue
        for thread in threads:
            try:
                if os.sched_getaffinity(thread) != cpus:
                    os.sched_setaffinity(thread, cpus)
                    moved += 1
            except OSError:  # it ended, or a cpuset of the owner's leaves it no such core
                continue
    return moved
