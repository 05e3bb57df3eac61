"""Torch's compiler stays on disk while units train eagerly, and is whole as soon as one asks for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from programs import compiled
from tallymesh import values
from tallymesh.capture import capture
from tallymesh.units import Input, Unit
from tallymesh_learning.runtime import profile
from tallymesh_learning.runtime.pool import UnitPool


def call(pool: UnitPool, function: Any, item: Any) -> Any:
    program = pool.put(capture(function).archive)
    item_id = pool.put(values.encode(item))
    entry = f"{function.__module__}:{function.__qualname__}"
    unit = Unit(program, entry, (Input("item", item_id),), b"{}", 1, profile.profile_hash())
    return values.decode(pool.run(unit).output)


@pytest.mark.slow
def test_eager_training_imports_no_compiler_and_its_bits_do_not_depend_on_it(pool: UnitPool) -> None:
    without, beside = call(pool, compiled.trained, False), call(pool, compiled.trained, True)
    assert (without.pop("compiler"), beside.pop("compiler")) == (False, True)
    assert without.keys() == beside.keys()
    for name, weight in without.items():
        assert torch.equal(weight, beside[name])


@pytest.mark.slow
def test_a_unit_that_compiles_gets_the_whole_compiler_told_what_came_before(pool: UnitPool) -> None:
    found = call(pool, compiled.compiles, None)
    assert torch.equal(found.pop("found"), torch.sin(torch.ones(2)) * 2)
    assert all(found.values()), found
