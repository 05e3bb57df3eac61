"""The operator's commands as real processes on a real market, each on the machine of one node: in its folder."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from end_to_end.scene import Market, shell, wait_until
from tallymesh_ledger.chain import Contracts, Rpc

pytestmark = pytest.mark.end_to_end

NAMES = ("payer", "worker1", "worker2", "worker3", "worker4")


def command(market: Market, name: str, *arguments: str, home: Path | None = None, code: int = 0) -> Any:
    folder = home or market.node(name).folder
    environment = {**shell(folder), "TALLYMESH_HOME": str(folder)}
    words = [*arguments, "--network", str(market.local.network_path), "--json"]
    done = market.command(*words, cwd=folder, environment=environment)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def histories(market: Market, federated: dict[str, Any]) -> dict[str, Any]:
    """Each node's owner asks on the machine of that node, once what was paid is final: a history ends there."""

    def newest() -> int:
        async def ask(rpc: Rpc, _contracts: Contracts) -> int:
            return (await rpc.block()).number

        found: int = market.ask(ask)
        return found

    final = newest() + market.local.network.parameters.confirmations
    wait_until("what was paid is final", lambda: newest() > final, pause_s=0.3)
    return {name: command(market, name, "history", market.account(name)) for name in NAMES}


def test_the_history_of_each_party_adds_up_to_its_balance(market: Market, histories: dict[str, Any]) -> None:
    for name, told in histories.items():
        assert told["adds_up"] is True, (name, told["totals_wei"], told["chain_wei"])
        assert told["entries"]
        sums = dict.fromkeys(told["totals_wei"], 0)
        for entry in told["entries"]:
            sums[entry["purse"]] += int(entry["amount_wei"])
        assert {purse: str(wei) for purse, wei in sums.items()} == told["totals_wei"]


def test_each_worker_proves_what_it_was_paid_for_and_others_can_check(
    market: Market, histories: dict[str, Any], tmp_path: Path
) -> None:
    proven = 0
    jobs = {job["id"].removeprefix("0x") for job in market.payer.get("/v1/jobs")}  # a test before may have had others
    for name in NAMES[1:]:
        paid = [entry for entry in histories[name]["entries"] if entry["event"] == "JobEscrow.Settled"]
        for entry in paid:
            assert entry["receipts"] == {"here": entry["end_unit"] - entry["first_unit"], "proven": True}, (name, entry)
        paid = [entry for entry in paid if entry["job"].removeprefix("0x") in jobs]
        if not paid:
            continue
        place = f"{paid[0]['seat']}:{paid[0]['first_unit']}"
        told = command(market, name, "receipt", place)
        assert told["proven"] is True
        assert told["worker"] == market.account(name)
        proof = tmp_path / f"{name}.json"
        proof.write_text(json.dumps(told))
        stranger = tmp_path / "stranger"
        stranger.mkdir(exist_ok=True)
        assert command(market, name, "receipt", place, home=stranger)["problem"]["code"] == "elsewhere"
        assert command(market, name, "receipt", "--check", str(proof), home=stranger)["unit"] == told["unit"]
        assert command(market, "payer", "receipt", place)["leaf"] == told["leaf"], "the payer has it, too"
        proven += 1
    assert proven >= 2


def test_earnings_are_what_the_history_says_was_credited(market: Market, histories: dict[str, Any]) -> None:
    for name in NAMES[1:]:
        credits = [entry for entry in histories[name]["entries"] if entry["purse"] == "credits"]
        earned = [int(e["amount_wei"]) for e in credits if e["event"] in ("JobEscrow.Settled", "JobEscrow.AuditPaid")]
        assert int(command(market, name, "earnings", market.account(name), "--per", "week")["earned_wei"]) >= sum(
            earned
        )


def test_the_network_and_the_nodes_metrics_tell_of_the_same_money(market: Market, histories: dict[str, Any]) -> None:
    told = command(market, "payer", "network")
    assert told["differences"] == []
    assert told["jobs"]["all"] >= 1
    assert told["slots"]["bought"] - told["slots"]["released"] >= 4

    def figures() -> dict[str, float]:
        url, token = market.node("worker1").api or ("", "")
        request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.split(" ") for line in lines if line.startswith("tallymesh_") and "{" not in line)
        return {name: float(value) for name, value in pairs}

    found = wait_until("the account was read", lambda: (f := figures()) and "tallymesh_gas_coin" in f and f)
    assert found["tallymesh_stake_free_mesh"] + found["tallymesh_stake_locked_mesh"] == pytest.approx(1000)
    assert found["tallymesh_gas_transactions_left"] > 0
