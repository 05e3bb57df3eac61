"""Foundry's node as a third implementation of a chain, where npm has its binary for this machine."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from fakes.hardhat import MODULES, Hardhat
from tallymesh.network import Network
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import Rpc

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_COIN = hex(10**27)


def binary() -> Path:
    """Where npm puts it; nothing may be there."""
    name = f"anvil-{platform.system().lower()}-{_MACHINES.get(platform.machine(), platform.machine())}"
    return MODULES / "@foundry-rs" / name / "bin" / "anvil"


class Anvil(Hardhat):
    """As Hardhat's node: tests wind it back, and its blocks by the clock hold transactions."""

    INTERVAL = 1

    def _start(self, hardfork: str) -> subprocess.Popen[bytes]:
        command = [binary(), "--host", "127.0.0.1", "--port", "0", "--chain-id", str(self.chain_id), "--accounts", "1"]
        command += ["--block-time", "1", "--mixed-mining", "--gas-limit", "30000000"]
        command += ["--block-base-fee-per-gas", "100000000"]  # as little as hardhat's
        command += ["--hardfork", hardfork] if hardfork else []
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    @staticmethod
    def _said_url(said: str) -> str:
        return "http://" + said.split("Listening on ")[1].split()[0] if "Listening on " in said else ""

    async def _deploy(self, parameters: Parameters) -> Network:
        async with Rpc([self.url], chain_id=self.chain_id) as rpc:
            await rpc.call("anvil_setBalance", "0x" + self.key.address.hex(), _COIN)
        return await super()._deploy(parameters)
