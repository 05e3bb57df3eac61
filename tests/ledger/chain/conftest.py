"""One real chain for all tests of this folder, and accounts with coin and tokens on it.

A test that asks for `chain` (or for what is built on it) runs twice: against the embedded chain, and, as a slow test,
against hardhat's node, which is another implementation; `scripts/chains` runs all of them on Foundry's anvil, too
(TEST_ANVIL=required). A module that is about one of them replaces `chain`.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from fakes import anvil as anvils
from fakes import hardhat as hardhats
from fakes import virtual
from fakes.anvil import Anvil
from fakes.hardhat import Hardhat
from tallymesh import network as networks
from tallymesh.messages import Accept, AuditOrder, AuditReason, Lease, Order, Release, Result, Verdict
from tallymesh.network import Network
from tallymesh.schema import Message
from tallymesh_ledger.chain import Audit, Closing, Contracts, Rpc, Seating, Sender, Settlement
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.embedded_chain import development_parameters
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.keys import AccountKey

# seconds even where development_parameters has more: the tests wait for some of these on the chain's real clock
SHORT = {"claim_window_s": 0, "evidence_window_s": 1, "lock_tail_s": 1, "unbonding_s": 1, "class_delay_s": 1}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(getattr(item, "module", None), "VIRTUAL_TIME", False) and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.trio(run=virtual.run))


class ChainProcess:
    """The embedded chain as its users start it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "parameters.json").write_text(json.dumps(SHORT))
        command = [sys.executable, "-m", "tallymesh_ledger.embedded_chain", "--folder", str(folder)]
        command += ["--parameters", str(folder / "parameters.json"), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the chain did not start"
        self.ready = json.loads(line)
        self.network: Network = networks.load(Path(self.ready["network"]))

    @property
    def url(self) -> str:
        return self.network.rpc_urls[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(timeout=240)  # it ends within a second, on a machine of its own

    async def give(self, address: bytes) -> None:
        """Coin and tokens from the faucet."""
        async with httpx.AsyncClient(verify=False) as http:  # it listens on loopback, without TLS
            answer = await http.post(self.network.faucet, json={"address": "0x" + address.hex()})
        assert answer.status_code == 200, answer.text


Chain = ChainProcess | Hardhat


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    process = ChainProcess(tmp_path_factory.mktemp("chain"))
    yield process
    assert process.stop() == 0
    left = set(os.listdir(process.folder)) - {"parameters.json"}
    assert left == set(), f"the chain left {left}"


@pytest.fixture(scope="session")
def hardhat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardhat]:
    if not hardhats.installed():
        pytest.skip("hardhat is not installed: scripts/contracts build")
    process = Hardhat(tmp_path_factory.mktemp("hardhat"), msgspec.structs.replace(development_parameters(), **SHORT))
    yield process
    process.stop()


@pytest.fixture(scope="session")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    assert anvils.binary().is_file(), "npm has no anvil for this machine, or scripts/contracts build was not run"
    process = Anvil(tmp_path_factory.mktemp("anvil"), msgspec.structs.replace(development_parameters(), **SHORT))
    yield process
    process.stop()


OTHERS = ("hardhat", "anvil") if os.environ.get("TEST_ANVIL") else ("hardhat",)


@pytest.fixture(scope="session", params=["embedded", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def chain(request: pytest.FixtureRequest) -> Chain:
    made: Chain = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def network(chain: Chain) -> Network:
    return chain.network


@pytest.fixture
def domains(network: Network) -> Domains:
    return Domains.of(network)


@pytest.fixture
async def rpc(network: Network) -> AsyncIterator[Rpc]:
    async with Rpc(network.rpc_urls, chain_id=network.chain_id) as client:
        yield client


@pytest.fixture
def contracts(rpc: Rpc, network: Network) -> Contracts:
    return Contracts.of(rpc, network)


NewAccount = Callable[[], Awaitable[Sender]]


@pytest.fixture
def account(rpc: Rpc, chain: Chain) -> NewAccount:
    """A new account with gas coin and tokens."""

    async def make() -> Sender:
        key = AccountKey.generate()
        await chain.give(key.address)
        return Sender(rpc, key)

    return make


class Deal:
    """A payer's order and its workers' leases, signed by everybody for real."""

    def __init__(self, network: Network, payer: Sender, *workers: Sender, now: int, positions: int = 10) -> None:
        self.domains = Domains.of(network)
        self.payer = payer
        self.workers = workers
        self.signer = AccountKey.generate()
        price = 10**15
        parameters = network.parameters
        self.order = Order(
            payer=payer.address,
            signer=self.signer.address,
            template=os.urandom(32),
            numeric_profile=bytes(32),
            cores=1,
            memory_mib=512,
            disk_mib=512,
            gpus=0,
            price_max=price,
            wages=price * positions * max(1, len(workers)),
            audit_reserve=price * 5,
            lock_per_seat=price * 2,
            claim_bond=0,
            audit_rate_bp=400,
            tally_units=50,
            claim_window=parameters.claim_window_s,
            evidence_window=parameters.evidence_window_s,
            auditors=0,
            auditors_root=bytes(32),
            signer_seat_max=price * positions * max(1, len(workers)),
            newcomers=False,
            deadline=now + 3600,
            salt=os.urandom(32),
        )
        self.job = job_id(self.domains, self.order)
        self.leases = [
            Lease(
                job=self.job,
                worker=worker.address,
                positions=positions,
                price=price,
                work_ms=1000,
                numeric_class=bytes(32),
                lock=price * 2,
                until=now + 1800,
                seat_by=now + 600,
                secret_1=bytes(32),
                secret_2=bytes(32),
                nonce=i,
            )
            for i, worker in enumerate(workers)
        ]
        self.seats = [seat_id(self.domains, lease) for lease in self.leases]

    def by_signer(self, message: Message) -> bytes:
        return self.signer.sign(self.domains, message).signature

    def by(self, sender: Sender, message: Message) -> bytes:
        return sender.sign_digest(self.domains.digest(message))

    def seatings(self) -> list[Seating]:
        return [
            Seating(lease, self.by(worker, lease), self.by_signer(lease))
            for lease, worker in zip(self.leases, self.workers, strict=True)
        ]

    def settlement(self, i: int, units: int, tally: int = 1) -> Settlement:
        accept = Accept(seat=self.seats[i], tally=tally, units=units, chain=bytes([tally]) * 32, next_secret=bytes(32))
        return Settlement(self.leases[i], accept, self.by_signer(accept))

    def closing(self, i: int, units: int) -> Closing:
        release = Release(seat=self.seats[i], units=units)
        return Closing(self.leases[i], release, self.by(self.workers[i], release))

    def audit(self, i: int, auditor: Sender, *, position: int = 0, fee: int = 10**15) -> Audit:
        order = AuditOrder(
            seat=self.seats[i],
            tally=1,
            position=position,
            unit_id=bytes(32),
            reason=int(AuditReason.DRAWN),
            draw=0,
            attempt=0,
            auditor=auditor.address,
            fee=fee,
            commit_by=self.order.deadline,
        )
        verdict = Verdict(
            audit_order=self.domains.digest(order),
            result=int(Result.MATCH),
            end=bytes(32),
            salt=bytes(32),
            probe=bytes(32),
        )
        return Audit(order, verdict, self.by_signer(order), self.by(auditor, verdict))


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait for the chain's real clock; a test that waits for what never comes fails. On a busy machine the chain may
    stand still for seconds."""
    with trio.fail_after(240):
        while not await condition():  # noqa: ASYNC110 - the event is another process's
            await trio.sleep(0.05)


@pytest.fixture(name="until")
def until_fixture(chain, rpc: Rpc) -> Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]:
    """As `until`, with a block a second by the test's own hand where hardhat is to mine by the clock: on a busy machine
    its clock was seen to stop for good."""

    async def mine() -> None:
        while True:
            await trio.sleep(1)
            await rpc.call("evm_mine")

    async def wait(condition: Callable[[], Awaitable[object]]) -> None:
        async with trio.open_nursery() as nursery:
            if isinstance(chain, Hardhat):
                nursery.start_soon(mine)
            await until(condition)
            nursery.cancel_scope.cancel()

    return wait


NewDeal = Callable[..., Awaitable[Deal]]


@pytest.fixture
def deal(network: Network, rpc: Rpc, contracts: Contracts, account: NewAccount) -> NewDeal:
    """A payer and `workers` staked workers with their leases; nothing of it on chain but the stake."""

    async def make(workers: int = 2, positions: int = 10) -> Deal:
        payer = await account()
        staked = [await account() for _ in range(workers)]
        for worker in staked:
            await contracts.registry.buy_slots(worker, worker.address, 1)
        now = (await rpc.block()).timestamp
        return Deal(network, payer, *staked, now=now, positions=positions)

    return make


Answer = Callable[[dict[str, object]], object]


class Proxy:
    """A node between us and the chain that does what a test says. `rule` gets a request and returns the answer, bytes
    as they are, a number for a bare HTTP status, or `PASS` to ask the chain; `log` holds the methods asked."""

    PASS = object()

    def __init__(self, target: str) -> None:
        self.rule: Answer = lambda request: Proxy.PASS
        self.log: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet, else the other side waits 40 ms to acknowledge the first

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                request = json.loads(body)
                first = request[0] if isinstance(request, list) else request
                proxy.log += [each["method"] for each in (request if isinstance(request, list) else [request])]
                answer = proxy.rule(first)
                if answer is Proxy.PASS:
                    forward = urllib.request.Request(target, body, {"content-type": "application/json"})
                    with urllib.request.urlopen(forward) as response:
                        data = response.read()
                elif isinstance(answer, bytes):
                    data = answer
                else:
                    data = b"" if isinstance(answer, int) else json.dumps(answer).encode()
                self.send_response(answer if isinstance(answer, int) else 200)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def proxy(chain: Chain) -> Iterator[Proxy]:
    made = Proxy(chain.url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def other_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    """A second embedded chain."""
    process = ChainProcess(tmp_path_factory.mktemp("other"))
    yield process
    assert process.stop() == 0


@pytest.fixture
def windable(chain: Chain, request: pytest.FixtureRequest) -> Chain:
    """A chain of the same kind that a test may wind back to a snapshot of its own."""
    made: Chain = chain if isinstance(chain, Hardhat) else request.getfixturevalue("other_chain")
    return made


@pytest.fixture
def start_chain(tmp_path: Path) -> Iterator[Callable[..., ChainProcess]]:
    """Chains of the test's own."""
    started: list[ChainProcess] = []

    def start(*options: str) -> ChainProcess:
        started.append(ChainProcess(tmp_path / "own", *options))
        return started[-1]

    yield start
    for process in started:
        process.stop()
