"""What a unit uses, where no limit of the kernel adds it up: memory, processes and descriptors of all its processes.

Run by the job's process every WATCH_S while it has units. A limit on address space bounds each process at once; this
bounds their sum, 50 ms late. Memory is the proportional share (PSS), because a fork shares most of its pages with the
template; since reading that walks page tables, the plain sum of resident pages is looked at first.
"""

from __future__ import annotations

import os
from typing import NamedTuple

WATCH_S = 0.05

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Of one unit now. `memory_bytes` is an upper bound, exact only where it would be over the limit."""

    memory_bytes: int
    processes: int
    descriptors: int


def families(proc: str) -> dict[int, list[int]]:
    """parent -> children, for every process that `proc` shows."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(proc):
        if name.isdecimal():
            stat = _read(f"{proc}/{name}/stat")
            if stat:  # the name in it may hold spaces and parentheses: count from the last one
                children.setdefault(int(stat[stat.rindex(b")") + 2 :].split()[1]), []).append(int(name))
    return children


def usage(proc: str, root: int, children: dict[int, list[int]], memory_max: int) -> Usage:
    """Of process `root` and its descendants. (In a unit's process namespace orphans go to its first process, so
    nothing leaves the tree.)"""
    members = [root]
    for pid in members:  # grows while it is walked
        members.extend(children.get(pid, ()))
    memory = sum(_resident(proc, pid) for pid in members)
    if memory > memory_max:
        memory = sum(_proportional(proc, pid) for pid in members)
    return Usage(memory, len(members), sum(_descriptors(proc, pid) for pid in members))


def _resident(proc: str, pid: int) -> int:
    statm = _read(f"{proc}/{pid}/statm")
    return int(statm.split()[1]) * _PAGE if statm else 0


def _proportional(proc: str, pid: int) -> int:
    for line in _read(f"{proc}/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return _resident(proc, pid)  # it forbade the look (PR_SET_DUMPABLE): then all its pages count


def _descriptors(proc: str, pid: int) -> int:
    try:
        return len(os.listdir(f"{proc}/{pid}/fd"))
    except OSError:
        return 0


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(65536) or b""
    except OSError:  # ended between the listing and the look
        return b""
