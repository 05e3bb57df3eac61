"""A worker that made up its work is gone for good: its payer gets stake through an accusation, exact to the wei."""

from __future__ import annotations

import shutil
import time
from typing import Any

import pytest

import tallymesh
from end_to_end import functions, shop
from end_to_end.repeat import until_it_happens
from end_to_end.scene import ENDED, Market, wait_until
from tallymesh_ledger.chain.abi import Event
from tallymesh_ledger.court import Ruling
from tallymesh_node.local_network import NodeProcess

pytestmark = pytest.mark.end_to_end

WAIT_S = 300.0


def wealth(market: Market, account: str) -> int:
    """Tokens, and what escrow, Claims, Accusations and Court owe, at one block: the node draws what it is owed whenever
    it likes. Stake is left alone."""
    balance = market.balance(account)
    return balance.tokens_wei + balance.credits_wei + balance.awards_wei


def spent(market: Market, account: str, job: str = "") -> int:
    """What the account's jobs took from it and did not give back, or one of them. Wei, from the chain's events."""

    def mine(event: Event) -> bool:
        return event.values["payer"] == bytes.fromhex(account[2:]) and job in ("", event.values["job"].hex())

    opened = [e.values for e in market.events("JobOpened") if mine(e)]
    refunded = [e.values for e in market.events("Refunded") if mine(e)]
    paid = sum(values["wages"] + values["auditReserve"] for values in opened)
    return paid - sum(values["wages"] + values["reserve"] for values in refunded)


def wealth_and_spent(market: Market, account: str) -> tuple[int, int]:
    """Both as of one moment: of earlier jobs something may be on its way back."""

    def seen() -> tuple[int, int] | None:
        out, mine = spent(market, account), wealth(market, account)
        return (mine, out) if out == spent(market, account) else None

    found: tuple[int, int] = wait_until("nothing came back between two looks", seen)
    return found


def stake(market: Market, account: str) -> int:
    balance = market.balance(account)
    return balance.stake_free_wei + balance.stake_locked_wei + balance.stake_unbonding_wei


def codes(market: Market, name: str) -> set[str]:
    return {problem.code for problem in market.view(name).problems}


def put_back(node: NodeProcess) -> None:
    """Its folder, from a backup, with the node started on it."""
    backup = node.folder.with_name("backup")
    shutil.copytree(node.folder, backup, ignore=shutil.ignore_patterns("spool"))
    shutil.rmtree(node.folder)
    shutil.copytree(backup, node.folder)
    (node.folder / "api.json").unlink(missing_ok=True)
    node.start()
    node.wait("it listened again", lambda: node.api is not None)


def test_a_payer_that_was_cheated_gets_stake_though_the_workers_process_is_gone_for_good(market: Market) -> None:
    began = time.monotonic()
    lazy = market.add_ready("lazy", command=shop.module("cheats.lazy_worker"), roles=("worker",), ask_price="0.005")
    cheat, payer = market.account("lazy"), market.account("payer")
    cheats_stake = stake(market, cheat)
    before, spent_before = wealth_and_spent(market, payer)
    market.connect()

    def lies() -> tuple[tallymesh.Job, Any] | None:
        """A job that the cheapest worker has, as is usual, and its peer."""
        job = tallymesh.map(functions.slow, range(12), seconds=0.3, budget="2.0", work=0.2, workers=1)

        def received() -> Any:
            return next((peer for peer in job.view.peers if peer.received), None)

        peer = wait_until("the payer has a receipt for work", received, timeout_s=WAIT_S)
        return (job, peer) if peer.account == cheat else None

    try:
        job, peer = until_it_happens("the payer has a receipt for made-up work", lies)
        lazy.kill()

        told: set[str] = set()

        def convicted() -> Event | None:
            told.update(problem["sentence"] for problem in market.payer.get(f"/v1/jobs/{job.id}/why"))
            ended = [e for e in market.events("AccusationEnded") if e.values["seat"] == bytes.fromhex(peer.seat)]
            return ended[0] if ended else None

        ended = wait_until("the accusation has ended", convicted, timeout_s=WAIT_S, pause_s=0.5)
        assert Ruling(ended.values["ruling"]) is Ruling.FOR_ACCUSER, market.node("payer").tail()
        assert not lazy.running
        assert any(sentence.startswith("Case ") for sentence in told), "the owner could see where the case stood"
        wait_until("the job is done", lambda: job.status in ENDED, timeout_s=WAIT_S)
        assert job.results() == [3 * x + 1 for x in range(12)], "the work was done by others"

        # Exact to the wei: the lock, its shares, and the payer's money beside what the job cost.
        (slashed,) = (e for e in market.events("Slashed") if e.values["seat"] == bytes.fromhex(peer.seat))
        lock = slashed.values["amount"]
        assert lock == cheats_stake - stake(market, cheat) > 0
        assert slashed.values["toPayer"] == lock * 4_000 // 10_000
        assert slashed.values["toProver"] == lock * 2_000 // 10_000
        seats = {bytes.fromhex(each.seat) for each in job.view.peers}
        all_seats = [s.hex() for s in seats]
        wait_until("the escrow holds nothing", lambda: not market.held_by(job.id, all_seats), timeout_s=WAIT_S)
        wages = sum(e.values["amount"] for e in market.events("Settled") if e.values["seat"] in seats)
        audits = sum(e.values["amount"] for e in market.events("AuditPaid") if e.values["seat"] in seats)
        fee = 3 * market.local.network.parameters.court_member_fee_wei
        assert lock * 1_500 // 10_000 >= fee, "all of the Court's fee came out of its share"
        gained = slashed.values["toPayer"] + slashed.values["toProver"]
        assert spent(market, payer, job.id) == wages + audits, "what it did not cost came back"

        after, spent_after = wealth_and_spent(market, payer)
        assert after - before == gained - (spent_after - spent_before), "what it gained, less what its jobs cost"
        assert market.paid_units(peer.seat) == 0, "nothing that it made up was paid"

        counters = wait_until(
            "the bond was drawn",
            lambda: (c := market.view("payer").counters).get("quarrels_withdrawals") and c,
            timeout_s=WAIT_S,
        )
        assert counters["quarrels_accusations_for_accuser"] == 1
        put_back(lazy)
        wait_until("it says that it was put back", lambda: "restored" in codes(market, "lazy"))
        print(f"accused and convicted {time.monotonic() - began:.0f} s after the cheat's node was started")
    finally:
        market.drop(lazy)
