"""Everything of time is under a virtual clock here, but what a real process does."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.fixtures import worker, workers_payer, workplace
from fakes.virtual import use_virtual_time

__all__ = ["worker", "workers_payer", "workplace"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)
