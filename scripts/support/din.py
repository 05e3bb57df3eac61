"""`scripts/noise` (a library has that name): an hour of noise against the ports of a real node, and what it does to it.

One local network of real processes: chain, payer, four workers. The noise is made against one worker, and against the
payer's HTTP port; honest map jobs run all the time, and each must end with its results. What is watched of both nodes
is compared between the end of the first quiet minute's job and the quiet after the noise.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import trio
from chaos_work import slow

import tallymesh
from hostile.noises import Noise, figures, make
from tallymesh.errors import TallymeshError
from tallymesh_node.local_network import LocalNetwork

WORKERS = 4  # a class needs two others before it may be sampled
SMALL = {"cores": "1", "memory_mib": "1024", "disk_gib": "1"}
UNITS, UNIT_S = 6, 0.2
PAUSE_S = 4.0  # between two honest jobs
SAMPLE_S = 5.0
TRIES = 2  # of a question to the API, as the client has: among strangers a connection may be cut before it has spoken
CALM_S = 40.0  # after the noise: handshakes are given up after 10 s, silent HTTP lines go with their makers
GROWN_MIB = 60.0  # of one node's memory over all the noise: caches fill (offers, bindings, bans); a leak goes on
GROWN_FILES = 40  # descriptors and sockets, after the calm
GROWN_TASKS = 60


class Honest:
    """Jobs of an honest user beside it all, in a thread of its own."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self._say = say

    def job(self, first: int) -> None:
        began = time.monotonic()
        inputs = range(first, first + UNITS)
        try:
            found = tallymesh.map(slow, inputs, seconds=UNIT_S, budget="2.0", work=UNIT_S).results()
        except TallymeshError as error:
            self.failed.append(str(error))
            self._say(f"an honest job failed: {error}")
            return
        if found != [3 * x + 1 for x in inputs]:
            self.failed.append(f"wrong results: {found}")
        self.seconds.append(time.monotonic() - began)

    def go_on(self, until: threading.Event) -> None:
        first = 1000
        while not until.is_set():
            self.job(first)
            first += UNITS
            until.wait(PAUSE_S)


async def din(noises: list[Noise], seed: int, seconds: float, counts: Counter[str], watch: Callable[[], None]) -> None:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for number, each in enumerate(noises):
                nursery.start_soon(each, random.Random(seed + number), counts)
            while True:
                await trio.sleep(SAMPLE_S)
                await trio.to_thread.run_sync(watch)


def run(minutes: float, seed: int, pace: float, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    with LocalNetwork(folder) as network:
        network.start_chain()
        payer = network.start_payer()
        workers = network.start_workers(WORKERS, settings=SMALL)
        network.wait_ready()
        network.wait_market(payer, WORKERS)
        api = payer.api
        assert api is not None
        tallymesh.connect(*api)
        honest = Honest(say)
        honest.job(0)
        watched = {"worker": workers[0], "payer": payer}
        before = {name: figures(node) for name, node in watched.items()}
        most: dict[str, dict[str, float]] = {name: dict(value) for name, value in before.items()}

        counts: Counter[str] = Counter()

        def watch() -> None:
            for name, node in watched.items():
                found = None
                for tries in range(TRIES):
                    try:
                        found = figures(node)
                        break
                    except httpx.HTTPError as error:
                        counts[f"{name}: {type(error).__name__}"] += 1
                        say(f"{name}, process {node.pid}, try {tries}: {error!r}")
                if found is None:
                    honest.failed.append(f"{name}: its API did not answer")
                    continue
                for figure, value in found.items():
                    most[name][figure] = max(most[name][figure], value)
            say(json.dumps({name: {k: round(v, 1) for k, v in value.items()} for name, value in most.items()}))

        until = threading.Event()
        thread = threading.Thread(target=honest.go_on, args=(until,))
        thread.start()
        try:
            trio.run(din, make(network.network.topic, workers[0], payer, pace), seed, minutes * 60, counts, watch)
        finally:
            until.set()
            thread.join()
        time.sleep(CALM_S)
        honest.job(10**6)
        after = {name: figures(node) for name, node in watched.items()}
        return report(minutes, seed, pace, honest, counts, before, most, after)


def report(
    minutes: float,
    seed: int,
    pace: float,
    honest: Honest,
    counts: Counter[str],
    before: dict[str, dict[str, float]],
    most: dict[str, dict[str, float]],
    after: dict[str, dict[str, float]],
) -> dict[str, Any]:
    bounds = {"memory_mib": GROWN_MIB, "files": GROWN_FILES, "tasks": GROWN_TASKS}
    broken = [
        f"{name}: {figure} grew from {before[name][figure]:.0f} to {after[name][figure]:.0f}"
        for name in before
        for figure, bound in bounds.items()
        if after[name][figure] - before[name][figure] > bound
    ]
    broken += honest.failed
    rounded = {
        when: {name: {figure: round(value, 1) for figure, value in each.items()} for name, each in told.items()}
        for when, told in (("before", before), ("most", most), ("after", after))
    }
    jobs = sorted(honest.seconds)
    return {
        "minutes": minutes, "seed": seed, "pace": pace, "noise": dict(counts), "honest_jobs": len(jobs),
        "job_s_median": round(jobs[len(jobs) // 2], 1), "job_s_max": round(jobs[-1], 1), "broken": broken, **rounded,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/noise", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=1.0, help="of all noise: 0.5 is half as often, 2 twice")
    given = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    folder = Path(tempfile.mkdtemp(prefix="tallymesh-noise-"))
    told = run(given.minutes, given.seed, given.pace, folder, say)
    if told["broken"]:
        say(f"folder with all logs: {folder}")
    else:
        shutil.rmtree(folder)
    print(json.dumps(told))
    return 1 if told["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
