"""What several folders of tests begin with: their conftest.py imports it, and says which clock its folder is on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fakes import payer_scene, worker_scene
from fakes.virtual import count_salts
from tallymesh_node.payer import service

MEMORY = Path("/dev/shm")  # Linux's file system in memory
ROOM = 1 << 28  # bytes free there; a scene's blobs are a few megabytes at most


@pytest.fixture(name="tmp_path")
def in_memory() -> Iterator[Path]:
    """For fakes, which know nothing of disks: making a file costs 15 us of CPU in memory and 100 on a disk, and a scene
    makes hundreds."""
    usable = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM
    with TemporaryDirectory(prefix="tallymesh-test-", dir=MEMORY if usable else None) as folder:
        yield Path(folder)


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
