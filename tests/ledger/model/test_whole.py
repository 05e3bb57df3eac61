"""The model is whole: whatever can be called on the contracts can be called on it, and the judge calls it on both."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from fakes.chain import World
from tallymesh_ledger.chain import abi

SUPPORT = Path(__file__).resolve().parents[3] / "scripts/support"
# only each other may call these: the judge sees them through the calls that make them, and strangers refused
INNER = {
    "Registry": {"tryLock", "unlock", "admit", "relieve", "deposit", "slash"},
    "JobEscrow": {"hold", "letGo", "payClaim", "takeBond", "forfeit", "slash", "spend"},
    "Claims": {"refute"},
    "Court": {"open", "take", "reimburse"},
}  # fmt: skip
# views with arguments that the judge need not ask: each shows in something that it does compare
SHOWN_ELSEWHERE = {
    "slotAt",  # slotsFrom
    "jobIdOf", "seatIdOf",  # the ids in all events
    "accusationBond", "checkMembers",  # accuse and claim pay the one and refuse by the other
}  # fmt: skip


def functions(contract: str) -> list[dict[str, Any]]:
    document = json.loads(resources.files("tallymesh_ledger").joinpath("abi", f"{contract}.json").read_text())
    return [entry for entry in document["abi"] if entry["type"] == "function"]


def changes(entry: dict[str, Any]) -> bool:
    return entry["stateMutability"] not in ("view", "pure")


@pytest.fixture(scope="module")
def judged() -> Iterator[set[str]]:
    sys.path.insert(0, str(SUPPORT))
    yield set(importlib.import_module("judge.episode").STATES)
    sys.path.remove(str(SUPPORT))


@pytest.mark.parametrize("contract", World().contracts.contracts)
def test_the_model_has_every_call_and_every_view_that_is_no_constant(contract: str) -> None:
    model = World().contracts.contracts[contract]
    entries = [entry for entry in functions(contract) if changes(entry) or entry["inputs"]]
    assert entries
    missing = [entry["name"] for entry in entries if not callable(getattr(model, abi.snake(entry["name"]), None))]
    assert missing == []


@pytest.mark.parametrize("contract", World().contracts.contracts)
def test_the_judge_makes_every_call_that_anybody_may_make(contract: str, judged: set[str]) -> None:
    anybodys = {entry["name"] for entry in functions(contract) if changes(entry)} - INNER.get(contract, set())
    assert {name for name in anybodys if f"{contract}.{name}" not in judged} == set()


@pytest.mark.parametrize("contract", World().contracts.contracts)
def test_the_judge_compares_every_view_that_is_no_constant(contract: str) -> None:
    """It once did not ask whom a slot draws and what was burned in a period: two wrong comparisons stayed unseen."""
    tree = ast.parse((SUPPORT / "judge/views.py").read_text())
    asked = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    views = {entry["name"] for entry in functions(contract) if not changes(entry) and entry["inputs"]}
    assert views - asked - SHOWN_ELSEWHERE == set()
