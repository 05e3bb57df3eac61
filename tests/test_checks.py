"""docs/TRUST.md names a test for every check of the contracts, and its tables fit the sources (scripts/mutate --checks
shows that each of these tests fails without its check)."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.named import names_in

ROOT = Path(__file__).resolve().parent.parent
SUPPORT = ROOT / "scripts/support"
SOURCES = ROOT / "contracts/src"


@pytest.fixture(scope="module")
def table() -> Iterator[Any]:
    sys.path.insert(0, str(SUPPORT))
    yield importlib.import_module("mutation.table")
    sys.path.remove(str(SUPPORT))


@pytest.fixture(scope="module")
def guards(table: Any) -> Any:
    return importlib.import_module("mutation.guards")


def contracts() -> list[Path]:
    return sorted([*SOURCES.glob("*.sol"), *SOURCES.glob("libraries/*.sol")])


@pytest.mark.parametrize("path", contracts(), ids=lambda path: path.stem)
def test_every_refusal_of_a_contract_is_in_the_table(table: Any, path: Path) -> None:
    """Each `revert E(…)` and each `Refusal.E` that a function gives: as often as it stands there, or oftener (a
    condition of several parts has a row for each)."""
    text = re.sub(r"//.*", "", path.read_text())
    said = Counter(re.findall(r"\brevert (?:I\w+\.)?(\w+)\(", text))
    said += Counter(f"Refusal.{name}" for name in re.findall(r"(?:return|emit Refused\(\w+,|:) Refusal\.(\w+)", text))
    del said["Refusal.None"]
    told = Counter(row.why for row in table.rows(table.CONTRACTS) if row.where.partition(".")[0] == path.stem)
    assert {why: count for why, count in said.items() if told[why] < count} == {}


def test_every_row_is_of_a_check_that_is_there(table: Any) -> None:
    sources = {path.stem: re.sub(r"\s+", " ", path.read_text()) for path in contracts()}
    rows = table.rows(table.CONTRACTS)
    assert len(rows) > 200
    for row in rows:
        contract, _, function = row.where.partition(".")
        assert re.search(rf"\b{re.escape(function)}\b", sources[contract]), row.where
        assert row.check in sources[contract], f"{row.where}: {row.check}"


def test_every_row_names_a_test_that_exists(table: Any) -> None:
    """Or says why none can notice that the check is gone."""
    rows = [*table.rows(table.CONTRACTS), *table.rows(table.PROGRAMS)]
    for row in rows:
        if not row.named:
            assert row.test.startswith("none can: "), f"{row.where}: neither a test nor a reason"
            continue
        path, _, name = row.test.partition("[")[0].partition("::")
        assert name in names_in(ROOT / path), row.test


def test_every_guard_of_the_programs_has_a_row(table: Any) -> None:
    """`scripts/mutate --checks --find --programs` writes it, where a test misses the guard."""
    told = {row.key for row in table.rows(table.PROGRAMS)}
    found = importlib.import_module("mutation.programs").all_guards()
    assert [f"{each.where}: {each.check}" for each in found if (each.where, each.check, each.why) not in told] == []


def test_every_guard_of_a_program_is_there_once(table: Any, guards: Any) -> None:
    trees: dict[str, ast.Module] = {}
    rows = table.rows(table.PROGRAMS)
    assert len(rows) > 150
    for row in rows:
        module, _, function = row.where.partition(":")
        if module not in trees:
            trees[module] = ast.parse(guards.source_of(module))
        assert guards.found(trees[module], function, row.check)
