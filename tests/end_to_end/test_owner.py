"""The owner of a machine takes it back in the middle of a job, and lends it again: real processes, the real command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import tallymesh
from end_to_end import functions
from end_to_end.repeat import until_it_happens
from end_to_end.scene import ENDED, Market, shell, wait_until
from tallymesh_node.local_network import NodeProcess

pytestmark = pytest.mark.end_to_end

WAIT_S = 300.0
UNITS = 40


@pytest.fixture
def lent(market: Market) -> Iterator[NodeProcess]:
    """The cheapest, so that it is taken first."""
    node = market.add_ready("lent", ask_price="0.005", roles=("worker",))
    yield node
    market.drop(node)


def say(market: Market, node: NodeProcess, *words: str) -> None:
    environment = {**shell(market.local.folder), "TALLYMESH_HOME": str(node.folder)}
    done = market.command("node", *words, cwd=market.local.folder, environment=environment)
    assert done.returncode == 0, done.stderr


def test_a_paused_node_hands_its_units_over_and_is_paid_for_every_receipt(market: Market, lent: NodeProcess) -> None:
    account = market.account("lent")
    market.connect()

    def paused() -> tallymesh.Job | None:
        """The job in which it was paused while it had a unit that ran, and others waited."""
        job = tallymesh.map(functions.slow, range(UNITS), budget="2.0", work=0.5)

        def at_work() -> str:
            view = job.view
            mine = [peer for peer in view.peers if peer.account == account]
            if view.units_done <= UNITS // 2 and any(peer.received and peer.assigned > peer.received for peer in mine):
                return "at work"
            return view.status if view.status in ENDED else ""

        if wait_until("it is at work", at_work, timeout_s=WAIT_S) in ENDED:
            return None
        say(market, lent, "pause")

        def left() -> str:
            mine = [peer for peer in job.view.peers if peer.account == account]
            if all(peer.problem is not None for peer in mine):
                return "left"
            return job.status if job.status in ENDED else ""

        if wait_until("it left its seats", left, timeout_s=WAIT_S) == "left":
            return job
        say(market, lent, "resume")
        return None

    job = until_it_happens("it is paused in the middle of a job", paused)
    wait_until("the job is done", lambda: job.status in ENDED, timeout_s=WAIT_S)
    assert job.results() == [3 * x + 1 for x in range(UNITS)]
    peers = job.view.peers
    mine = [peer for peer in peers if peer.account == account]
    assert any("paused" in str(peer.problem) for peer in mine), mine
    for peer in mine:
        assert peer.accepted == peer.received, "every unit with a receipt counts: nothing was wasted"
        assert market.paid_units(peer.seat) == peer.accepted
    assert sum(peer.accepted for peer in peers) == UNITS, "the rest ran elsewhere, and each unit was paid once"

    view = market.view("lent")
    assert {"paused"} <= {problem.code for problem in view.problems}
    wait_until("it offers nothing", lambda: market.view("lent").offer == {}, timeout_s=WAIT_S)
    say(market, lent, "resume")

    def offers() -> Any:
        found = market.view("lent")
        return found.offer and not {"paused"} & {problem.code for problem in found.problems}

    wait_until("it is lent again", offers, timeout_s=WAIT_S)
