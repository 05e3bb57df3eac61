"""Bar 3: milliseconds from the client's call to the unit's first instruction on a peer, `open` on chain included.

The client captures the function and uploads the job package; the node signs the order, matches, asks for leases,
opens the escrow and assigns; the peer fetches what it lacks, opens a sandbox for the job and runs. Each submission is
a job of its own with one unit, to peers that are idle and know nothing of it: between two of them the last one's pay is
settled and withdrawn. The unit's first instruction prints the clock.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import psutil
from bench import Result

import tallymesh
from benches import mark, probes
from tallymesh_node.local_network import LocalNetwork

PEERS = 16
REST_S = 2.0  # after a job, for the workers to collect what they are owed
FIRST = 2  # not counted: the first ones open connections and fill caches


def run(folder: Path, *, quick: bool) -> Result:
    jobs = 6 if quick else 40
    steps: dict[str, list[float]] = {}
    with LocalNetwork(folder) as network:
        network.start_chain()
        payer = network.start_payer()
        network.start_workers(PEERS, settings={"cores": "1", "memory_mib": "1024", "disk_gib": "1"})
        network.wait_ready()
        network.wait_market(payer, PEERS)
        tallymesh.connect(*payer.api)
        node = psutil.Process(payer.pid)
        cpu: list[float] = []
        for number in range(FIRST + jobs):
            time.sleep(REST_S)
            before = probes.cpu_s(node)
            seen = _submit(number)
            if number >= FIRST:
                cpu.append(probes.cpu_s(node) - before)
                for name, seconds in seen.items():
                    steps.setdefault(name, []).append(1000 * seconds)
    return Result(
        statistics.median(steps["running"]),
        "ms",
        300.0,
        details={
            "p99_ms": probes.quantile(steps["running"], 0.99),
            "p99_bar_ms": 1500.0,
            "quickest_ms": min(steps["running"]),
            **{f"until_{name}_ms": statistics.median(values) for name, values in steps.items() if name != "running"},
            "payer_cpu_ms_a_job": 1000 * statistics.median(cpu),
            "jobs": jobs,
            "peers": PEERS,
        },
    )


def _submit(number: int) -> dict[str, float]:
    """Seconds from the call until each step of a job's life was reached, the last of them `running`."""
    wall, began = time.time(), time.monotonic()
    job = tallymesh.map(mark.mark, [number], budget="1.0", work=1.0, workers=1)
    reached = {"submitted": time.monotonic() - began}
    for event in job.events():
        if event.kind == "lease" and event.data["state"] == "asked":
            reached.setdefault("leased", event.at - wall)
        elif event.kind in ("seat", "assign"):
            reached.setdefault({"seat": "seated", "assign": "assigned"}[event.kind], event.at - wall)
        elif event.kind == "log" and "running" not in reached:
            clock = mark.began_at(event.data["line"])
            if clock is not None:
                reached["running"] = clock - began
    job.wait(progress=False)
    if "running" not in reached:
        raise RuntimeError(f"the line of job {job.id[:12]} was lost")
    return reached
