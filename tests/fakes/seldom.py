"""Which cases of a test plain `pytest` leaves to the run of all tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def seldom(cases: Sequence[Any], *, always: int = 1) -> list[Any]:
    """Values of a `parametrize`: the first `always` are run each time, the others, which show the same at more points,
    are slow tests. A tuple is the values of several arguments."""
    slow = pytest.mark.slow
    more = [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=slow) for case in cases[always:]]
    return [*cases[:always], *more]
