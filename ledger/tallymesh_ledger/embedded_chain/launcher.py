"""Starts an embedded chain: the store, the clock, the contracts, the faucet, and the network file that names them.

Everything lies in one folder. Without `keep` the chain is new each time and its file is removed at the end; with it,
chain, contracts and the faucet's key are found again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

import msgspec
import trio

from tallymesh import network as networks
from tallymesh.network import Contracts, Network
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.transactions import Sender
from tallymesh_ledger.deploy import deploy
from tallymesh_ledger.embedded_chain.evm import Evm
from tallymesh_ledger.embedded_chain.faucet import Faucet
from tallymesh_ledger.embedded_chain.methods import Methods
from tallymesh_ledger.embedded_chain.server import ChainServer
from tallymesh_ledger.embedded_chain.store import Store
from tallymesh_ledger.keys import AccountKey

FAUCET_WEI = 10**9 * 10**18  # gas coin of the only funded account
CHAIN_IDS = 1 << 40, 1 << 50  # a new chain has an id of its own: what was signed for another one is worthless here

NETWORK_FILE = "network.json"
STORE_FILE = "chain.sqlite"
KEPT_FILE = "chain.json"


class Kept(msgspec.Struct, frozen=True):
    """What a kept chain needs beside its store."""

    chain_id: int
    faucet_secret: str
    contracts: Contracts | None = None


class EmbeddedChain:
    """One chain, from `start` to `close`."""

    def __init__(self, folder: Path, *, name: str, parameters: Parameters, keep: bool = False) -> None:
        self._folder = folder
        self._name = name
        self._parameters = parameters
        self._keep = keep
        self.network: Network
        self.server: ChainServer
        self._store: Store

    async def start(self, host: str, port: int) -> Network:
        """Listen, deploy what is not deployed, open the faucet, write the network file. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = self._load()
        key = AccountKey(bytes.fromhex(kept.faucet_secret))
        self._store = Store(self._folder / STORE_FILE, durable=self._keep)
        evm = Evm(self._store, kept.chain_id, {key.address: FAUCET_WEI})
        methods = Methods(evm, self._store)
        self.server = ChainServer(evm, methods)
        url = await self.server.start(host, port)
        if kept.contracts is None:
            # our own client speaks trio; it deploys as anybody would, over HTTP
            contracts = await asyncio.to_thread(trio.run, self._deploy, url, kept.chain_id, key)
            kept = msgspec.structs.replace(kept, contracts=contracts)
            self._save(kept)
        assert kept.contracts is not None
        token = bytes.fromhex(kept.contracts.token[2:])
        self.server.faucet = Faucet(key, kept.chain_id, token, methods.call)
        self.network = Network(
            name=self._name,
            chain_id=kept.chain_id,
            rpc_urls=(url,),
            contracts=kept.contracts,
            parameters=self._parameters,
            faucet=f"{url}/faucet",
        )
        networks.save(self.network, self._folder / NETWORK_FILE)
        return self.network

    async def close(self) -> None:
        """Idempotent; also after a start that failed."""
        if hasattr(self, "server"):
            await self.server.close()
        if hasattr(self, "_store"):
            self._store.close()
        if not self._keep:
            self._remove()

    async def _deploy(self, url: str, chain_id: int, key: AccountKey) -> Contracts:
        async with Rpc([url], chain_id=chain_id) as rpc:
            return await deploy(Sender(rpc, key), self._parameters)

    # ---- what is kept

    def _load(self) -> Kept:
        path = self._folder / KEPT_FILE
        if self._keep and path.exists():
            return msgspec.json.decode(path.read_bytes(), type=Kept)
        self._remove()
        kept = Kept(secrets.choice(range(*CHAIN_IDS)), AccountKey.generate().secret.hex())
        self._save(kept)
        return kept

    def _save(self, kept: Kept) -> None:
        if not self._keep:
            return
        path = self._folder / KEPT_FILE
        draft = path.with_suffix(".part")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(kept))
            os.fsync(file.fileno())
        os.replace(draft, path)

    def _remove(self) -> None:
        for name in (STORE_FILE, f"{STORE_FILE}-wal", f"{STORE_FILE}-shm", KEPT_FILE, NETWORK_FILE):
            (self._folder / name).unlink(missing_ok=True)
