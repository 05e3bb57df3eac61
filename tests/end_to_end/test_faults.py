"""Nodes that die, vanish, are taken back by their owners, cannot be reached, or hold no stake: the job finishes, and
who worked is paid. Real processes, killed with SIGKILL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tallymesh
from end_to_end import functions, shop
from end_to_end.repeat import until_it_happens
from end_to_end.scene import ENDED, Market, free_port, shell, wait_until
from tallymesh import Require
from tallymesh_node.local_network import NodeProcess

pytestmark = pytest.mark.end_to_end

WAIT_S = 300.0
SETTLES_S = 200.0  # a short lease's last quarter begins after 50 s
ROUNDS = 8  # of the training whose payer is killed after the first: ten seconds of work
PAUSED_UNITS = 40  # of the job in which a worker is taken back
UNITS = 72  # of the job whose worker is killed: six seconds of work for all five


def why_node(market: Market, name: str) -> str:
    """What `tallymesh why --node` says to the node's owner."""
    environment = {**shell(market.local.folder), "TALLYMESH_HOME": str(market.node(name).folder)}
    done = market.command("why", "--node", "--json", cwd=market.local.folder, environment=environment)
    assert done.returncode == 0, done.stderr
    return " ".join(json.loads(done.stdout)["reasons"])


class Orphan(NamedTuple):
    """A seat whose payer is gone for good."""

    seat: str
    account: str
    accepted: int
    before: int  # wei that the account had earned by then


@pytest.fixture(scope="module")
def orphan(market: Market) -> Iterator[Orphan]:
    """A payer that is killed once its worker holds an Accept. Begun first: its lease runs while other tests do."""
    doomed = market.add_ready("doomed", slots=0, roles=("submit",))
    market.connect("doomed")

    def accepts() -> dict[str, float]:
        """How many each worker was ever given, by its own word."""
        views = [market.view(name) for name in market.local.nodes if name.startswith("worker")]
        return {view.account: view.counters.get("worker_accepts", 0) for view in views}

    before = accepts()
    # Little work is declared, so that the lease is short: a worker settles for itself in its last quarter.
    job = tallymesh.map(functions.slow, range(16), seconds=1.0, budget="2.0", work=0.2, workers=1)

    def accepted() -> Any:
        """An Accept that dies with its payer is none: the worker has it, too."""
        peers = [peer for peer in job.view.peers if peer.accepted]
        return next((peer for peer in peers if accepts()[peer.account] > before[peer.account]), None)

    peer = wait_until("the worker holds an Accept", accepted, timeout_s=WAIT_S)
    assert market.paid_units(peer.seat) == 0, "nothing was settled yet"
    doomed.kill()
    market.connect()
    yield Orphan(peer.seat, peer.account, peer.accepted, market.balance(peer.account).credits_wei)
    market.drop(doomed)


@pytest.fixture(scope="module")
def cheapest(market: Market, orphan: Orphan) -> Iterator[NodeProcess]:
    """A worker that is taken first, for it asks for less. Not for the orphan's job, which was begun before. It audits
    nothing: for a silent auditor the payer waits half a minute."""
    node = market.add_ready("cheapest", ask_price="0.005", roles=("worker",))
    yield node
    market.drop(node)


def say(market: Market, node: NodeProcess, *words: str) -> None:
    """`tallymesh node WORDS` on that node's machine."""
    environment = {**shell(market.local.folder), "TALLYMESH_HOME": str(node.folder)}
    done = market.command("node", *words, cwd=market.local.folder, environment=environment)
    assert done.returncode == 0, done.stderr


