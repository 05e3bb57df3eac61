"""The embedded chain inside the test's own process, behind a transport instead of a socket and on trio's clock: a chain
that is away for ten minutes is tried in a second."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import trio

from tallymesh.network import Contracts
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import Rpc, Sender
from tallymesh_ledger.deploy import deploy
from tallymesh_ledger.embedded_chain.evm import Evm
from tallymesh_ledger.embedded_chain.methods import Methods, RpcFailure
from tallymesh_ledger.embedded_chain.store import Store
from tallymesh_ledger.keys import AccountKey

CHAIN_ID = 777_000_778
STARTED = 1_800_000_000  # Unix time of trio's zero
URL = "http://chain.test/"
T = TypeVar("T")


class Beginning(NamedTuple):
    """What other chains of this process begin with."""

    key: AccountKey
    blocks: Store
    ended: float  # trio's time
    told: Any


_BEGINNINGS: dict[Hashable, Beginning] = {}


class VirtualChain:
    """`away` makes it unreachable, `cut` does when a transaction comes: "before" the chain has it, or "after", so that
    only the answer is lost. `asked` holds (trio time, methods) of every request that came, answered or not."""

    def __init__(self, folder: Path) -> None:
        self.key = AccountKey.generate()  # holds all the coin
        self.store = Store(folder / "virtual.sqlite", durable=False)
        self._open()
        self.away = False
        self.cut = ""
        self.asked: list[tuple[float, list[str]]] = []

    def _open(self) -> None:
        self.evm = Evm(self.store, CHAIN_ID, {self.key.address: 10**27}, lambda: STARTED + trio.current_time())
        self.methods = Methods(self.evm, self.store)

    def close(self) -> None:
        self.store.close()

    async def begin(self, name: Hashable, story: Callable[[], Awaitable[T]]) -> T:
        """What `story` returns, after all that it does to this new chain. It happens once in a process: chains that
        begin alike get its blocks and its time."""
        if name not in _BEGINNINGS:
            told = await story()
            blocks = Store(Path(":memory:"), durable=False)
            self.store._sql.backup(blocks._sql)
            _BEGINNINGS[name] = Beginning(self.key, blocks, trio.current_time(), told)
            return told
        found = _BEGINNINGS[name]
        self.key = found.key
        found.blocks._sql.backup(self.store._sql)
        self.store._cache.clear()
        self._open()
        if trio.current_time() < found.ended:
            await trio.sleep_until(found.ended)
        return found.told  # type: ignore[no-any-return]

    async def contracts(self, parameters: Parameters) -> Contracts:
        """All of them, on this new chain."""

        async def story() -> Contracts:
            async with self.rpc() as rpc:
                return await deploy(Sender(rpc, self.key), parameters)

        return await self.begin(("contracts", parameters), story)

    def rpc(self, **options: Any) -> Rpc:
        return Rpc([URL], chain_id=CHAIN_ID, transport=httpx.MockTransport(self._answer), **options)

    def call(self, method: str, *params: Any) -> Any:
        return self.methods.call(method, list(params))

    def count(self, address: bytes) -> int:
        """Transactions of the account in blocks."""
        return int(self.call("eth_getTransactionCount", "0x" + address.hex(), "latest"), 16)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        body = json.loads(request.content)
        many = body if isinstance(body, list) else [body]
        self.asked.append((trio.current_time(), [each["method"] for each in many]))
        cut = self.cut if many[0]["method"] == "eth_sendRawTransaction" else ""
        self.away = self.away or cut == "before"
        if not self.away:
            answers = [self._one(each) for each in many]
        self.away = self.away or cut == "after"
        if self.away:
            self.cut = ""
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=answers if isinstance(body, list) else answers[0])

    def _one(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"jsonrpc": "2.0", "id": body["id"], "result": self.methods.call(body["method"], body["params"])}
        except RpcFailure as error:
            return {"jsonrpc": "2.0", "id": body["id"], "error": error.shown()}
