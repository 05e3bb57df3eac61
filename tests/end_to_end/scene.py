"""A market of real processes for the end-to-end tests: started once, talked to as its owner would.

The tests know nodes as a user does: command lines, folders, the HTTP API and the chain.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

import tallymesh
from fakes.forks import Forks
from fakes.interpreter import Interpreter
from tallymesh import api
from tallymesh_ledger.balances import Balance, read_balance
from tallymesh_ledger.chain import Contracts, Rpc, SeatStatus
from tallymesh_ledger.chain.abi import Event, Interface
from tallymesh_ledger.chain.court import Accusations
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_node.local_network import NODE_COMMAND, NODES, STOP_S, LocalNetwork, NodeProcess, Process

TESTS = Path(__file__).resolve().parent.parent
SMALL = {"cores": "1", "memory_mib": "1024", "disk_gib": "1"}  # a contributor with one core
COMMAND_S = 150.0  # for a command of a tenth of a second
PATIENCE_S = 240.0  # for what takes a second or two on a machine of one's own
ENDED = ("done", "failed", "cancelled")
# Phases of a claim that end as soon as everybody has had its say: where nobody is silent their length costs nothing,
# and on a busy machine an auditor may need more than the four seconds of a local network.
UNHURRIED = {"claim_open_s": 20, "claim_reveal_s": 20}


class ForkedNetwork(LocalNetwork):
    """Its nodes are forks of a Python that has them loaded."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        super().__init__(folder)
        self.forks = forks

    def _start(self, process: Process, batch: int) -> None:
        if batch == NODES:
            process.popen = self.forks.popen
        super()._start(process, batch)


