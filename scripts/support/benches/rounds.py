"""Bar 6: seconds of a federated round on four worker processes, receipts, sampling and audits on.

Beside it the CPU seconds of a round, by who spent them: six processes and five sandboxes share the cores, so on
two of them a round takes at least half of the sum.
"""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import digits
import psutil
from bench import Result

import tallymesh
from benches import probes
from tallymesh_node.local_network import LocalNetwork

WORKERS = 4


def run(folder: Path, *, quick: bool) -> Result:
    rounds = 6 if quick else 20
    with LocalNetwork(folder) as network:
        network.start_chain()
        payer = network.start_payer()
        network.start_workers(WORKERS, settings={"cores": "1", "memory_mib": "1024", "disk_gib": "1"})
        network.wait_ready()
        network.wait_market(payer, WORKERS)
        tallymesh.connect(*payer.api)
        job = tallymesh.train(
            digits.model,
            digits.loss,
            digits.train_set(),
            test=digits.test_set(),
            rounds=rounds,
            clients=WORKERS,
            partition="iid",
            local={"epochs": 1, "batch": 32, "optimizer": "sgd", "lr": 0.1},
            budget="5.0",
        )
        at: list[float] = []
        spent: list[dict[str, float]] = []
        for event in job.events():
            if event.kind == "round":
                at.append(event.at)
                spent.append(_cpu(network))
        job.wait(progress=False)
        view, audits = job.view, [audit for audit in job.audits if audit.result]
    seconds = [later - earlier for earlier, later in itertools.pairwise(at)]
    return Result(
        statistics.median(seconds),
        "s",
        0.5,
        details={
            "rounds": rounds,
            "slowest": max(seconds),
            "quickest": min(seconds),
            "units": view.units,
            "audits": len(audits),
            "workers": WORKERS,
            **{f"{name}_cpu_s": (spent[-1][name] - spent[0][name]) / (rounds - 1) for name in spent[0]},
        },
    )


def _cpu(network: LocalNetwork) -> dict[str, float]:
    """CPU seconds so far."""
    used: dict[str, float] = {"chain": probes.cpu_s(psutil.Process(network.chain.pid))}
    for name, node in network.nodes.items():
        role = name.rstrip("0123456789")
        process = psutil.Process(node.pid)
        own = probes.cpu_s(process)
        used[role] = used.get(role, 0.0) + own
        used[f"{role}_units"] = used.get(f"{role}_units", 0.0) + probes.family_cpu_s(process) - own
    return {**used, "all": sum(used.values())}
