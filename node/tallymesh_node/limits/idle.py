"""How long its owner has not used this machine: by the terminals' last input, and by the processor time of whatever is
not this node and what it started.

A desktop's keyboard and mouse leave no trace that an ordinary user may read everywhere; what they set in motion does.
This module decides nothing.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_PROC = Path("/proc")
_DEVICES = Path("/dev")
BUSY_CORES = 0.3  # of others, over one look: a desktop that rests stays below, somebody who works is above
NOBODY = frozenset({"idle", "iowait"})
_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
MAX_PROCESSES = 4096  # of our own tree that are counted: units are bounded far below


class Idleness:
    """Contract: `look` is called every few seconds, and gives the seconds since the owner was last active. The owner
    counts as active at the first look: nobody knows what was before."""

    def __init__(self, pid: int | None = None, proc: Path = _PROC, devices: Path = _DEVICES) -> None:
        self._pid = os.getpid() if pid is None else pid
        self._proc = proc
        self._devices = devices
        self._last: tuple[float, float] | None = None  # (clock, others' seconds)
        self._active_at = -math.inf
        self._tick = os.sysconf("SC_CLK_TCK")

    def look(self, clock: float, unix: float) -> float:
        """`clock` is monotonic, both in seconds. Blocks for as long as reading /proc takes."""
        others = self._machine_s() - self._own_s()
        if self._last is None:
            self._active_at = clock
        else:
            before, used = self._last
            # A process of ours whose parent is outside of our tree when it ends takes its seconds along: they then
            # count as others', which errs on the owner's side.
            if clock > before and (others - used) / (clock - before) > BUSY_CORES:
                self._active_at = clock
        self._last = (clock, others)
        self._active_at = max(self._active_at, clock - max(0.0, unix - self._input_at()))
        return clock - self._active_at

    def _machine_s(self) -> float:
        """Processor seconds of everything on this machine since it started."""
        for line in _text(self._proc / "stat").splitlines():
            if line.startswith("cpu "):
                figures = dict(zip(_FIELDS, line.split()[1:], strict=False))
                return sum(int(value) for name, value in figures.items() if name not in NOBODY) / self._tick
        return 0.0

    def _own_s(self) -> float:
        """Of this node and all that it started, what has ended and was waited for included."""
        return sum(self._process_s(pid) for pid in tree(self._pid, self._proc))

    def _process_s(self, pid: int) -> float:
        # After the name, which may hold anything, in brackets: fields 14 to 17 are utime, stime, cutime, cstime.
        fields = _text(self._proc / str(pid) / "stat").rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / self._tick if len(fields) > 14 else 0.0

    def _input_at(self) -> float:
        """Unix time of the newest input of any terminal; the kernel rounds it to eight seconds."""
        newest = -math.inf
        for folder, names in ((self._devices / "pts", "[0-9]*"), (self._devices, "tty[0-9]*")):
            for device in folder.glob(names):
                try:
                    newest = max(newest, device.stat().st_atime)
                except OSError:
                    continue
        return newest


def tree(pid: int, proc: Path = _PROC) -> list[int]:
    """A process and all below it, as they are at the moment."""
    found, at = [pid], 0
    while at < len(found) < MAX_PROCESSES:
        for task in _listed(proc / str(found[at]) / "task"):
            found += [int(child) for child in _text(task / "children").split()]
        at += 1
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