class Market:
    """A local network, with what tests ask of it."""

    def __init__(self, network: ForkedNetwork, interpreter: Interpreter) -> None:
        self.local = network
        self.interpreter = interpreter

    @property
    def payer(self) -> NodeProcess:
        return self.local.nodes["payer"]

    def node(self, name: str) -> NodeProcess:
        return self.local.nodes[name]

    def connect(self, payer: str = "payer") -> None:
        """Let this process's client talk to that node."""
        address = self.node(payer).api
        assert address is not None
        tallymesh.connect(*address)

    def view(self, name: str) -> api.NodeView:
        return msgspec.convert(self.node(name).get("/v1/node"), api.NodeView)

    def account(self, name: str) -> str:
        """The checksummed address of a node's wallet."""
        return self.view(name).account

    def name_of(self, account: str) -> str:
        return next(
            name for name in self.local.nodes if self.local.nodes[name].running and self.account(name) == account
        )

    def environment(self, payer: str = "payer", **more: str) -> dict[str, str]:
        """Of a user's shell in which `eval "$(tallymesh env)"` was run."""
        address = self.node(payer).api
        assert address is not None
        return {**shell(self.local.folder), "TALLYMESH_NODE": address[0], "TALLYMESH_TOKEN": address[1], **more}

    def command(self, *arguments: str, cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """`tallymesh ARGUMENTS`, in a fork of a Python that has it loaded."""
        words = [sys.executable, "-m", "tallymesh_node.cli", *arguments]
        return self.local.forks.run(words, cwd=cwd, environment=environment, timeout_s=COMMAND_S)

    def add_ready(
        self,
        name: str,
        *,
        slots: int = 1,
        roles: Sequence[str] = ("worker", "audit"),
        command: Sequence[str] = NODE_COMMAND,
        **settings: str,
    ) -> NodeProcess:
        """One more node, waited for until the payer knows its offer, its stake and its class."""
        node = self.local.add(name, roles=roles, slots=slots, command=command, settings={**SMALL, **settings})
        self.local.wait_ready([node])
        account = self.account(name)

        def listed() -> bool:
            """By what the payer read of the chain last, for that is what it matches by."""
            offers = [o for o in self.payer.get("/v1/offers") if o["account"] == account and not o["provisional"]]
            return any(o["staked"] == o["class_counts"] == bool(slots) for o in offers)

        if "worker" in roles:
            node.wait("the payer could lease it" if slots else "its offer was known", listed)
        return node

    def drop(self, node: NodeProcess) -> None:
        """End a node that was added, and forget it."""
        node.signal(signal.SIGTERM)
        node.end(time.monotonic() + STOP_S)
        del self.local.nodes[node.name]

    def report(self) -> str:
        """For the message of a test that waited in vain: jobs, what they wait for, and the ends of all logs."""
        lines = []
        for view in self.payer.get("/v1/jobs"):
            if view["status"] not in ENDED:
                why = self.payer.get(f"/v1/jobs/{view['id']}/why")
                lines.append(f"{view['id'][:12]} {view['status']} {view['units_done']}/{view['units']}: {why}")
                lines += [str(peer) for peer in view["peers"]]
        return "\n".join([*lines, *(f"-- {node!r}\n{node.tail()}" for node in self.local.nodes.values())])

    def restart(self, node: NodeProcess) -> None:
        """kill -9, and the same command on the same folder again."""
        node.kill()
        (node.folder / "api.json").unlink()
        node.start()
        node.wait("it listened again", lambda: node.api is not None)
        self.local.wait_ready([node])

    # The chain.

    def ask(self, question: Callable[[Rpc, Contracts], Any]) -> Any:
        network = self.local.network

        async def asked() -> Any:
            async with Rpc(network.rpc_urls, chain_id=network.chain_id) as rpc:
                return await question(rpc, Contracts.of(rpc, network))

        return trio.run(asked)

    def balance(self, account: str) -> Balance:
        async def read(rpc: Rpc, contracts: Contracts) -> Balance:
            return await read_balance(rpc, self.local.network, bytes.fromhex(account[2:]))

        found: Balance = self.ask(read)
        return found

    def held_by(self, job: str, seats: Sequence[str]) -> int:
        """0 once the escrow holds nothing of one job: no open seat, nothing free, no reserve."""

        async def read(rpc: Rpc, contracts: Contracts) -> int:
            (state,) = await contracts.escrow.jobs_of([bytes.fromhex(job)])
            found = await contracts.escrow.seats_of([bytes.fromhex(seat) for seat in seats])
            open_seats = sum(seat.state is SeatStatus.OPEN for seat in found)
            return int(state.free + state.reserve + open_seats)

        held: int = self.ask(read)
        return held

    def paid_units(self, seat: str) -> int:
        """As the escrow holds it, whatever anybody's node says."""

        async def read(rpc: Rpc, contracts: Contracts) -> int:
            return int((await contracts.escrow.seat_of(bytes.fromhex(seat))).paid_units)

        paid: int = self.ask(read)
        return paid

    def events(self, *names: str) -> list[Event]:
        """Of the escrow and of Accusations, as the chain has them."""
        network = self.local.network

        async def read(rpc: Rpc, contracts: Contracts) -> list[Event]:
            accusing = Accusations(rpc, bytes.fromhex(network.contracts.accusations[2:]), contracts.token)
            head, found = (await rpc.block()).number, []
            for contract in (contracts.escrow, accusing):
                interface: Interface = contract.interface
                topics = [interface.topics[name] for name in names if name in interface.topics]
                if topics:
                    logs = await read_logs(rpc, contract.address, [topics], network.contracts.deployed_block, head)
                    found += [event for event in map(interface.event, logs) if event is not None]
            return found

        seen: list[Event] = self.ask(read)
        return seen


def shell(home: Path) -> dict[str, str]:
    """A user's environment: no variable of ours, a home folder of its own."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8"}


def run(
    command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout_s: float = COMMAND_S
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(command), cwd=cwd, env=dict(environment), capture_output=True, text=True, timeout=timeout_s, check=False
    )


def wait_until(what: str, holds: Callable[[], Any], *, timeout_s: float = PATIENCE_S, pause_s: float = 0.1) -> Any:
    """What `holds` gives as soon as it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(pause_s)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, forks: Forks, *, workers: int, cheats: Mapping[str, Sequence[str]] = {}) -> ForkedNetwork:
    """Chain, payer (on a port of its own, so that it can be started again) and one-core contributors, `cheats` among
    them by name and module. The caller stops it, also where this fails."""
    network = ForkedNetwork(folder, forks)
    try:
        network.folder.mkdir(parents=True, exist_ok=True)
        network.start_chain(parameters=UNHURRIED)
        network.start_payer(settings={"listen_port": str(free_port())})
        for number in range(1, workers + 1):
            network.add(f"worker{number}", slots=1, settings=SMALL)
        for name, arguments in cheats.items():
            network.add(name, slots=1, settings=SMALL, command=(sys.executable, "-m", *arguments))
        network.wait_ready()
        network.wait_market(network.nodes["payer"], workers + len(cheats))
    except BaseException:
        network.stop()
        raise
    return network
