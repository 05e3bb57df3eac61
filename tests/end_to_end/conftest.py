"""One market for the end-to-end tests of a process that do it no lasting harm, ended with the last of them: a chain, a
payer, four contributors with a core each, the last of which writes down every plaintext byte that it receives
(cheats/tapped_node.py) and is honest otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from end_to_end import shop
from end_to_end.scene import TESTS, Market, start
from fakes.forks import Forks
from fakes.forks import start as start_forks
from fakes.interpreter import Interpreter
from tallymesh.client import discover


@pytest.fixture(scope="package")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where every process that these tests start writes, its caches included."""
    folder = tmp_path_factory.mktemp("end_to_end")
    (folder / "tmp").mkdir()
    changed = {
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": str(TESTS),  # where the cheats' code lives
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TALLYMESH_")]:
            patch.delenv(name)
        for name, value in changed.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="package")
def tap(scratch: Path) -> Path:
    """The file in which the last contributor writes down what it receives and what it signs."""
    return scratch / "tap"


@pytest.fixture(scope="package")
def forks(scratch: Path) -> Iterator[Forks]:
    with start_forks() as started:
        yield started


@pytest.fixture(scope="package")
def market(scratch: Path, tap: Path, forks: Forks, interpreter: Interpreter) -> Iterator[Market]:
    network = start(scratch / "market", forks, workers=3, cheats={"worker4": ("cheats.tapped_node", str(tap))})
    with network:
        yield Market(network, interpreter)
    discover.disconnect()


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project, outside the repository."""
    return shop.make(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="package")
def federated(market: Market, folder: Path) -> dict[str, Any]:
    """A federated training on the network, as its program reports it."""
    return shop.train(market, folder, shop.FEDERATED)


@pytest.fixture(scope="package")
def reference(market: Market, folder: Path) -> dict[str, Any]:
    """The same training by the local backend: what every way through the network must agree with."""
    return shop.train(market, folder, shop.FEDERATED, TALLYMESH_BACKEND="local")
