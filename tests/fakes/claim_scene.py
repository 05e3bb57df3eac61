"""A payer that goes silent, its worker, and auditors that the chain may draw: nodes made of fakes around the real
services. Everything that a node knows is its journal, its blobs and the chain: `run` may be entered again and again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from fakes.blobs import FakeBlobs
from fakes.chain import DOMAINS, FakeChain
from fakes.claims import BOND, FakeClaims, short_windows
from fakes.executor import FakeExecutor
from fakes.journal import MemoryJournal
from fakes.kills import Hosts
from fakes.worker_scene import CLASS, PRICE, Node, Payer, Scene, key_of
from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh.parameters import Parameters
from tallymesh_node.claims import ClaimsService
from tallymesh_node.claims.due import Policy
from tallymesh_node.cores import Cores
from tallymesh_node.worker.policy import SettlePolicy

PATIENCE_S = 300.0
AUDITORS = (11, 12, 13, 14)
# A payer has a minute for a secret and a few for an Accept; the claim windows are fakes.claims.WINDOWS.
PARAMETERS = Parameters(tally_units=4, tally_timed_units=2, tally_time_s=600, claim_window_s=4000, accept_s=20)


class GuardedBlobs(FakeBlobs):
    """Fetches from another node only what that node may give for the ticket shown."""

    def __init__(self, scene: ClaimScene, folder: Path, peer_id: str) -> None:
        super().__init__(folder, scene.swarm, peer_id)
        self.scene, self.peer_id = scene, peer_id

    async def fetch(self, blob: BlobId, sources: Iterable[Source], *, ticket: bytes, timeout_s: float) -> None:
        allowed = [one for one in sources if self.scene.may_fetch(one.peer_id, self.peer_id, blob, ticket)]
        await super().fetch(blob, allowed, ticket=ticket, timeout_s=timeout_s)


class Auditor:
    def __init__(self, scene: ClaimScene, number: int, *, tokens: int = 10 * BOND, slots: int = 1) -> None:
        self.scene = scene
        self.key = key_of(number)
        self.peer_id = f"auditor-{number}"
        self.blobs = GuardedBlobs(scene, scene.folder / self.peer_id, self.peer_id)
        self.executor = FakeExecutor(self.blobs, seconds={"": 1.0})
        self.journal = MemoryJournal()
        self.claims = FakeClaims(scene.chain, self.key.address)
        scene.chain.stake(self.key.address, slots, CLASS)
        if tokens:
            scene.chain.mint(self.key.address, tokens)
        scene.accounts[self.peer_id] = self.key.address
        scene.sources[self.key.address] = Source(self.peer_id)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[ClaimsService]:
        self.service = self.scene.service(self, self.claims, works=None)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.service.run)
            yield self.service
            nursery.cancel_scope.cancel()


class Worker(Node):
    """A worker's node with its claims."""

    scene: ClaimScene

    def __init__(self, scene: ClaimScene, number: int = 1, *, tokens: int = 2 * BOND) -> None:
        super().__init__(scene, number)
        self.policy = SettlePolicy(silence_s=10_000, patience_s=10_000, withdraw_idle_wei=1)  # claims settle first
        self.claims = FakeClaims(scene.chain, self.key.address)
        if tokens:
            scene.chain.mint(self.key.address, tokens)
        scene.sources[self.key.address] = Source(self.peer_id)

    @asynccontextmanager
    async def both(self) -> AsyncIterator[ClaimsService]:
        async with super().run() as worker, trio.open_nursery() as nursery:
            self.claiming = self.scene.service(self, self.claims, works=worker.works)
            await nursery.start(self.claiming.run)
            self.scene.serving[self.peer_id] = self
            try:
                yield self.claiming
            finally:
                del self.scene.serving[self.peer_id]
            nursery.cancel_scope.cancel()


class ClaimScene(Scene):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, PARAMETERS)
        short_windows(self.chain)
        self.sources: dict[bytes, Source] = {}
        self.serving: dict[str, Worker] = {}

    def service(self, node: Any, claims: FakeClaims, *, works: Any) -> ClaimsService:
        if node.peer_id not in self.network.networks:
            self.network.join(node.peer_id)
        policy = Policy(patience_s=PATIENCE_S)
        return ClaimsService(**self.parts_of(node), claims=claims, works=works, policy=policy)

    def parts_of(self, node: Any) -> dict[str, Any]:
        """Of a node, what each service of its quarrels takes. It is in the network."""
        return {
            "network": self.network.networks[node.peer_id],
            "blobs": node.blobs,
            "executor": node.executor,
            "chain": FakeChain(self.chain, node.key.address),
            "journal": node.journal,
            "domains": DOMAINS,
            "key": node.key,
            "parameters": self.parameters,
            "cores": Cores(1),
            "source_of": self.sources.get,
            "account_of": self.accounts.get,
            "drawing": SettlePolicy(withdraw_idle_wei=1),
        }

    def may_fetch(self, holder: str, asker: str, blob: BlobId, ticket: bytes) -> bool:
        worker = self.serving.get(holder)
        return worker is not None and worker.claiming.may_fetch(asker, blob, ticket)


