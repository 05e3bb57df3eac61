"""A scene under a virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.fixtures import in_memory, worker, workers_payer, workplace
from fakes.virtual import use_virtual_time

__all__ = ["in_memory", "worker", "workers_payer", "workplace"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)