def test_a_paused_node_hands_its_units_over_and_is_paid_for_every_receipt(
    market: Market, orphan: Orphan, cheapest: NodeProcess
) -> None:
    account = market.account("cheapest")
    market.connect()

    def paused() -> tallymesh.Job | None:
        """The job in which it was paused while it had a unit that ran, and others waited."""
        job = tallymesh.map(functions.slow, range(PAUSED_UNITS), budget="2.0", work=0.5)

        def at_work() -> str:
            view = job.view
            mine = [peer for peer in view.peers if peer.account == account]
            early = view.units_done <= PAUSED_UNITS // 2
            if early and any(peer.received and peer.assigned > peer.received for peer in mine):
                return "at work"
            return view.status if view.status in ENDED else ""

        if wait_until("it is at work", at_work, timeout_s=WAIT_S) in ENDED:
            return None
        say(market, cheapest, "pause")

        def left() -> str:
            mine = [peer for peer in job.view.peers if peer.account == account]
            if all(peer.problem is not None for peer in mine):
                return "left"
            return job.status if job.status in ENDED else ""

        if wait_until("it left its seats", left, timeout_s=WAIT_S) == "left":
            return job
        say(market, cheapest, "resume")
        return None

    job = until_it_happens("it is paused in the middle of a job", paused)
    wait_until("the job is done", lambda: job.status in ENDED, timeout_s=WAIT_S)
    assert job.results() == [3 * x + 1 for x in range(PAUSED_UNITS)]
    peers = job.view.peers
    mine = [peer for peer in peers if peer.account == account]
    assert any("paused" in str(peer.problem) for peer in mine), mine
    for peer in mine:
        assert peer.accepted == peer.received, "every unit with a receipt counts: nothing was wasted"
        assert market.paid_units(peer.seat) == peer.accepted
    assert sum(peer.accepted for peer in peers) == PAUSED_UNITS, "the rest ran elsewhere, and each unit was paid once"

    view = market.view("cheapest")
    assert {"paused"} <= {problem.code for problem in view.problems}
    wait_until("it offers nothing", lambda: market.view("cheapest").offer == {}, timeout_s=WAIT_S)
    say(market, cheapest, "resume")

    def offers() -> Any:
        found = market.view("cheapest")
        return found.offer and not {"paused"} & {problem.code for problem in found.problems}

    wait_until("it is lent again", offers, timeout_s=WAIT_S)
    wait_until(
        "the payer knows it",
        lambda: any(offer["account"] == account for offer in market.payer.get("/v1/offers")),
        timeout_s=WAIT_S,
    )


def test_a_worker_killed_in_a_unit_is_replaced_and_all_are_paid_for_what_was_verified(
    market: Market, orphan: Orphan, cheapest: NodeProcess
) -> None:
    """The last that is shown with that worker: it stays dead."""
    account = market.account("cheapest")
    market.connect()

    def killed() -> tallymesh.Job | None:
        """The job in which it was killed when one unit was verified, one was running, and there were more to come."""
        job = tallymesh.map(functions.slow, range(UNITS), budget="2.0", work=0.5)

        def at_work() -> str:
            view = job.view
            mine = [peer for peer in view.peers if peer.account == account]
            early = view.units_done <= UNITS * 3 // 4
            if early and any(peer.accepted and peer.assigned > peer.received for peer in mine):
                return "at work"
            return view.status if view.status in ENDED else ""

        if wait_until("the victim is at work", at_work, timeout_s=WAIT_S) in ENDED:
            return None
        cheapest.kill()
        return job

    job = until_it_happens("the victim is in the middle of a unit", killed)
    wait_until("the job is done", lambda: job.status in ENDED, timeout_s=WAIT_S)
    assert job.results() == [3 * x + 1 for x in range(UNITS)]
    peers = job.view.peers
    for peer in peers:
        assert market.paid_units(peer.seat) == peer.accepted
    (mine,) = [peer for peer in peers if peer.account == account]
    assert 1 <= mine.accepted == mine.received < mine.assigned, "paid for what it had a receipt for"
    assert mine.problem is not None
    assert sum(peer.accepted for peer in peers) == UNITS, "the rest ran elsewhere, and each unit was paid once"


