"""Everything of time is under a virtual clock here, but what a real process does."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.virtual import use_virtual_time
from fakes.worker_scene import Node, Payer, Scene


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
async def node(scene: Scene) -> Node:
    return Node(scene)


@pytest.fixture
async def payer(scene: Scene, node: Node) -> Payer:
    return Payer(scene, node)
