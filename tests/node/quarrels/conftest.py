"""Quarrels under a virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.fixtures import in_memory, salts
from fakes.virtual import use_virtual_time

__all__ = ["in_memory", "salts"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)
