"""The contracts' bytecode and their model agree on random calls, and a change of either would be noticed
(scripts/differential runs 200,000 calls and more changes)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).resolve().parents[3] / "scripts/support"
EPISODES = 2
# (module of the model, what stands there, what is put in its place)
CHANGES = (
    (
        "escrow",
        "(Refusal.TOO_EARLY, self._machine.now <= seat.until",
        "(Refusal.TOO_EARLY, self._machine.now < seat.until",
    ),
    ("books", "self.fee_bp // (2 * BP)", "self.fee_bp // (2 * BP + 1)"),
    ("registry", "stake.locked + amount > stake.live", "stake.locked + amount >= stake.live"),
    ("court", "case.committed < self._size(case)", "case.committed <= self._size(case)"),
)


@pytest.fixture(scope="module")
def judge() -> Iterator[Any]:
    sys.path.insert(0, str(SUPPORT))
    yield importlib.import_module("judge.episode")
    sys.path.remove(str(SUPPORT))


@pytest.fixture(scope="module")
def load(judge: Any) -> Any:
    return importlib.import_module("judge.modules").load


@pytest.mark.slow
def test_contracts_and_model_agree_on_random_calls(judge: Any, load: Any) -> None:
    tally = judge.Tally()
    for number in range(EPISODES):
        try:
            judge.run(f"fast.{number}", load(), {}, tally)
        except judge.Found as found:
            pytest.fail(f"scripts/differential --replay fast.{number}\n{found.text}")
    assert tally.calls == EPISODES * judge.CALLS
    assert {call.partition(".")[0] for call, _, _ in tally.cells} >= {
        "Token",
        "Registry",
        "JobEscrow",
        "Claims",
        "Court",
    }


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
def test_a_change_of_the_model_is_noticed(judge: Any, load: Any, change: tuple[str, str, str]) -> None:
    module, before, after = change
    source = (importlib.import_module("judge.modules").FOLDER / f"{module}.py").read_text()
    assert source.count(before) == 1
    changed = load({module: source.replace(before, after)})
    assert first_divergence(judge, changed, "teeth")


@pytest.mark.slow
def test_a_divergence_shrinks_to_the_calls_that_it_needs_and_is_made_up_again_from_its_seed(
    judge: Any, load: Any
) -> None:
    source = (importlib.import_module("judge.modules").FOLDER / "identity.py").read_text()
    changed = load({"identity": source.replace("binding.version <= version", "binding.version < version")})
    seed, steps = first_divergence(judge, changed, "shrink")
    kept = judge.shrunk(seed, changed, {}, steps)
    assert len(kept) <= 2, "two bindings of one version"
    assert steps[kept[-1]].function == "bind"
    again = judge.made_up(seed, changed)
    assert again[: len(steps)] == steps
    assert judge.diverges(seed, changed, {}, [again[i] for i in kept])


def first_divergence(judge: Any, modules: Any, name: str) -> tuple[str, Any]:
    for number in range(60):
        try:
            judge.run(f"{name}.{number}", modules, {}, judge.Tally())
        except judge.Found as found:
            return f"{name}.{number}", found.steps
    pytest.fail("nobody noticed")
