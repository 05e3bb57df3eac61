"""For each GPU of this machine: a short matmul and copy test, a training unit and its audit, in containers that are
shown that card alone. `scripts/gpu_check`; the last line is one JSON object, or "no GPU" (exit code 0).

The audit is the same unit in a new process and container, and must end with the same bytes. Cards of one name and
driver are one class if they give the same bytes; what they give is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tallymesh_node.gpus import Card, binds, cards
from tallymesh_node.machine import gpus
from tallymesh_node.sandbox.command import bubblewrap

MEASURE = Path(__file__).with_name("gpu_measure.py")
UNIT_S = 300.0  # CUDA's first start may compile for minutes on an old card


def measure(card: Card) -> dict[str, Any]:
    """In a container of its own. SystemExit with what it said where it fails."""
    command = [str(bubblewrap()), "--ro-bind", "/", "/", "--unshare-net", "--unshare-pid", "--die-with-parent"]
    command += ["--proc", "/proc", "--dev", "/dev", *binds([card])]
    command += ["--", sys.executable, str(MEASURE)]
    environment = {"PATH": os.environ["PATH"], "CUDA_CACHE_DISABLE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=UNIT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{card.uuid}: {done.stderr.strip()[-2000:] or f'exit status {done.returncode}'}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    named = gpus()
    if not named:
        print("no GPU")
        return
    present = cards()
    if not present:
        raise SystemExit(f"The driver names {len(named)} GPUs and shows no card in /proc/driver/nvidia.")
    rows = []
    for card in present:
        unit, audit = measure(card), measure(card)
        if unit["state"] != audit["state"]:
            raise SystemExit(
                f"{card.uuid}: the audit ended with {audit['state'][:16]}, the unit with {unit['state'][:16]}."
            )
        rows.append({"uuid": card.uuid, **unit})
        print(f"{unit['name']}: {unit['tflops']:.1f} TFLOP/s, {unit['to_gib_s']:.1f} GiB/s to it and "
              f"{unit['from_gib_s']:.1f} back; unit and audit agree ({unit['state'][:16]})")  # fmt: skip
    classes = {(row["name"], row["state"]) for row in rows}
    print(json.dumps({"offered": [gpu.shown for gpu in named], "cards": rows, "classes": len(classes)}))


if __name__ == "__main__":
    main()
