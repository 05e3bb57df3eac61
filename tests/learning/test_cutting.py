"""What the Court's members rely on (node/tallymesh_node/quarrels/values.py), on real training: a unit cut at any step
ends where the whole one does, and every value in between is the same however it was reached."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from programs.bench import Bench, config
from tallymesh.units import Unit
from tallymesh_learning import data, options
from tallymesh_learning.runtime.work import UnitFailure
from tallymesh_node.quarrels.values import cut, steps_of

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest

STEPS, TOTAL = 16, 12  # as the config says, and as the training has: the last unit of a job may end earlier
RECIPES: dict[str, Any] = {
    "plain sgd": {"model": "mlp", "local": {"batch": 8, "lr": 0.1}},
    "all that has a state": {
        "model": "restless",
        "local": {"batch": 7, "optimizer": "adam", "lr": 0.01, "schedule": "cosine", "warmup": 3, "clip": 0.5},
    },
}


def made(bench: Bench, recipe: str) -> Unit:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(50, 6, generator=generator)
    shard = data.encode(data.Shard({"0": x, "1": (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()}))
    settings = config(**RECIPES[recipe], steps=STEPS, total=TOTAL)
    inputs = {"state": bench.initial(RECIPES[recipe]["model"]), "data": shard}
    return bench.unit("tallymesh:segment", options.encode(settings), inputs=inputs)


def value(bench: Bench, unit: Unit, agreed: bytes, lo: int, hi: int) -> bytes:
    part = cut(unit, agreed, lo, hi)
    assert isinstance(part, Unit)
    return bench.pool.put(bench.run(part).output)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_value_is_the_same_however_it_is_reached(bench: Bench, recipe: str) -> None:
    unit = made(bench, recipe)
    assert steps_of(unit) == STEPS
    end = bench.pool.put(bench.run(unit).output)
    middle = value(bench, unit, b"", 0, 5)
    after = value(bench, unit, middle, 5, 6)
    assert after == value(bench, unit, b"", 0, 6), "one step from the agreed state is that step of the whole"
    assert value(bench, unit, after, 6, STEPS) == end
    assert value(bench, unit, b"", 0, TOTAL) == end, "after the last step nothing changes any more"
    assert len({middle, after, end, bytes(unit.start)}) == 4


def test_a_training_that_is_over_at_the_agreed_state_says_so_with_the_code_that_members_read(bench: Bench) -> None:
    unit = made(bench, "plain sgd")
    end = value(bench, unit, b"", 0, TOTAL)
    part = cut(unit, end, TOTAL, TOTAL + 1)
    assert isinstance(part, Unit)
    with pytest.raises(UnitFailure) as caught:
        bench.run(part)
    assert caught.value.code == "inputs"
