"""`scripts/survive`: one job again and again on five workers, two of which are killed at moments drawn by the seed.

The first run is left in peace: its result hash is what every other one must have, and its length is the time in which
the deaths are drawn. After each run: 40 units are paid on chain, each worker exactly for what was accepted of it, and
nobody was convicted. What a killed worker had proven is paid although it is dead: it is started only after that.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos import ENDED, SMALL, Broken, free_port, paid_units
from chaos_work import slow

import tallymesh
from tallymesh.errors import LocalError
from tallymesh_node.local_network import STOP_S, LocalNetwork, NodeProcess, Process

WORKERS = 5
DEATHS = 2
UNITS = 40
UNIT_S = 0.4
PATIENCE_S = 300.0  # for a job that loses two of five workers, on a loaded machine


class Survival:
    def __init__(self, network: LocalNetwork, seed: int, say: Callable[[str], None]) -> None:
        self.network = network
        self.dice = random.Random(seed)
        self.say = say
        self.result = ""
        self.lasts_s = 0.0  # of a job in peace
        self.seconds: list[float] = []
        self.dead_paid = 0  # units of killed workers that were paid
        self.moved = 0  # units that had been assigned to a worker that died

    @property
    def payer(self) -> NodeProcess:
        return self.network.nodes["payer"]

    def start(self) -> None:
        network = self.network
        network.start_chain()
        network.start_payer(settings={"listen_port": str(free_port())})
        network.start_workers(WORKERS, settings=SMALL)
        self.ready()

    def ready(self) -> None:
        self.network.wait_ready()
        self.network.wait_market(self.payer, WORKERS)
        api = self.payer.api
        assert api is not None
        tallymesh.connect(*api)

    def peace(self) -> None:
        view, self.lasts_s = self._job([])
        self.result = view.result
        self.say(f"in peace: {self.lasts_s:.1f} s, result {self.result[:12]}")

    def run(self) -> None:
        """One job, two deaths; then everybody is there again."""
        doomed = self.dice.sample([f"worker{number}" for number in range(1, WORKERS + 1)], DEATHS)
        moments = sorted(self.dice.uniform(0.0, self.lasts_s) for _ in doomed)
        accounts = {self.network.nodes[name].get("/v1/node")["account"] for name in doomed}
        view, seconds = self._job(list(zip(moments, doomed, strict=True)))
        dead = [peer for peer in view.peers if peer.account in accounts]
        self.dead_paid += sum(peer.accepted for peer in dead)
        self.moved += sum(peer.assigned - peer.accepted for peer in dead)
        self.seconds.append(seconds)
        told = ", ".join(f"{name} at {at:.1f} s" for at, name in zip(moments, doomed, strict=True))
        self.say(f"{seconds:.1f} s, dead: {told}; {sum(peer.accepted for peer in dead)} of their units paid")
        # The payer's node is started anew, too: it leaves workers that died alone for a while, and forgets that so.
        self.payer.signal(signal.SIGTERM)
        Process.end(self.payer, time.monotonic() + STOP_S)
        for node in (self.payer, *(self.network.nodes[name] for name in doomed)):
            (node.folder / "api.json").unlink(missing_ok=True)
            node.start()
        self.ready()

    def _job(self, deaths: list[tuple[float, str]]) -> tuple[Any, float]:
        began = time.monotonic()
        job = tallymesh.map(slow, range(UNITS), seconds=UNIT_S, budget="2.0", work=UNIT_S)
        while (view := job.view).status not in ENDED or deaths:
            if deaths and time.monotonic() - began >= deaths[0][0]:
                self.network.nodes[deaths.pop(0)[1]].kill()
            elif time.monotonic() - began > PATIENCE_S:
                raise Broken(f"the job does not end: {view.status}, {job.why()}")
            else:
                time.sleep(0.05)
        seconds = time.monotonic() - began
        if view.status != "done" or job.results() != [3 * x + 1 for x in range(UNITS)]:
            raise Broken(f"the job is {view.status}: {view.problem}")
        if self.result and view.result != self.result:
            raise Broken(f"another result: {view.result} instead of {self.result}")
        return self._paid(job), seconds

    def _paid(self, job: Any) -> Any:
        """The job's view once the escrow has paid what was accepted; each unit exactly once."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            view = job.view
            peers = [peer for peer in view.peers if peer.received]
            accepted = [peer.accepted for peer in peers]
            paid = paid_units(self.network.network, [peer.seat for peer in peers])
            if paid == accepted and sum(paid) == UNITS:
                break
            if sum(paid) > UNITS or any(p > a for p, a in zip(paid, accepted, strict=True)):
                raise Broken(f"more was paid than was verified: {paid} for {accepted}")
            if time.monotonic() > deadline:
                raise Broken(f"not paid: on chain {paid}, accepted {accepted}")
            time.sleep(0.2)
        if any(peer.problem is not None and peer.problem.code == "convicted" for peer in peers):
            raise Broken(f"somebody honest was convicted: {peers}")
        return view


def run(folder: Path, *, runs: int, seed: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """What happened; Broken where a promise did not hold."""
    with LocalNetwork(folder) as network:
        survival = Survival(network, seed, say)
        survival.start()
        survival.peace()
        for _ in range(runs):
            survival.run()
        return {
            "runs": runs,
            "seed": seed,
            "deaths": runs * DEATHS,
            "units": (runs + 1) * UNITS,
            "result": survival.result,
            "peace_s": round(survival.lasts_s, 1),
            "slowest_s": round(max(survival.seconds, default=0.0), 1),
            "paid_to_the_dead": survival.dead_paid,
            "units_moved": survival.moved,
            "ok": True,
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/survive", description=__doc__)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tallymesh-survive-"))
    try:
        found = run(folder, runs=options.runs, seed=options.seed, say=lambda line: print(line, file=sys.stderr))
    except (Broken, LocalError) as error:
        print(error, file=sys.stderr)
        again = f"scripts/survive --runs {options.runs} --seed {options.seed}"
        print(f"folder with all logs: {folder}\ntry again: {again}", file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
