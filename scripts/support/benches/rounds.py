"""Bar 6: seconds of a federated round on four worker processes, receipts, sampling and audits on."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import digits
from bench import Result

import tallymesh
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
        at = [event.at for event in job.events() if event.kind == "round"]
        job.wait()
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
        },
    )
