"""Quarrels under a virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.virtual import count_salts, use_virtual_time
from tallymesh_node.payer import service


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)


@pytest.fixture(autouse=True)
def salts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ones in every run."""
    count_salts(monkeypatch, service)
