"""Bar 21: MB resident of the daemon process alone, a minute after its start, with nothing to do.

The node is one of a small network, so that it hears the others' offers and asks the chain as it does in life. What its
sandboxes hold is shown beside it: one warm template with torch in it, from which all jobs are forked.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil
from bench import Result

from benches import probes
from tallymesh_node.local_network import LocalNetwork

WORKERS = 2
REST_S = 60.0
QUICK_S = 15.0
WATCHED = 0.5  # of that time, its last part: the canary of the start is over by then


def run(folder: Path, *, quick: bool) -> Result:
    rest = QUICK_S if quick else REST_S
    with LocalNetwork(folder) as network:
        network.start_chain()
        payer = network.start_payer()
        worker = network.start_workers(WORKERS, settings={"cores": "1", "memory_mib": "1024", "disk_gib": "1"})[0]
        network.wait_ready()
        network.wait_market(payer, WORKERS)
        nodes = {name: psutil.Process(node.pid) for name, node in (("worker", worker), ("payer", payer))}
        _sleep_until(nodes["worker"].create_time() + (1.0 - WATCHED) * rest)
        before = {name: (time.monotonic(), probes.cpu_s(node)) for name, node in nodes.items()}
        busy_before = probes.family_cpu_s(nodes["worker"])
        _sleep_until(time.time() + WATCHED * rest)
        share = {name: _share(nodes[name], *then) for name, then in before.items()}
        sandboxes = probes.family_cpu_s(nodes["worker"]) - busy_before
        count, resident, own = probes.children_mib(nodes["worker"])
        return Result(
            probes.resident_mib(nodes["worker"]),
            "MB",
            150.0,
            details={
                "cpu_percent": 100 * share["worker"],
                "cpu_bar_percent": 1.0,
                "with_sandboxes_cpu_percent": 100 * sandboxes / (WATCHED * rest),
                "private_mb": nodes["worker"].memory_full_info().uss / probes.MEBIBYTE,
                "threads": nodes["worker"].num_threads(),
                "sandbox_processes": count,
                "sandbox_mb": resident,
                "sandbox_proportional_mb": own,
                "payer_mb": probes.resident_mib(nodes["payer"]),
                "payer_cpu_percent": 100 * share["payer"],
                "after_s": time.time() - nodes["worker"].create_time(),
            },
        )


def _share(process: psutil.Process, since: float, cpu: float) -> float:
    """Of one core since then."""
    return (probes.cpu_s(process) - cpu) / (time.monotonic() - since)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))
