"""Bar 1: seconds from the start of the process to the first signed offer published.

A node's very first start makes a wallet and has no canary result to show; its next one unlocks the wallet and offers
the cached class at once, marked as not confirmed yet. `value` is the next one; the very first stands beside it.
"""

from __future__ import annotations

import signal
import statistics
import time
from pathlib import Path

import psutil
from bench import Result

from benches import probes
from tallymesh_node.local_network import LocalNetwork, NodeProcess

STOP_S = 30.0


def run(folder: Path, *, quick: bool) -> Result:
    warm: list[tuple[float, float]] = []
    with LocalNetwork(folder) as network:
        network.start_chain()
        network.wait_ready([network.start_payer()])
        node = network.add("worker", settings={"memory_mib": "1024", "disk_gib": "1"})
        first = _offered(node, time.monotonic())
        confirmed = _confirmed(node)
        for _ in range(2 if quick else 5):
            _stop(node)
            began = time.monotonic()
            node.start()
            warm.append(_offered(node, began))
        again = _confirmed(node)
    return Result(
        statistics.median(wall for wall, _ in warm),
        "s",
        3.0,
        details={
            "slowest_s": max(wall for wall, _ in warm),
            "cpu_s": statistics.median(cpu for _, cpu in warm),
            "first_start_s": first[0],
            "first_start_cpu_s": first[1],
            "class_confirmed_s": again,
            "first_class_confirmed_s": confirmed,
            "starts": len(warm),
        },
    )


def _offered(node: NodeProcess, began: float) -> tuple[float, float]:
    """(seconds, the daemon's own CPU seconds) until it answers that it has joined and its first offer is out."""
    seen = probes.wait_until(lambda: node.running and node.ready())
    return seen - began, probes.cpu_s(psutil.Process(node.pid))


def _confirmed(node: NodeProcess) -> float:
    """Seconds from the node's start until its offer says that the class is confirmed."""

    def sure() -> bool:
        return not node.get("/v1/node")["provisional"]

    probes.wait_until(sure, every_s=0.1)
    return time.time() - float(node.get("/v1/node")["started"])


def _stop(node: NodeProcess) -> None:
    """In good order, as an owner does; its folder stays. The client of its API is used again for the next process."""
    process = psutil.Process(node.pid)
    node.signal(signal.SIGTERM)
    probes.wait_until(lambda: not node.running, timeout_s=STOP_S)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    (node.folder / "api.json").unlink(missing_ok=True)
