"""What several folders of tests begin with: their conftest.py imports it, and says which clock its folder is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import payer_scene, worker_scene
from fakes.virtual import count_salts
from tallymesh_node.payer import service


@pytest.fixture(autouse=True)
def salts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ones in every run."""
    count_salts(monkeypatch, service)


# A payer's market.


@pytest.fixture(name="scene")
def market(tmp_path: Path) -> payer_scene.Scene:
    return payer_scene.Scene(tmp_path)


@pytest.fixture(name="payer")
def market_payer(scene: payer_scene.Scene) -> payer_scene.PayerNode:
    return payer_scene.PayerNode(scene)


# A worker, and whoever gives it work.


@pytest.fixture(name="scene")
def workplace(tmp_path: Path) -> worker_scene.Scene:
    return worker_scene.Scene(tmp_path)


@pytest.fixture(name="node")
async def worker(scene: worker_scene.Scene) -> worker_scene.Node:
    return worker_scene.Node(scene)


@pytest.fixture(name="payer")
async def workers_payer(scene: worker_scene.Scene, node: worker_scene.Node) -> worker_scene.Payer:
    return worker_scene.Payer(scene, node)
