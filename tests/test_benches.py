"""The benchmark command: every name that it takes has its module, and the helpers that all of them rely on count right.
Nothing here is timed."""

from __future__ import annotations

import ast
import importlib
import inspect
import time
from pathlib import Path

import psutil
import pytest

SUPPORT = Path(__file__).resolve().parent.parent / "scripts/support"


def names() -> list[str]:
    tree = ast.parse((SUPPORT / "bench.py").read_text())
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "NAMES"
    )
    found: tuple[str, ...] = ast.literal_eval(value)
    return list(found)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SUPPORT))
    monkeypatch.syspath_prepend(str(SUPPORT.parent.parent / "examples"))


@pytest.mark.parametrize("name", names())
def test_each_bench_has_its_module_with_a_run(name: str) -> None:
    module = importlib.import_module(f"benches.{name}")
    assert list(inspect.signature(module.run).parameters) == ["folder", "quick"]
    assert (module.__doc__ or "").startswith("Bar "), "it says which bar it measures"


def test_no_bench_is_left_out_of_the_command() -> None:
    helpers = {"__init__", "mark", "probes", "simulate_loop", "transfer_alone", "transfer_side"}
    assert {path.stem for path in (SUPPORT / "benches").glob("*.py")} - helpers == set(names())


def test_a_quantile_of_few_values_is_never_better_than_what_was_seen() -> None:
    probes = importlib.import_module("benches.probes")
    assert probes.quantile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert probes.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert probes.quantile(list(map(float, range(1, 201))), 0.99) == 198.0


def test_a_unit_that_is_measured_gives_its_input_back_and_tells_when_it_began(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mark = importlib.import_module("benches.mark")
    before = time.monotonic()
    assert mark.mark({"x": 1}) == {"x": 1}
    assert before <= mark.began_at(capsys.readouterr().out.strip()) <= time.monotonic()
    assert mark.began_at("some other line") is None


def test_cpu_of_a_family_holds_that_of_its_head() -> None:
    probes = importlib.import_module("benches.probes")
    me = psutil.Process()
    assert probes.family_cpu_s(me) >= probes.cpu_s(me) > 0
