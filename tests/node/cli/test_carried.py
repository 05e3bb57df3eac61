"""`withdraw --relayed` against a fake node: what is asked for, and what its owner is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.node import FakeNode, Served, serve
from fakes.shell import CliRunner
from tallymesh.api import ProbationView
from tallymesh_node.cli.app import app


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in [name for name in os.environ if name.startswith("TALLYMESH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))
    with serve(FakeNode(tmp_path / "home")) as running:
        yield running


def call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr or done.stdout


def test_a_withdrawal_without_gas_goes_through_the_node(served: Served) -> None:
    told = call("withdraw", "--relayed", "--slots", "1", "--deposit", "--max-fee", "0.02")
    assert "12D3KooWCarrier" in told
    assert "0x" + "ab" * 32 in told
    [asked] = served.node.withdrawn
    assert (asked.slots, asked.deposit, asked.fee_max_wei) == (1, True, str(2 * 10**16))
    assert json.loads(call("withdraw", "--relayed", "--json"))["fee_wei"] == str(10**16)
    assert served.node.withdrawn[1].fee_max_wei == "0", "the node decides"


def test_where_nobody_carries_it_that_is_said(served: Served) -> None:
    served.node.carriers = False
    assert "Nobody carried it" in call("withdraw", "--relayed", code=1)


def test_options_of_a_carried_withdrawal_mean_nothing_without_it(served: Served) -> None:
    assert "--relayed" in call("withdraw", "--slots", "1", code=1)
    assert served.node.withdrawn == []


def test_progress_on_probation_is_one_line() -> None:
    view = ProbationView(earned_wei=str(392 * 10**16), slot_wei=str(1000 * 10**18), seats=2, open_wei="1")
    assert str(view) == "3.92 MESH of 1000 MESH earned towards a slot (0 %)"
