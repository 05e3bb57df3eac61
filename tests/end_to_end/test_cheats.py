"""A contributor that makes up its work, among four honest ones: only a recomputation can tell, and it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tallymesh
from end_to_end import functions, shop
from end_to_end.repeat import until_it_happens
from end_to_end.scene import ENDED, Market, wait_until

pytestmark = pytest.mark.end_to_end

WAIT_S = 300.0


@pytest.fixture(scope="module")
def cheat(market: Market) -> Iterator[str]:
    """The cheapest of five, so that it is given work in every round; it lies from its second unit on."""
    node = market.add_ready("cheat", command=shop.module("cheats.noise_worker"), ask_price="0.005")
    yield market.account("cheat")
    market.drop(node)


def test_integrity_recomputes_every_unit(market: Market) -> None:
    market.connect()
    job = tallymesh.map(functions.square, range(10), budget="2.0", verify="integrity")
    wait_until("it is done", lambda: job.status in ENDED, timeout_s=WAIT_S)
    assert job.results() == [{"square": x * x} for x in range(10)]
    accepted = {(each.seat, each.position): each.unit for each in job.receipts if each.accepted and not each.void}
    audited = {(audit.seat, audit.position) for audit in job.audits if audit.result == "match"}
    assert len(accepted) == len(set(accepted.values())) == 10, "each unit counts once"
    assert accepted.keys() <= audited, "and was computed again"
    assert job.checks.mismatched == 0
    assert job.checks.matched >= 10


def test_made_up_work_is_caught_by_recomputation_and_the_model_is_the_honest_one(
    market: Market, folder: Path, cheat: str, reference: dict[str, Any]
) -> None:
    # Every unit of every round is recomputed, so that it is caught for certain and not only as a rule: as soon as it
    # was given a second unit.
    def caught_once() -> tuple[dict[str, Any], tallymesh.Job, list[dict[str, Any]]] | None:
        cheated = shop.train(market, folder, {**shop.FEDERATED, "verify": "integrity"})
        market.connect()
        job = tallymesh.attach(cheated["job"])
        assert cheated["sha"] == reference["sha"], "whoever computed it"
        caught = [event.data for event in job.events(follow=False) if event.kind == "caught"]
        mine = sum(peer.received for peer in job.view.peers if peer.account == cheat and peer.stage == "client")
        assert caught or mine < 2, "its second unit is made up"
        return (cheated, job, caught) if caught else None

    cheated, job, (caught,) = until_it_happens("the cheat is given two units", caught_once)
    assert caught["account"] == cheat
    assert caught["check"].startswith("recomputation:"), caught
    assert {audit.account for audit in job.audits if audit.result == "mismatch"} == {cheat}
    assert job.view.redone > 0
    assert cheated["sha"] == reference["sha"], "the final model holds no void unit"
    assert cheated["weights"] == reference["weights"]

    void = [receipt for receipt in job.receipts if receipt.void]
    assert {receipt.account for receipt in void} == {cheat}
    assert not any(receipt.accepted for receipt in void)
    for peer in job.view.peers:
        if peer.account != cheat:
            assert market.paid_units(peer.seat) == peer.received, "honest work is paid, whatever it was built on"
        elif peer.stage == "client":
            assert peer.problem is not None
            assert market.paid_units(peer.seat) == peer.accepted < peer.received, "what it made up is not paid"


def test_a_convicted_worker_gets_no_further_work_and_the_job_says_why(market: Market, cheat: str) -> None:
    market.connect()
    wait_until("its offer is there", lambda: any(o["account"] == cheat for o in market.payer.get("/v1/offers")))
    job = tallymesh.map(functions.square, range(8), budget="2.0")
    wait_until("it is done", lambda: job.status in ENDED, timeout_s=WAIT_S)
    assert cheat not in {peer.account for peer in job.view.peers}
    rejected: dict[str, Any] = next(event.data for event in job.events(follow=False) if event.kind == "match")
    assert rejected["rejected"].get("distrusted") == 1
