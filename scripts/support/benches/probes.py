"""What the benches share: processes as the kernel counts them, quantiles, waiting.

Wall times of a shared machine say little without the CPU seconds beside them; both are here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import psutil

MEBIBYTE = 1 << 20


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed: with few of them p99 is the slowest."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def cpu_s(process: psutil.Process) -> float:
    """User and system seconds of the process alone."""
    times = process.cpu_times()
    return float(times.user + times.system)


def family_cpu_s(process: psutil.Process) -> float:
    """The same with all that it started, the dead included (their parents were told)."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def resident_mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / MEBIBYTE


def children_mib(process: psutil.Process) -> tuple[int, float, float]:
    """Of all that it started: (processes, resident, what would be freed with them). The first sum counts every shared
    page once a process, the second once in all."""
    count, resident, own = 0, 0.0, 0.0
    for child in process.children(recursive=True):
        try:
            resident += child.memory_info().rss / MEBIBYTE
            own += child.memory_full_info().pss / MEBIBYTE
        except psutil.Error:
            continue
        count += 1
    return count, resident, own


def wait_until(ready: Callable[[], bool], *, timeout_s: float = 120.0, every_s: float = 0.01) -> float:
    """The moment (time.monotonic) at which it was seen to be so."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {timeout_s:g} s")
        time.sleep(every_s)
    return time.monotonic()
