"""What this machine has: cores, memory, disk, processor, GPUs as their driver names them. Measured, never declared.

Cores and memory are those that this process may use: a container's limits and a CPU mask count. How fast a core is
says the canary (`SandboxExecutor.run_task("canary")`), not this module. Imports no torch.
"""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import shutil
import subprocess
from pathlib import Path

import msgspec

_GPU_S = 10.0  # nvidia-smi takes a second when the driver must wake the card
_MEBIBYTE = 1 << 20
_NO_LIMIT = 1 << 60  # cgroup v1 writes "unlimited" as a number near 2^63
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


class Gpu(msgspec.Struct, frozen=True):
    """One GPU, as its driver names it."""

    name: str
    memory_mib: int
    driver: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """All that a node could sell, before its owner's limits. `disk_mib` is what is free where the data folder lies."""

    cores: int
    memory_mib: int
    disk_mib: int
    cpu: str
    architecture: str
    gpus: tuple[Gpu, ...] = ()


def measure(folder: Path) -> Machine:
    """Blocks for as long as nvidia-smi does, if there is one. `folder` need not exist yet."""
    return Machine(
        cores=cores(),
        memory_mib=memory_mib(),
        disk_mib=disk_mib(folder),
        cpu=cpu(),
        architecture=platform.machine(),
        gpus=gpus(),
    )


def cores() -> int:
    """Cores that this process may keep busy: the CPU mask, and the CPU time that its control groups allow."""
    allowed = float(len(os.sched_getaffinity(0)))
    for folder in _groups("cpu"):
        quota, period = _pair(folder / "cpu.max") or (
            _first(folder / "cpu.cfs_quota_us"),
            _first(folder / "cpu.cfs_period_us"),
        )
        if quota.isdigit() and period.isdigit() and int(period):  # "max" and -1 mean no limit
            allowed = min(allowed, int(quota) / int(period))
    return max(1, math.floor(allowed))


def memory_mib() -> int:
    """Memory of the machine, or what the control groups leave of it."""
    total = 0
    for line in _text(_PROC / "meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _first(folder / name)
            if limit.isdigit() and 0 < int(limit) < _NO_LIMIT:
                total = min(total, int(limit))
    return total // _MEBIBYTE


def disk_mib(folder: Path) -> int:
    """Free for this user, on the file system where `folder` is or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free // _MEBIBYTE


def cpu() -> str:
    """The processor's name for itself; the architecture where it has none (most ARM machines)."""
    for line in _text(_PROC / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model") and value.strip():
            return " ".join(value.split())
    return platform.machine()


def gpus() -> tuple[Gpu, ...]:
    """What nvidia-smi lists; none where it is missing, fails or hangs: that is a normal machine, not an error."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command line
            [program, *query], capture_output=True, text=True, timeout=_GPU_S, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """nvidia-smi's table. A row that is not as expected (``[N/A]`` memory of a card that fell off) is left out."""
    found = []
    for row in csv.reader(io.StringIO(text), skipinitialspace=True):
        if len(row) == 3 and row[0].strip() and row[1].strip().isdigit():
            found.append(Gpu(row[0].strip(), int(row[1]), row[2].strip()))
    return tuple(found)


def _groups(controller: str) -> list[Path]:
    """Folders of the control groups around this process, innermost first: version 2's, and version 1's of `controller`.

    In a container the root of the tree is the container's own group, whatever /proc says its name is.
    """
    folders: list[Path] = []
    for line in _text(_PROC / "self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            roots = [_CGROUPS, _CGROUPS / "unified"]
        elif controller in names.split(","):
            roots = [_CGROUPS / controller, _CGROUPS / names]
        else:
            continue
        for root in roots:
            inner = root / path.lstrip("/")
            folders += [folder for folder in (inner, *inner.parents) if folder == root or root in folder.parents]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _first(path: Path) -> str:
    return (_text(path).split() or [""])[0]


def _pair(path: Path) -> tuple[str, str] | None:
    words = _text(path).split()
    return (words[0], words[1]) if len(words) == 2 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
