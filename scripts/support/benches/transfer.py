"""Bar 9: MiB/s of a blob between two processes on loopback, authenticated and encrypted.

Both ends start from a blob on disk and end with a verified hash and fsync. Each way (direct socket, libp2p stream) is
measured with processes of its own; beside it what the disk alone takes for the same bytes, what each part of a MiB
costs by itself and the bound that follows, CPU seconds of each side, and how long a small request of the same two peers
takes before and while the bytes move. Files come from the page
cache where they fit: the disk's reading is not what the bar is about.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import Result

from benches.probes import MEBIBYTE
from benches.transfer_alone import alone

WAYS = ("direct", "stream")


def run(folder: Path, *, quick: bool) -> Result:
    size_mib, rounds = (128, 2) if quick else (512, 5)
    seen: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    disk: list[float] = []
    parts: list[dict[str, Any]] = []
    for number in range(rounds):
        disk.append(_disk_mib_per_s(folder / "floor", size_mib))
        parts.append(alone(folder))
        for way in WAYS:
            seen[way].append(measure(folder / f"{way}{number}", way, size_mib))
    details: dict[str, Any] = {
        "stream_mib_per_s": _median(seen["stream"], "mib_per_s"),
        "best_mib_per_s": max(each["mib_per_s"] for each in seen["direct"]),
        "without_fsync_mib_per_s": _median(seen["direct"], "fetched_mib_per_s"),
        "disk_alone_mib_per_s": statistics.median(disk),
        "size_mib": size_mib,
        "rounds": rounds,
    }
    details |= {name: _median(parts, name) for name in parts[0]}
    for way in WAYS:
        for side in ("taker", "giver"):
            details[f"{way}_{side}_cpu_ms_per_mib"] = 1000 * _median(seen[way], f"{side}_cpu_s") / size_mib
        for name in ("request_idle_p50_ms", "request_p50_ms", "request_p99_ms"):
            details[f"{way}_{name}"] = _median(seen[way], name)
    return Result(_median(seen["direct"], "mib_per_s"), "MiB/s", 200.0, lower=False, details=details)


def measure(folder: Path, way: str, size_mib: int) -> dict[str, Any]:
    """One transfer between two new processes, and a second one beside requests."""
    folder.mkdir(parents=True)
    with _side("give", folder / "giver", way, str(size_mib)) as giver:
        try:
            where = _line(giver)
            with _side("take", folder / "taker", way, json.dumps(where)) as taker:
                try:
                    seen = _line(taker)
                    for side in (giver, taker):
                        assert side.stdin is not None
                        side.stdin.write(b"\n")
                        side.stdin.flush()
                    return seen | _line(giver) | _line(taker)
                finally:
                    taker.kill()
        finally:
            giver.kill()
            shutil.rmtree(folder, ignore_errors=True)  # four times its size, of disk and of page cache


def _side(*arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "benches.transfer_side", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _line(side: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert side.stdout is not None
    found: dict[str, Any] = json.loads(side.stdout.readline())
    return found


def _median(seen: list[dict[str, Any]], name: str) -> float:
    return statistics.median(each[name] for each in seen)


def _disk_mib_per_s(path: Path, size_mib: int) -> float:
    """What the disk takes for these bytes with one fsync, nothing else being done."""
    piece = os.urandom(MEBIBYTE)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(size_mib):
            file.write(piece)
        os.fsync(file.fileno())
    took = time.perf_counter() - began
    path.unlink()
    return size_mib / took
