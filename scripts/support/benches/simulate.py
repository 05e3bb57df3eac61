"""Bar 7: simulated clients a second over those of a plain loop in the same run, logistic regression on digits.

Rounds of backend="local" with 100 and 500 clients, unit by unit (exact) and computed together (batched), beside the
loop in a unit of the same pool. CPU seconds stand beside wall seconds: the exact path may use all cores, the loop and
the batched path use one.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from pathlib import Path

import digits
import psutil
from bench import Result
from msgspec.structs import replace

from benches import probes, simulate_loop
from tallymesh import values
from tallymesh.prepare import PreparedJob, prepare_map
from tallymesh_learning import data as shards
from tallymesh_learning.local import LocalRun
from tallymesh_learning.prepare import prepare_training
from tallymesh_learning.runtime.pool import UnitPool

CLIENTS = (100, 500)
LOCAL = {"epochs": 1, "batch": simulate_loop.BATCH, "lr": simulate_loop.LR}


def run(folder: Path, *, quick: bool) -> Result:
    details: dict[str, float] = {}
    with UnitPool() as pool:
        for clients in CLIENTS:
            rounds = {"loop": 8 if quick else 20, "exact": 3 if quick else 6, "batched": 10 if quick else 40}
            job = _job(pool, clients)
            rates = {"loop": _loop(pool, job, rounds["loop"])}
            for kind in ("exact", "batched"):
                rates[kind], details[f"{kind}_{clients}_cpu_ms_a_client"] = _rate(pool, job, kind, rounds[kind])
            details |= {f"{kind}_{clients}_per_s": rate for kind, rate in rates.items()}
            details |= {f"{kind}_{clients}_over_loop": rates[kind] / rates["loop"] for kind in ("exact", "batched")}
    value = details.pop("exact_100_over_loop")
    return Result(value, "of the plain loop, exact, 100 clients", 0.9, lower=False, details=details)


def _job(pool: UnitPool, clients: int) -> PreparedJob:
    return prepare_training(
        simulate_loop.model,
        simulate_loop.loss,
        digits.train_set(),
        digits.test_set(),
        clients=clients,
        local=LOCAL,
        work=1.0,
        pool=pool,
    )


def _loop(pool: UnitPool, job: PreparedJob, rounds: int) -> float:
    """Client-rounds a second of the plain loop, by its median round."""
    found = [shards.decode(job.blobs[blob]).columns for blob in job.spec.inputs]
    test = shards.decode(job.blobs[job.spec.test]).columns
    item = {
        "rounds": rounds,
        "shards": [[each["0"], each["1"]] for each in found],
        "test": [test["0"], test["1"]],
    }
    prepared = prepare_map(simulate_loop.plain, [item])
    with LocalRun(prepared, pool=pool) as local:
        for _ in local.events():
            pass
        (output,) = local.plan.results()
        assert output is not None
        return len(found) / statistics.median(values.decode(local.blob(output)))


def _rate(pool: UnitPool, job: PreparedJob, kind: str, rounds: int) -> tuple[float, float]:
    """Client-rounds a second by the median round (the first one warms up), and CPU milliseconds of a client-round."""
    me = psutil.Process(os.getpid())
    at: list[float] = []
    spent: list[float] = []
    some = PreparedJob(replace(job.spec, rounds=rounds + 1), job.blobs)
    with LocalRun(some, pool=pool, batched=kind == "batched") as local:
        for event in local.events():
            if event.kind == "round":
                at.append(time.perf_counter())
                spent.append(probes.family_cpu_s(me))
    seconds = [later - earlier for earlier, later in itertools.pairwise(at)]
    clients = len(job.spec.inputs)
    return clients / statistics.median(seconds), 1000 * (spent[-1] - spent[0]) / (len(at) - 1) / clients
