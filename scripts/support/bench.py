"""Benchmarks: `scripts/bench NAME [--quick]`. Each prints a table and one JSON line; the exit code says that it could
measure, not that the bar was met. A bar is compared with `value` in the direction that the bench names."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

NAMES = (
    "offer",
    "submit",
    "rounds",
    "simulate",
    "receipts",
    "gas",
    "idle",
    "warm",
    "dispute",
    "failover",
    "rpc",
    "transfer",
)


class Result(msgspec.Struct):
    """What a bench found. `bar` is the number to meet; `lower` says that smaller is better."""

    value: float
    unit: str
    bar: float
    lower: bool = True
    details: dict[str, Any] = {}

    @property
    def ok(self) -> bool:
        return self.value <= self.bar if self.lower else self.value >= self.bar


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="tallymesh-bench-"))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        result: Result = importlib.import_module(f"benches.{options.name}").run(folder, quick=options.quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = Table(title=f"bench {options.name}", title_justify="left")
    for column in ("what", "measured", "bar"):
        table.add_column(column)
    table.add_row(options.name, f"{result.value:.4g} {result.unit}", f"{'<=' if result.lower else '>='} {result.bar:g}")
    for name, value in result.details.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value), "")
    Console().print(table)
    line = {
        "bench": options.name,
        "value": result.value,
        "unit": result.unit,
        "bar": result.bar,
        "ok": result.ok,
        "machine": {"cores": os.cpu_count(), "load_before": before},
        **result.details,
    }
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
