"""A market under a virtual clock, in which things go wrong that are nobody's wickedness."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.payer_scene import PayerNode, Scene
from fakes.virtual import count_salts, use_virtual_time
from tallymesh_node.payer import service


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)


@pytest.fixture(autouse=True)
def salts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ones in every run."""
    count_salts(monkeypatch, service)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def payer(scene: Scene) -> PayerNode:
    return PayerNode(scene)
