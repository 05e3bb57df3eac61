"""The real contracts on the embedded chain's own machine, in this process, behind the real JSON-RPC client."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import httpx

from fakes.contract_world import CHAIN_ID, Exact, Job, World
from tallymesh.network import Contracts, Network
from tallymesh_ledger.chain import Rpc
from tallymesh_ledger.embedded_chain.methods import Methods, RpcFailure
from tallymesh_ledger.keys import checksum


class Direct(Rpc):
    """The real client without a socket; `rule` may answer in the chain's place."""

    def __init__(self, methods: Methods) -> None:
        super().__init__(["http://chain.invalid"], chain_id=CHAIN_ID, transport=httpx.MockTransport(self._serve))
        self.methods = methods
        self.asked: list[tuple[str, Any]] = []
        self.rule: Callable[[str, Any], Any] = lambda method, params: None

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


@functools.cache
def _deployed() -> World:
    return World(Exact())


class Chain:
    """The contracts on the embedded chain's own machine. They are deployed once in a process, and copied; `world` is
    another one, of the same contracts at the same addresses."""

    def __init__(self, world: World | None = None) -> None:
        self.go_on(world or _deployed().copy())
        addresses = {name: checksum(address) for name, address in self.world.contracts.items()}
        self.network = Network(
            name="test",
            chain_id=CHAIN_ID,
            rpc_urls=("http://chain.invalid",),
            contracts=Contracts(
                token=addresses["Token"],
                registry=addresses["Registry"],
                escrow=addresses["JobEscrow"],
                rewards=addresses.get("Rewards", ""),
                deployed_block=1,
            ),
            parameters=self.world.parameters,
        )

    def go_on(self, world: World) -> None:
        """With what happened there, before anybody asked this chain."""
        self.world = world
        self.engine = world.engine
        self.methods = Methods(self.engine._evm, self.engine._store)

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


def job_done(chain: Chain) -> Job:
    """`a_job` on a chain where nothing happened yet: it was run once in this process."""
    assert chain.head == len(chain.world.contracts), "only the contracts are there"
    job = _done().copy()
    chain.go_on(job.world)
    return job


@functools.cache
def _done() -> Job:
    return a_job(Chain())


def a_job(chain: Chain, *, workers: int = 2, positions: int = 6) -> Job:
    """Two seats, one settled in two parts and paid in full, one released early; an audit; refund, withdrawals; a lock
    that ended; a slot that was released and withdrawn; fees burned."""
    world = chain.world
    job = Job(world, workers=workers, positions=positions)
    call = world.call
    call("JobEscrow", "open", job.order, [job.seating(i) for i in range(workers)], by=job.payer)
    call("JobEscrow", "settle", [job.settlement(0, 1)], by=job.workers[0])
    ends = [
        job.end(0, positions, [job.audit(0, job.workers[1], 0, by_payer=True)], released=False),
        job.end(1, positions - 2, [], released=True),
    ]
    call("JobEscrow", "finish", job.order, ends, by=job.payer)
    world.wait(max(world.parameters.evidence_window_s, world.parameters.lock_tail_s) + 1)
    chain.mine()
    call("JobEscrow", "refund", job.order, by=job.payer)
    call("JobEscrow", "unlock", [job.leases[0]], by=job.payer)
    call("JobEscrow", "withdraw", job.payer.address, by=job.payer)
    call("JobEscrow", "withdraw", job.workers[0].address, by=job.payer)
    call("JobEscrow", "burnFees", by=job.payer)
    call("Registry", "releaseSlots", job.workers[0].address, [0], by=job.workers[0])
    world.wait(world.parameters.unbonding_s + 1)
    chain.mine()
    call("Registry", "withdraw", job.workers[0].address, by=job.workers[0])
    return job
