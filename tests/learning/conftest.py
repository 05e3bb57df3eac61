"""One fork server for all tests here: importing torch takes two seconds, a unit in a fork takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from programs.bench import Bench
from tallymesh_learning.runtime.pool import UnitPool


@pytest.fixture(scope="session")
def pool() -> Iterator[UnitPool]:
    with UnitPool(2) as found:
        yield found


@pytest.fixture(scope="session")
def bench(pool: UnitPool) -> Bench:
    return Bench(pool)
