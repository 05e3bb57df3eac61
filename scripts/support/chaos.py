"""`scripts/chaos`: SIGKILL for nodes, payer and chain of a local network at random points of jobs.

Each job is a map whose results are known. After every job: all results are right, every unit was paid once, every
receipt that the payer took is paid, nobody was convicted. What happens when follows from `--seed` and the machine's
speed; a failure prints the command that tries again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from chaos_work import slow

import tallymesh
from tallymesh.errors import LocalError, TallymeshError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_node.local_network import LocalNetwork, NodeProcess

WORKERS = 4
UNITS = 32
UNIT_S = 0.4
SETTLED_S = 10.0  # after the later of the last restart and the job's end: what is promised
PATIENCE_S = 180.0  # for a job that goes on under fire
ENDED = ("done", "failed", "cancelled")
SMALL = {"cores": "1", "memory_mib": "1024", "disk_gib": "1"}


class Broken(Exception):
    """A promise did not hold."""


class Chaos:
    def __init__(self, network: LocalNetwork, seed: int, say: Callable[[str], None]) -> None:
        self.network = network
        self.dice = random.Random(seed)
        self.next: list[str] = []  # kinds of what is killed next: each once in three kills, in any order
        self.say = say
        self.killed: Counter[str] = Counter()
        self.restarted_at = 0.0
        self.settle_s: list[float] = []
        self.jobs = 0

    # The network.

    def start(self) -> None:
        network = self.network
        network.start_chain(port=free_port(), keep=True)
        payer = network.start_payer(settings={"listen_port": str(free_port())})
        network.start_workers(WORKERS, settings=SMALL)
        network.wait_ready()
        network.wait_market(payer, WORKERS)
        self.connect()

    @property
    def payer(self) -> NodeProcess:
        return self.network.nodes["payer"]

    def connect(self) -> None:
        api = self.payer.api
        if api is None:
            raise Broken(f"the payer's node ended by itself:\n{self.payer.tail()}")
        tallymesh.connect(*api)

    def strike(self) -> None:
        """Kill one of them, somewhere, and start it again."""
        time.sleep(self.dice.uniform(0.1, 2.5))
        if not self.next:
            self.next = self.dice.sample(["payer", "chain", "worker"], 3)
        kind = self.next.pop()
        name = f"worker{self.dice.randint(1, WORKERS)}" if kind == "worker" else kind
        gone_s = self.dice.uniform(0.0, 1.5)
        self.say(f"kill -9 {name}, back after {gone_s:.1f} s")
        if name == "chain":
            chain = self.network.chain
            assert chain is not None
            chain.kill()
            time.sleep(gone_s)
            chain.start()
            if not chain.first_line():
                raise Broken(f"the chain did not start again:\n{chain.tail()}")
        else:
            node = self.network.nodes[name]
            node.kill()
            (node.folder / "api.json").unlink(missing_ok=True)
            time.sleep(gone_s)
            node.start()
            self.network.wait_ready([node])
            self.connect()
        self.killed[name.rstrip("0123456789")] += 1
        self.restarted_at = time.monotonic()

    # One job.

    def job(self, kills: int) -> None:
        first = self.dice.randrange(10**6)
        inputs = range(first, first + UNITS)
        job = tallymesh.map(slow, inputs, seconds=UNIT_S, budget="2.0", work=UNIT_S)
        self.say(f"job {job.id[:12]}")
        began = time.monotonic()
        while (view := self.look(job.id))["status"] not in ENDED:
            if kills > 0:
                self.strike()
                kills -= 1
            elif time.monotonic() - max(began, self.restarted_at) > PATIENCE_S:
                raise Broken(f"the job does not end: {view['status']}, {self.payer.get(f'/v1/jobs/{job.id}/why')}")
            else:
                time.sleep(0.2)
        ended = time.monotonic()
        if view["status"] != "done":
            raise Broken(f"the job is {view['status']}: {view['problem']}")
        found = tallymesh.attach(job.id).results()
        if found != [3 * x + 1 for x in inputs]:
            raise Broken(f"wrong results: {found}")
        self.check(job.id, max(ended, self.restarted_at))
        self.jobs += 1

    def look(self, job: str) -> dict[str, Any]:
        """The job as the payer's node says; asked again while that node comes up."""
        deadline = time.monotonic() + 60
        while True:
            try:
                found: dict[str, Any] = self.payer.get(f"/v1/jobs/{job}")
                return found
            except (LocalError, TallymeshError) as error:
                if time.monotonic() > deadline:
                    raise Broken(f"the payer's node does not answer: {error}") from None
                time.sleep(0.2)

    def check(self, job: str, since: float) -> None:
        while True:
            peers = [peer for peer in self.look(job)["peers"] if peer["received"]]
            paid = self.paid([peer["seat"] for peer in peers])
            if paid == [peer["accepted"] for peer in peers] == [peer["received"] for peer in peers]:
                break
            if time.monotonic() - since > PATIENCE_S:
                raise Broken(f"not settled: on chain {paid}, {peers}")
            time.sleep(0.2)
        self.settle_s.append(time.monotonic() - since)
        if sum(paid) != UNITS:
            raise Broken(f"{sum(paid)} units were paid for {UNITS}: {peers}")
        if any(peer["problem"] and peer["problem"]["code"] == "convicted" for peer in peers):
            raise Broken(f"somebody honest was convicted: {peers}")

    def paid(self, seats: list[str]) -> list[int]:
        return paid_units(self.network.network, seats)


def paid_units(network: Network, seats: list[str]) -> list[int]:
    """As the escrow holds it, whatever anybody's node says."""

    async def ask() -> list[int]:
        async with Rpc(network.rpc_urls, chain_id=network.chain_id) as rpc:
            escrow = Contracts.of(rpc, network).escrow
            return [found.paid_units for found in await escrow.seats_of([bytes.fromhex(seat) for seat in seats])]

    return trio.run(ask)


def run(folder: Path, *, kills: int, seed: int, a_job: int = 4, say: Callable[[str], None] = print) -> dict[str, Any]:
    """What happened; Broken where a promise did not hold. `a_job`: kills while one job runs."""
    with LocalNetwork(folder) as network:
        chaos = Chaos(network, seed, say)
        chaos.start()
        began = time.monotonic()
        while sum(chaos.killed.values()) < kills:
            chaos.job(min(a_job, kills - sum(chaos.killed.values())))
        return {
            "kills": sum(chaos.killed.values()),
            "killed": dict(chaos.killed),
            "jobs": chaos.jobs,
            "units": chaos.jobs * UNITS,
            "settled_s": {"slowest": round(max(chaos.settle_s), 2), "bar": SETTLED_S},
            "ok": max(chaos.settle_s) <= SETTLED_S,
            "wall_s": round(time.monotonic() - began, 1),
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--a-job", type=int, default=4, help="while one job runs")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tallymesh-chaos-"))
    try:
        found = run(folder, kills=options.kills, seed=options.seed, a_job=options.a_job,
                    say=lambda line: print(line, file=sys.stderr))  # fmt: skip
    except (Broken, LocalError) as error:
        print(error, file=sys.stderr)
        again = f"scripts/chaos --kills {options.kills} --a-job {options.a_job} --seed {options.seed}"
        print(f"folder with all logs: {folder}\ntry again: {again}", file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
