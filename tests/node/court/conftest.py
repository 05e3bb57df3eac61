"""A scene under a virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.court_scene import CourtScene
from fakes.fixtures import in_memory
from fakes.virtual import use_virtual_time

__all__ = ["in_memory"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    use_virtual_time(items, Path(__file__).parent)


@pytest.fixture
async def scene(tmp_path: Path) -> CourtScene:
    made = CourtScene(tmp_path)
    await made.prepare()
    return made
