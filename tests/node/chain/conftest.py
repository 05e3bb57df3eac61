"""A node's part that speaks to the chain, with a real chain in the same process and a clock that jumps."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import virtual


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    virtual.use_virtual_time(items, Path(__file__).parent)
