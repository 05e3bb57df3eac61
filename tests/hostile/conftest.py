"""A market in one process, for the tests that drive real roles."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.payer_scene import PayerNode, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def payer(scene: Scene) -> PayerNode:
    return PayerNode(scene)
