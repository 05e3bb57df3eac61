"""A chain in this process with the real contracts on it, and an index of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from fakes import postgresql
from fakes.contract_world import CHAIN_ID, Exact, World
from tallymesh.network import Contracts, Network
from tallymesh_ledger.chain import Rpc
from tallymesh_ledger.embedded_chain.methods import Methods, RpcFailure
from tallymesh_ledger.index import Database
from tallymesh_ledger.keys import checksum


class Direct(Rpc):
    """The real client without a socket; `rule` may answer in the chain's place."""

    def __init__(self, methods: Methods) -> None:
        super().__init__(["http://chain.invalid"], chain_id=CHAIN_ID)
        self.methods = methods
        self.asked: list[tuple[str, Any]] = []
        self.rule: Callable[[str, Any], Any] = lambda method, params: None
        self._http = httpx.AsyncClient(transport=httpx.MockTransport(self._serve))

    def _serve(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        many = isinstance(body, list)
        return httpx.Response(200, json=[self._answer(each) for each in body] if many else self._answer(body))

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        method, params = body["method"], body["params"]
        self.asked.append((method, params))
        said = self.rule(method, params)
        if said is None:
            try:
                said = {"result": self.methods.call(method, params)}
            except RpcFailure as failure:
                said = {"error": {"code": failure.code, "message": str(failure)}}
        return {"jsonrpc": "2.0", "id": body["id"], **said}


class Chain:
    """The contracts on the embedded chain's own machine."""

    def __init__(self) -> None:
        self.engine = Exact()
        self.world = World(self.engine)
        self.methods = Methods(self.engine._evm, self.engine._store)
        addresses = {name: checksum(address) for name, address in self.world.contracts.items()}
        self.network = Network(
            name="test",
            chain_id=CHAIN_ID,
            rpc_urls=("http://chain.invalid",),
            contracts=Contracts(
                token=addresses["Token"],
                registry=addresses["Registry"],
                escrow=addresses["JobEscrow"],
                deployed_block=1,
            ),
            parameters=self.world.parameters,
        )

    def rpc(self) -> Direct:
        return Direct(self.methods)

    @property
    def head(self) -> int:
        return int(self.methods.call("eth_blockNumber", []), 16)

    def mine(self, blocks: int = 1) -> None:
        """Empty blocks: what came before them is final."""
        for _ in range(blocks):
            self.methods.call("evm_mine", [])

    def mark(self) -> Callable[[], None]:
        """Call what this returns to wind the chain back to here, as a reorganisation would."""
        snapshot = self.methods.call("evm_snapshot", [])
        nonces = dict(self.engine._nonces)

        def wind_back() -> None:
            assert self.methods.call("evm_revert", [snapshot])
            self.engine._nonces = nonces

        return wind_back


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    binaries = postgresql.binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
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