def test_a_payer_that_was_killed_goes_on_where_it_was(market: Market, orphan: Orphan, folder: Path) -> None:
    settings = {**shop.FEDERATED, "rounds": ROUNDS}

    def killed() -> tallymesh.Job | None:
        """The job in the middle of which it was killed, at its payer that was started again."""
        market.connect()
        job = tallymesh.attach(shop.submit(market, folder, settings))
        wait_until("the first round is done", lambda: job.view.rounds_done >= 1, timeout_s=WAIT_S, pause_s=0.02)
        if job.view.rounds_done == ROUNDS:
            return None
        market.restart(market.payer)
        market.connect()
        return tallymesh.attach(job.id)

    job = until_it_happens("the payer is in the middle of a training", killed)
    wait_until("the job is done", lambda: job.status in ENDED, timeout_s=WAIT_S)
    assert job.result.model_sha == shop.train(market, folder, settings, TALLYMESH_BACKEND="local")["sha"]
    seats = [peer.seat for peer in job.view.peers]
    wait_until("the refund", lambda: market.held_by(job.id, seats) == 0, timeout_s=WAIT_S)
    for peer in job.view.peers:
        assert market.paid_units(peer.seat) == peer.accepted == peer.received, "nobody lost a unit by it"


@pytest.fixture
def walled(market: Market) -> Iterator[NodeProcess]:
    """A node whose port nobody reaches: it dials out, and what it announces leads nowhere. It alone has the memory."""
    announce = f"/ip4/127.0.0.1/tcp/{free_port()}"
    node = market.add_ready("walled", memory_mib="3000", announce=announce)
    yield node
    market.drop(node)


def test_a_node_with_a_blocked_port_gets_no_work_and_both_sides_say_why(
    market: Market, orphan: Orphan, walled: NodeProcess
) -> None:
    market.connect()
    job = tallymesh.map(functions.square, range(3), budget="1.0", require=Require(memory_gib=2.0))
    try:

        def says() -> str:
            said = " ".join(job.why())
            return said if "None of the addresses" in said else ""

        reasons = wait_until("the job says why it waits", says, timeout_s=WAIT_S)
        assert "too_little_memory" in reasons, "the others were looked at, too"
        assert job.view.units_done == 0
        assert market.account("walled") not in {peer.account for peer in job.view.peers}
        wait_until("the node knows", lambda: market.view("walled").reachable.startswith("no"), timeout_s=WAIT_S)
        said = why_node(market, "walled")
        assert "cannot reach this node" in said
        assert "closed" in said
        assert "--announce" in said, "and what to do"
        assert {"unreachable"} <= {problem.code for problem in market.view("walled").problems}
    finally:
        job.cancel()
    wait_until("it has ended", lambda: job.status in ENDED, timeout_s=WAIT_S)


def test_a_node_without_a_slot_gets_no_lease_and_says_so(market: Market, orphan: Orphan) -> None:
    node = market.add_ready("poor", slots=0, memory_mib="3000")
    market.connect()
    job = tallymesh.map(functions.square, range(3), budget="1.0", require=Require(memory_gib=2.0))
    try:
        wait_until("the job says why it waits", lambda: "unstaked" in " ".join(job.why()), timeout_s=WAIT_S)
        assert not market.view("poor").staked

        def says() -> str:
            found = why_node(market, "poor")
            return found if "holds no slot" in found else ""

        said = wait_until("the node says why", says, timeout_s=WAIT_S)
        assert "--stake 1" in said
        assert not job.view.peers
        assert market.view("poor").counters["worker_leases_open"] == 0
    finally:
        job.cancel()
    wait_until("it has ended", lambda: job.status in ENDED, timeout_s=WAIT_S)
    market.drop(node)


def test_a_worker_with_an_accept_is_paid_though_its_payer_is_gone_for_good(market: Market, orphan: Orphan) -> None:
    """It settles the voucher itself before its lease ends. Last in this file: the lease runs meanwhile."""
    wait_until(
        "the worker settled its Accept",
        lambda: market.paid_units(orphan.seat) >= orphan.accepted,
        timeout_s=SETTLES_S,
        pause_s=0.5,
    )
    assert not market.node("doomed").running
    assert market.name_of(orphan.account).startswith("worker")
