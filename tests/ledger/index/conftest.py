"""A chain in this process with the real contracts on it, and an index of each kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from fakes import postgresql
from fakes.contract_chain import Chain
from tallymesh_ledger.index import Database


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    binaries = postgresql.binaries()
    if binaries is None:
        (pytest.fail if os.environ.get("TEST_POSTGRESQL") == "required" else pytest.skip)(
            "no PostgreSQL here: apt-get install postgresql"
        )
    with postgresql.server(binaries) as url:
        yield url


class Urls:
    """Gives the URL of a new, empty index."""

    def __init__(self, kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.kind = kind
        self._folder = folder
        self._request = request
        self._made = 0

    def __call__(self) -> str:
        self._made += 1
        if self.kind == "sqlite":
            return str(self._folder / f"index{self._made}.sqlite")
        server: str = self._request.getfixturevalue("server")
        name = f"t{abs(hash(self._folder)):x}_{self._made}"
        engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        engine.dispose()
        return f"{server}&options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Urls:
    return Urls(request.param, tmp_path, request)


@pytest.fixture
def database(urls: Urls) -> Iterator[Database]:
    with Database(urls()) as opened:
        yield opened


@pytest.fixture
def open_database(urls: Urls) -> Iterator[Callable[[], Database]]:
    """New indexes, closed at the end."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Database(urls()))
