"""Figures of the account's money, against the real contracts, and the alarm rules that are made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from fakes.contract_chain import Chain
from fakes.contract_world import Job
from fakes.node import FakeNode
from tallymesh.errors import ChainError
from tallymesh_ledger.chain import Contracts
from tallymesh_node.http.metrics import NodeCollector
from tallymesh_node.money_watch import FIGURES, USUAL_GAS, MoneyWatch

PAGE = Path(__file__).parents[2] / "docs/how-to/watch-your-money.md"


async def test_figures_are_what_the_chain_says() -> None:
    chain = Chain()
    job = Job(chain.world, workers=1, positions=4)
    call = chain.world.call
    call("JobEscrow", "open", job.order, [job.seating(0)], by=job.payer)
    call("JobEscrow", "settle", [job.settlement(0, 1)], by=job.payer)
    worker, rpc = job.workers[0], chain.rpc()
    watch = MoneyWatch(rpc, Contracts.of(rpc, chain.network), worker.address, lambda: 5 * 10**17, lambda: 77.0)
    assert watch.figures == {}
    await watch.look()
    found = watch.figures
    assert set(found) == set(FIGURES)
    lock, slot = job.leases[0].lock / 10**18, chain.world.parameters.slot_wei / 10**18
    assert found["stake_locked_mesh"] == pytest.approx(lock)
    assert found["stake_free_mesh"] == pytest.approx(slot - lock)
    assert found["credits_mesh"] == pytest.approx(0.98 * job.price / 10**18)
    assert (found["tokens_mesh"], found["escrow_mesh"], found["transactions_pending"]) == (0, 0.5, 0)
    price = int(chain.methods.call("eth_gasPrice", []), 16)
    assert found["gas_transactions_left"] == found["gas_coin"] * 10**18 // (price * USUAL_GAS) > 1000
    assert found["money_read_timestamp_seconds"] == 77.0


async def test_transactions_that_no_block_has_are_counted() -> None:
    chain = Chain()
    rpc = chain.rpc()
    rpc.rule = lambda m, p: {"result": "0x5"} if m == "eth_getTransactionCount" and p[1] == "pending" else None
    watch = MoneyWatch(rpc, Contracts.of(rpc, chain.network), b"\x07" * 20, lambda: 0)
    await watch.look()
    assert watch.figures["transactions_pending"] == 5


async def test_a_look_that_fails_leaves_the_figures_and_their_age() -> None:
    chain = Chain()
    rpc, now = chain.rpc(), [1.0]
    watch = MoneyWatch(rpc, Contracts.of(rpc, chain.network), chain.world.bank.address, lambda: 0, lambda: now[0])
    await watch.look()
    before, now[0] = watch.figures, 2.0
    rpc.rule = lambda method, params: {"error": {"code": -32000, "message": "no"}} if method == "eth_call" else None
    with pytest.raises(ChainError):
        await watch.look()
    assert watch.figures == before


class Rich(FakeNode):
    """A node whose every figure is known."""

    def view(self) -> Any:
        import msgspec

        return msgspec.structs.replace(super().view(), counters=dict.fromkeys(FIGURES, 1.0))


def exposed(folder: Path) -> set[str]:
    """Names that a node's /metrics has."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(NodeCollector(Rich(folder)))
    text = prometheus_client.generate_latest(registry).decode()
    for name, says in FIGURES.items():
        assert f"# HELP tallymesh_{name} {says}" in text
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def rules() -> list[dict[str, str]]:
    """The alarm rules on the page: each one's keys, in the block that people copy."""
    (block,) = re.findall(r"```yaml\n(groups:\n.*?)```", PAGE.read_text(), re.DOTALL)
    found: list[dict[str, str]] = []
    for line in block.splitlines():
        key = re.fullmatch(r"\s*(?:- )?(alert|expr|for|severity|summary|description): (.+)", line)
        if key and key[1] == "alert":
            found.append({})
        if key:
            found[-1][key[1]] = key[2].strip("\"'")
    return found


def names_in(expressions: Iterable[str]) -> set[str]:
    return {name for expression in expressions for name in re.findall(r"\btallymesh_[a-z_]+", expression)}


def test_every_alarm_is_made_of_metrics_that_a_node_has(tmp_path: Path) -> None:
    found = rules()
    assert len(found) >= 6
    for rule in found:
        assert set(rule) >= {"alert", "expr", "for", "severity", "summary"}, rule
        assert re.fullmatch(r"[A-Z][A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"\d+[smhd]", rule["for"])
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["severity"] in ("page", "ticket")
        assert names_in([rule["expr"]]), rule
    used = names_in(rule["expr"] for rule in found)
    assert used <= exposed(tmp_path), used - exposed(tmp_path)
    assert len({rule["alert"] for rule in found}) == len(found)


def test_the_page_names_no_metric_that_is_not_there(tmp_path: Path) -> None:
    named = names_in([PAGE.read_text()])
    assert named <= exposed(tmp_path) | {"tallymesh_node"}, named - exposed(tmp_path)
