"""`scripts/soak`: a local network that works for long while nodes come and go; nothing may grow with the time.

A third of the workers is never touched, and neither are payer and chain: they are watched. The others are killed or
stopped in order, one every CHURN_S, and started again. Growth is the median of the last quarter of the samples less
that of the second quarter: what a process takes to warm up is over by then, and one sample in the middle of a job says
little. Files and tasks follow the jobs and the peers of the moment; so they are also compared at rest, before the first
job and when the last one is over: whatever is left then was not let go of.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from chaos import ENDED, SMALL, Broken, free_port
from chaos_work import slow

import tallymesh
from tallymesh.errors import LocalError, TallymeshError
from tallymesh_node.local_network import STOP_S, LocalNetwork, NodeProcess, Process

JOB_S = 5.0  # between two jobs; where three are under way the next one waits
AT_ONCE = 3
UNITS = 6
UNIT_S = 0.2
CHURN_S = 20.0
GONE_S = (0.0, 5.0)
SAMPLE_S = 5.0
JOB_PATIENCE_S = 600.0  # of one job, on a machine that other work shares
MEBIBYTE = 1 << 20
# What a process may grow from its second quarter to its last. Lists of past jobs are bounded, but empty at first: a
# payer keeps views of hundreds of jobs.
MAY_GROW = {"resident_mib": 16.0, "files": 8.0, "threads": 8.0, "tasks": 40.0}
REST_S = 30.0  # of samples at rest, before the jobs and after them
CALM_S = 60.0  # from the last job to rest: what waits for a peer that is gone is given up by then
MAY_BE_LEFT = {"files": 12.0, "tasks": 30.0}  # at rest afterwards: a connection that is being made again, and its tasks
_TASKS = re.compile(r"^tallymesh_tasks (\S+)$", re.MULTILINE)


class Soak:
    def __init__(self, network: LocalNetwork, seed: int, nodes: int, say: Callable[[str], None]) -> None:
        self.network = network
        self.dice = random.Random(seed)
        self.nodes = nodes
        self.say = say
        self.jobs: dict[str, tuple[Any, int, float]] = {}  # under way: job, first input, since when
        self.done = self.restarts = 0
        self.samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.http = httpx.Client(timeout=30.0, trust_env=False)

    @property
    def payer(self) -> NodeProcess:
        return self.network.nodes["payer"]

    def start(self) -> None:
        network = self.network
        network.start_chain(port=free_port(), keep=True)
        network.start_payer(settings={"listen_port": str(free_port())})
        network.start_workers(self.nodes - 1, settings=SMALL)
        network.wait_ready()
        network.wait_market(self.payer, self.nodes - 1)
        api = self.payer.api
        assert api is not None
        tallymesh.connect(*api)
        workers = [f"worker{number}" for number in range(1, self.nodes)]
        self.steady = workers[: max(1, len(workers) // 3)]
        self.churned = workers[len(self.steady) :]

    def run(self, minutes: float) -> None:
        until = time.monotonic() + 60 * minutes
        next_job = next_churn = next_sample = time.monotonic()
        back: list[tuple[float, str]] = []
        while time.monotonic() < until or self.jobs:
            now = time.monotonic()
            if now >= next_job and now < until and len(self.jobs) < AT_ONCE:
                next_job = now + JOB_S
                self._submit()
            if now >= next_churn and now < until:
                next_churn = now + CHURN_S
                back.append(self._churn())
            for at, name in [each for each in back if each[0] <= now]:
                back.remove((at, name))
                self._start_again(name)
            if now >= next_sample:
                next_sample = now + SAMPLE_S
                self._sample()
            self._look()
            time.sleep(0.2)

    def at_rest(self) -> dict[str, dict[str, float]]:
        """Medians by process and kind while nothing is asked of the network."""
        before = self.samples
        self.samples = defaultdict(lambda: defaultdict(list))
        for _ in range(int(REST_S / SAMPLE_S)):
            time.sleep(SAMPLE_S)
            self._sample()
        seen, self.samples = self.samples, before
        return {
            name: {what: statistics.median(values) for what, values in kinds.items()} for name, kinds in seen.items()
        }

    def _submit(self) -> None:
        first = self.dice.randrange(10**6)
        job = tallymesh.map(slow, range(first, first + UNITS), seconds=UNIT_S, budget="0.05", work=UNIT_S)
        self.jobs[job.id] = (job, first, time.monotonic())

    def _look(self) -> None:
        for name, (job, first, since) in list(self.jobs.items()):
            view = job.view
            if view.status in ENDED:
                expected = [3 * x + 1 for x in range(first, first + UNITS)]
                if view.status != "done" or job.results() != expected:
                    raise Broken(f"job {name[:12]} is {view.status}: {view.problem}")
                del self.jobs[name]
                self.done += 1
            elif time.monotonic() - since > JOB_PATIENCE_S:
                raise Broken(f"job {name[:12]} does not end: {view.status}, {job.why()}")

    def _churn(self) -> tuple[float, str]:
        running = [name for name in self.churned if self.network.nodes[name].running]
        name = self.dice.choice(running)
        node = self.network.nodes[name]
        if self.dice.random() < 0.5:
            node.kill()
        else:
            node.signal(signal.SIGTERM)
            Process.end(node, time.monotonic() + STOP_S)
        return time.monotonic() + self.dice.uniform(*GONE_S), name

    def _start_again(self, name: str) -> None:
        node = self.network.nodes[name]
        (node.folder / "api.json").unlink(missing_ok=True)
        node.start()
        self.restarts += 1

    def _sample(self) -> None:
        chain = self.network.chain
        assert chain is not None
        for process in (chain, self.payer, *(self.network.nodes[name] for name in self.steady)):
            seen = psutil.Process(process.pid)
            found = {
                "resident_mib": seen.memory_info().rss / MEBIBYTE,
                "files": float(seen.num_fds()),
                "threads": float(seen.num_threads()),
            }
            if isinstance(process, NodeProcess):
                found["tasks"] = self._tasks(process)
                found["children"] = float(len(seen.children(recursive=True)))
            for what, value in found.items():
                self.samples[process.name][what].append(value)

    def _tasks(self, node: NodeProcess) -> float:
        api = node.api
        assert api is not None
        answer = self.http.get(api[0] + "/metrics", headers={"Authorization": f"Bearer {api[1]}"})
        found = _TASKS.search(answer.raise_for_status().text)
        if found is None:
            raise Broken(f"{node.name} does not tell its tasks")
        return float(found[1])

    def growth(self) -> dict[str, dict[str, list[float]]]:
        """By process and kind: [second quarter, last quarter, growth]."""
        told: dict[str, dict[str, list[float]]] = {}
        for name, kinds in self.samples.items():
            for what, values in kinds.items():
                quarter = max(1, len(values) // 4)
                early = statistics.median(values[quarter : 2 * quarter] or values)
                late = statistics.median(values[-quarter:])
                told.setdefault(name, {})[what] = [round(early, 1), round(late, 1), round(late - early, 1)]
        return told


def run(folder: Path, *, minutes: float, nodes: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """What was seen; Broken where a job was lost or wrong."""
    with LocalNetwork(folder) as network:
        soak = Soak(network, seed, nodes, say)
        soak.start()
        say(f"{nodes} nodes and a chain; never touched: payer, chain, {', '.join(soak.steady)}")
        rest = soak.at_rest()
        began = time.monotonic()
        soak.run(minutes)
        lasted = time.monotonic() - began
        growth = soak.growth()
        for name, kinds in growth.items():
            told = ", ".join(f"{what} {early:g} -> {late:g}" for what, (early, late, _) in kinds.items())
            say(f"{name}: {told}")
        grew = [
            f"{name} {what}"
            for name, kinds in growth.items()
            for what, (_, _, more) in kinds.items()
            if more > MAY_GROW.get(what, float("inf"))
        ]
        time.sleep(CALM_S)
        left: dict[str, dict[str, tuple[float, float]]] = {}
        for name, seen in soak.at_rest().items():
            left[name] = {what: (rest[name][what], seen[what]) for what in MAY_BE_LEFT if what in seen}
            for what, (early, late) in left[name].items():
                say(f"{name} at rest: {what} {early:g} -> {late:g}")
                if late - early > MAY_BE_LEFT[what]:
                    grew.append(f"{name} {what} at rest")
        return {
            "minutes": round(lasted / 60, 1),
            "nodes": nodes,
            "jobs": soak.done,
            "restarts": soak.restarts,
            "growth": {name: {what: values[2] for what, values in kinds.items()} for name, kinds in growth.items()},
            "at_rest": left,
            "grew": grew,
            "ok": not grew,
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tallymesh-soak-"))
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)  # noqa: E731
    try:
        found = run(folder, minutes=options.minutes, nodes=options.nodes, seed=options.seed, say=say)
    except (Broken, LocalError, TallymeshError) as error:
        print(f"{error}\nfolder with all logs: {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
