"""Quarrels under a virtual clock."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fakes.virtual import use_virtual_time
from tallymesh_node.payer import service


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)


@pytest.fixture(autouse=True)
def salts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Job ids follow from salts, and every draw from job ids: the same ones in every run."""
    numbers = itertools.count(1)
    monkeypatch.setattr(service.secrets, "token_bytes", lambda size: next(numbers).to_bytes(size, "big"))