class Story(Hosts):
    """A seat of `positions` units, of which `accepted` tallies were accepted before the payer fell silent."""

    OFF_S, PATIENCE_S = 30.0, 20_000.0

    def __init__(self, scene: ClaimScene, *, worker: Worker | None = None, auditors: int = len(AUDITORS)) -> None:
        super().__init__()
        self.scene = scene
        self.chain = scene.chain
        self.worker = worker or Worker(scene)
        self.auditors = [Auditor(scene, number) for number in AUDITORS[:auditors]]
        self.payer: Payer

    async def work(self, *, units: int = 6, accepted: int = 1, **order: Any) -> None:
        """The worker must be running. Tally 1 is the first unit, later ones have four."""
        order = {"claim_bond": BOND, "claim_window": self.scene.parameters.claim_window_s, **order}
        self.payer = payer = Payer(self.scene, self.worker, **order)
        await payer.begin(until=self.chain.now() + 3000)
        for position in range(units):
            await payer.assign(position)
            await payer.wait(lambda count=position: len(payer.seat.leaves) > count)  # type: ignore[misc]
            while len(payer.seat.accepts) < accepted and len(payer.seat.tallies) > len(payer.seat.accepts):
                await payer.accept(len(payer.seat.accepts) + 1)
            if position == 0:
                await payer.wait(lambda: payer.seat.tallies)
                if accepted:
                    await payer.accept(1)
        self.seat = payer.seat.id

    def vanish(self) -> None:
        """The payer's process is gone, and its disk with it."""
        self.scene.network.down.add(self.payer.peer_id)
        self.scene.swarm.down.add(self.payer.peer_id)

    @asynccontextmanager
    async def everybody(self) -> AsyncIterator[None]:
        """All nodes: `stop` and `start` turn one off and on again."""
        async with self._alive(self.worker, *self.auditors):
            yield

    def _life(self, node: Worker | Auditor) -> AbstractAsyncContextManager[Any]:
        return node.both() if isinstance(node, Worker) else node.run()

    async def start(self, *nodes: Worker | Auditor) -> None:
        self.scene.network.down -= {node.peer_id for node in nodes}
        await super().start(*nodes)

    async def stop(self, *nodes: Worker | Auditor) -> None:
        self.scene.network.down |= {node.peer_id for node in nodes}
        await super().stop(*nodes)

    # What the chain says.

    def claim(self) -> Any:
        """The newest claim of the seat, as the model has it."""
        ids = [e.values["claim"] for _, e in self.chain.events if e.name == "Claimed"]
        return self.chain.contracts.claims.claim_of(ids[-1]) if ids else None

    def found(self) -> Any:
        found = self.claim()
        assert found is not None
        return found

    @property
    def claim_id(self) -> bytes:
        found: bytes = [e.values["claim"] for _, e in self.chain.events if e.name == "Claimed"][-1]
        return found

    def ended(self) -> str:
        return next((e.values["state"].name.lower() for _, e in self.chain.events if e.name == "ClaimEnded"), "")

    def state(self) -> str:
        found = self.claim()
        return found.state.name.lower() if found else ""

    def problems(self) -> dict[str, str]:
        """Of the worker, as `why --node` tells them."""
        return {problem.code: problem.sentence for problem in self.worker.claiming.problems()}

    def paid(self) -> int:
        return self.chain.contracts.escrow.seat_of(self.seat).paid_units

    def wealth(self, account: bytes) -> int:
        """Tokens and credits; nothing is at stake or put up."""
        contracts = self.chain.contracts
        return int(
            contracts.token.balance_of(account)
            + contracts.escrow.credit_of(account)
            + contracts.claims.credit_of(account)
        )

    def net(self, units: int) -> int:
        """What a worker gets for units, after the fee."""
        amount = units * PRICE
        return amount - amount * self.scene.parameters.fee_bp // 10_000
