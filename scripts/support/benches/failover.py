"""Bar 11: seconds from kill -9 of a worker to the first instruction of its unit on another peer; and of a clean leave.

Real processes on loopback: a map of short units on five workers of one core each, all busy. One of them is killed in
the middle of a unit (or told to stop, as its owner would), and the figure is when that same unit prints its first line
elsewhere. The units are short, so that what is measured is not the wait for a core that is free; a worker dies with two
of them: the one that runs and the one that is next. Every unit must be paid exactly once all the same.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from bench import Result

import tallymesh
from benches import mark, probes
from tallymesh_node.local_network import STOP_S, LocalNetwork, NodeProcess, Process

WORKERS = 5
UNITS = 160
UNIT_S = 0.25
BEFORE = (30, 60)  # units that are done when it happens: drawn between these
LEAVE_BAR_S = 1.0
SETTINGS = {"cores": "1", "memory_mib": "1024", "disk_gib": "1"}


def run(folder: Path, *, quick: bool) -> Result:
    trials = 2 if quick else 8
    dice = random.Random(1)
    found: dict[str, list[dict[str, float]]] = {"kill": [], "leave": []}
    with LocalNetwork(folder) as network:
        network.start_chain()
        payer = network.start_payer()
        network.start_workers(WORKERS, settings=SETTINGS)
        network.wait_ready()
        network.wait_market(payer, WORKERS)
        tallymesh.connect(*payer.api)
        for number in range(trials):
            for how in found:
                # one after the other: a worker that was given up is left alone for a while
                victim = network.nodes[f"worker{1 + (2 * number + (how == 'leave')) % WORKERS}"]
                found[how].append(_trial(network, victim, how, dice))
                _again(network, payer, victim)
    kills, leaves = found["kill"], found["leave"]
    return Result(
        statistics.median(each["elsewhere_s"] for each in kills),
        "s",
        5.0,
        details={
            "slowest_s": max(each["elsewhere_s"] for each in kills),
            "until_given_up_s": statistics.median(each["noticed_s"] for each in kills),
            "leave_s": statistics.median(each["elsewhere_s"] for each in leaves),
            "leave_slowest_s": max(each["elsewhere_s"] for each in leaves),
            "leave_bar_s": LEAVE_BAR_S,
            "until_left_s": statistics.median(each["noticed_s"] for each in leaves),
            "units_moved": sum(each["moved"] for each in (*kills, *leaves)),
            "trials": trials,
            "workers": WORKERS,
            "unit_s": UNIT_S,
        },
    )


def _trial(network: LocalNetwork, victim: NodeProcess, how: str, dice: random.Random) -> dict[str, float]:
    """Seconds from the blow to what the events of the job tell; RuntimeError where a promise about pay did not hold."""
    account = victim.get("/v1/node")["account"]
    job = tallymesh.map(mark.stay, range(UNITS), seconds=UNIT_S, budget="2.0", work=UNIT_S)
    before = dice.randint(*BEFORE)

    def at_work() -> bool:
        view = job.view
        if view.status in ("done", "failed"):
            raise RuntimeError(f"the job was {view.status} before {victim.name} had work: {view.problem}")
        mine = [peer for peer in view.peers if peer.account == account]
        return view.units_done >= before and any(p.accepted and p.assigned > p.received for p in mine)

    probes.wait_until(at_work)
    wall, began = time.time(), time.monotonic()
    if how == "kill":
        victim.kill()
    else:
        victim.signal(signal.SIGTERM)
    job.wait(progress=False)
    Process.end(victim, time.monotonic() + STOP_S)  # the process alone: it is started again
    elsewhere, noticed = _seen(job, account, wall)
    _check_pay(job)
    return {
        "elsewhere_s": min(at for at, _ in elsewhere) - began,
        "noticed_s": noticed - wall,
        "moved": len(elsewhere),
    }


def _seen(job: Any, account: str, wall: float) -> tuple[list[tuple[float, int]], float]:
    """([(when a unit of the victim's began elsewhere, its index)], when the payer let the victim go)."""
    assigned: set[int] = set()
    received: set[int] = set()
    began: list[tuple[float, int]] = []
    noticed = 0.0
    for event in job.events():
        data = event.data
        if event.kind == "assign" and data["account"] == account:
            assigned.add(data["index"])
        elif event.kind == "unit" and data["account"] == account:
            received.add(data["index"])
        elif event.kind == "log" and data["account"] != account:
            at = mark.began_at(data["line"])
            if at is not None:
                began.append((at, data["index"]))
        elif event.kind == "warning" and data.get("account") == account and event.at >= wall:
            noticed = noticed or event.at
    lost = assigned - received
    elsewhere = [(at, index) for at, index in began if index in lost]
    if not elsewhere or not noticed:
        raise RuntimeError(f"nothing was lost with it, or nobody noticed: {sorted(lost)}")
    return elsewhere, noticed


def _check_pay(job: Any) -> None:
    """Every unit was accepted once, and all that were are paid in the end."""

    def paid() -> bool:
        return all(peer.paid == peer.accepted == peer.received for peer in job.view.peers)

    probes.wait_until(paid, every_s=0.1)
    accepted = sum(peer.accepted for peer in job.view.peers)
    if job.results() != [3 * x + 1 for x in range(UNITS)] or accepted != UNITS:
        raise RuntimeError(f"wrong results, or {accepted} units paid for {UNITS}")


def _again(network: LocalNetwork, payer: NodeProcess, victim: NodeProcess) -> None:
    (victim.folder / "api.json").unlink(missing_ok=True)
    victim.start()
    network.wait_ready([victim])
    network.wait_market(payer, WORKERS)
