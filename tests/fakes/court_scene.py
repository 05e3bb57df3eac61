"""A worker that is accused, an accuser, and members that the chain may draw: nodes made of fakes around real services.
The parties' moves are the test's; what they serve is served by the real door. Everything that a member knows is its
journal, its blobs and the chain: it may be stopped and started again and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from fakes.blobs import FakeBlobs, Swarm
from fakes.chain import DOMAINS, FakeChain
from fakes.chain import World as ChainWorld
from fakes.claims import BOND, short_windows
from fakes.court import FakeCourt, trained
from fakes.executor import FakeExecutor
from fakes.journal import MemoryJournal
from fakes.kills import Hosts
from fakes.network import World as NetworkWorld
from fakes.worker_scene import CLASS, PRICE, PROFILE, TOKEN, key_of, order_of
from tallymesh import units
from tallymesh.exchange import Opening, Source
from tallymesh.ids import ZERO32, BlobId
from tallymesh.messages import Assign, Lease, Order, Receipt
from tallymesh.parameters import Parameters
from tallymesh.plan import Plan
from tallymesh.units import JobSpec, Stage, Unit
from tallymesh_ledger import court, merkle
from tallymesh_ledger.court import Case, CaseState, Charge, Statement, Word
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import SignedLease
from tallymesh_node.quarrels.collecting import collect
from tallymesh_node.quarrels.members import Members
from tallymesh_node.quarrels.serving import Dossier, Serving
from tallymesh_node.quarrels.tools import Tools
from tallymesh_node.quarrels.values import SEGMENT
from tallymesh_node.unit_inputs import Specs
from tallymesh_node.worker.policy import SettlePolicy

MEMBERS = (11, 12, 13, 14)
PARAMETERS = Parameters(tally_units=4, claim_window_s=4000, lock_tail_s=20_000)


class GuardedBlobs(FakeBlobs):
    """Fetches from another node only what that node may give for the ticket shown."""

    def __init__(self, scene: CourtScene, peer_id: str) -> None:
        super().__init__(scene.folder / peer_id, scene.swarm, peer_id)
        self.scene, self.peer_id = scene, peer_id

    async def fetch(self, blob: BlobId, sources: Sequence[Source], *, ticket: bytes, timeout_s: float) -> None:
        parties = {party.peer_id: party for party in self.scene.parties}
        allowed = [
            source
            for source in sources
            if source.peer_id in parties and parties[source.peer_id].serving.may_fetch(self.peer_id, blob, ticket)
        ]
        await super().fetch(blob, allowed, ticket=ticket, timeout_s=timeout_s)


class _Node:
    def __init__(self, scene: CourtScene, key: AccountKey, peer_id: str, *, bound: bool = True) -> None:
        self.scene, self.key, self.peer_id = scene, key, peer_id
        self.blobs = GuardedBlobs(scene, peer_id)
        self.executor = FakeExecutor(self.blobs, seconds={"": 1.0})
        self.executor.functions[SEGMENT] = trained
        self.journal = MemoryJournal()
        self.court = FakeCourt(scene.chain, key.address)
        self.network = scene.network.join(peer_id)
        if bound:
            scene.accounts[peer_id] = key.address
        scene.sources[key.address] = Source(peer_id)

    def tools(self) -> Tools:
        return Tools(
            network=self.network,
            blobs=self.blobs,
            executor=self.executor,
            chain=FakeChain(self.scene.chain, self.key.address),
            court=self.court,
            journal=self.journal,
            domains=DOMAINS,
            key=self.key,
            parameters=self.scene.parameters,
            cores=Cores(1),
            specs=Specs(self.blobs),
            source_of=self.scene.sources.get,
            account_of=self.scene.accounts.get,
            counters=Counter(),
        )


class Party(_Node):
    """`dossiers` by case is what it has to show."""

    def __init__(self, scene: CourtScene, key: AccountKey, peer_id: str) -> None:
        super().__init__(scene, key, peer_id)
        self.dossiers: dict[bytes, Dossier] = {}
        self.serving: Serving

    async def open(self) -> None:
        tools = self.tools()
        self.counters = tools.counters
        self.serving = Serving(tools, await self.court.terms(), self.dossiers.get)
        self.serving.open()


class Member(_Node):
    def __init__(self, scene: CourtScene, number: int, *, slots: int = 1) -> None:
        super().__init__(scene, key_of(number), f"member-{number}")
        scene.chain.stake(self.key.address, slots, CLASS)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Members]:
        tools = self.tools()
        self.counters = tools.counters
        self.members = Members(tools, await self.court.terms())
        policy = SettlePolicy(withdraw_wei=1, withdraw_idle_wei=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.members.run)
            nursery.start_soon(collect, tools, policy, lambda: self.members.idle)
            yield self.members
            nursery.cancel_scope.cancel()


class CourtScene(Hosts):
    """One seat with one signed unit: a segment of `steps` steps, of which the worker lies from step `wrong` on."""

    OFF_S, PATIENCE_S = 3.0, 5000.0

    def __init__(
        self, folder: Path, *, steps: int = 8, wrong: int = 6, members: Sequence[int] = MEMBERS, total: int = 100
    ) -> None:
        super().__init__()
        self.folder = folder
        self.parameters = PARAMETERS
        self.chain = ChainWorld(DOMAINS, PARAMETERS)
        short_windows(self.chain)
        self.network, self.swarm = NetworkWorld(), Swarm()
        self.accounts: dict[str, bytes] = {}
        self.sources: dict[bytes, Source] = {}
        self.worker = Party(self, key_of(1), "worker")
        self.payer = Party(self, key_of(50), "payer")
        self.signer = key_of(51)
        self.parties = (self.worker, self.payer)
        self.chain.stake(self.worker.key.address, 2, CLASS)
        self.chain.mint(self.payer.key.address, 10 * TOKEN)
        self.members = [Member(self, number) for number in members]
        self.steps, self.wrong, self.total = steps, wrong, total
        self.case = b""

    # The scene.

    async def prepare(self, unit: Unit | None = None) -> None:
        """The job, its seat, and the worker's signed leaf. `unit` replaces the one that the order pays for."""
        self.made = self._unit()
        self.unit = unit or self.made
        self.order = self._order()
        self.lease = Lease(
            job=job_id(DOMAINS, self.order),
            worker=self.worker.key.address,
            positions=12,
            price=PRICE,
            work_ms=1000,
            numeric_class=CLASS,
            lock=10_000,
            until=self.chain.now() + 3600,
            seat_by=self.chain.now() + 100,
            secret_1=ZERO32,
            secret_2=ZERO32,
            nonce=1,
        )
        self.seat = seat_id(DOMAINS, self.lease)
        signatures = [key.sign(DOMAINS, self.lease).signature for key in (self.signer, self.worker.key)]
        await self.chain.view(self.payer.key.address).open(self.order, [SignedLease(self.lease, *signatures)])
        assert self.seat in self.chain.leases, self.chain.refused
        for party in self.parties:
            await party.open()
        self.honest = self._row(wrong=0)
        self.told = self._row(wrong=self.wrong)

    def _unit(self) -> Unit:
        """The first of the job's plan; both parties have all that it takes."""
        for party in self.parties:
            program, state, data = (party.blobs.put(one) for one in (b"a program", b"the first state", b"the data"))
            config = units.canonical_json({"steps": self.steps, "total": self.total})
            stage = Stage("segment", SEGMENT, config, 1000)
            spec = JobSpec("sequential", program, PROFILE, 0, (stage,), (data,), initial=state, rounds=3)
            self.template = party.blobs.put(units.encode(spec))
        return next(iter(Plan(spec).ready())).unit

    def _order(self) -> Order:
        return order_of(
            self.payer.key.address,
            self.signer.address,
            self.template,
            lock_per_seat=10_000,
            claim_bond=BOND,
            claim_window=4000,
            evidence_window=4000,
            deadline=self.chain.now() + 1_000_000,
        )

    def _row(self, *, wrong: int) -> list[bytes]:
        """Values 0 … steps, and their states in both parties' stores; those from `wrong` on are a lie."""
        content = {BlobId(item.blob): self.payer.blobs.get(BlobId(item.blob)) for item in self.made.inputs}
        config = units.canonical_json({"steps": 1})
        row, state = [bytes(self.made.start)], content[self.made.start]
        for step in range(1, self.steps + 1):
            inputs = tuple(
                replace(each, blob=self.payer.blobs.put(state)) if each.name == "state" else each
                for each in self.made.inputs
            )
            here = {**content, self.payer.blobs.put(state): state}
            state, _ = trained(replace(self.made, inputs=inputs, config=config), here)
            if wrong and step >= wrong:
                state = b"a lie after %d" % step
            for party in self.parties:
                row_value = party.blobs.put(state)
            row.append(row_value)
        return row

    # The quarrel.

    async def accuse(
        self, *, steps: int = 0, own_start: bytes = b"", own_end: bytes = b"", serve: bool = True, **leaf: bytes
    ) -> bytes:
        """The payer accuses; both parties keep what members need."""
        said = {"start": self.told[0], "end": self.told[-1], **leaf}
        opening = Opening(units.unit_id(self.unit), said["start"], said["end"], b"s" * 32, b"a" * 32)
        self.opening = opening
        hashed = merkle.leaf(self.seat, 0, opening)
        receipt = self.worker.key.sign(DOMAINS, Receipt(seat=self.seat, position=0, leaf=hashed)).signature
        assign = self.signer.sign(DOMAINS, Assign(seat=self.seat, position=0, unit_id=opening.unit_id)).signature
        charge = Charge(
            position=0,
            statement=Statement(word=Word.RECEIPT, leaf=hashed, signature=receipt),
            opening=opening,
            assign=assign,
            own_start=own_start or self.honest[0],
            own_end=own_end or self.honest[-1],
            steps=steps or self.steps,
        )
        payer = self.payer.court
        witnesses = await payer.witnesses(self.order, self.lease)
        await payer.accuse(self.order, self.lease, charge, witnesses, brings_wei=None)
        self.case = court.accusation_of(self.seat, 0, opening, self.payer.key.address)
        if serve:
            for party in self.parties:
                party.dossiers[self.case] = self.dossier()
        return self.case

    def dossier(self, **changes: Any) -> Dossier:
        found = Dossier(
            order=self.payer.key.sign(DOMAINS, self.order).body,
            lease=self.signer.sign(DOMAINS, self.lease).body,
            template=self.template,
            unit=units.encode(self.unit),
            opening=self.opening,
        )
        return msgspec.structs.replace(found, **changes)

    async def narrow(self) -> int:
        """Both name their values until one step is left. How many exchanges that took."""
        exchanges = 0
        while (found := self.found()).state in (CaseState.POSTING, CaseState.ANSWERING):
            middle = min(found.middle, self.steps)
            await self.worker.court.post(self.case, self.told[middle])
            await self.payer.court.answer(self.case, self.honest[middle])
            exchanges += 1
        return exchanges

    async def draw(self) -> None:
        """The panel, once its seed is there."""
        await trio.sleep(court.SEED_DELAY + 2)
        await self.payer.court.advance(self.case)
        assert self.found().state is CaseState.VOTING

    def found(self) -> Case:
        found = msgspec.structs.asdict(self.chain.contracts.court.case_of(self.case))
        found |= {"state": CaseState(found["state"]), "ruling": court.Ruling(found["ruling"])}
        return Case(**found)

    def seats(self) -> list[bytes]:
        """Who sits on the present panel."""
        self.chain.at_now()
        model = self.chain.contracts.court
        size = model.terms.appeal_panel if self.found().appealed else model.terms.panel
        return [model.member_at(self.case, number)[0] for number in range(size)]

    def wealth(self, account: bytes) -> int:
        contracts = self.chain.contracts
        credits = contracts.court.credit_of(account) + contracts.accusations.credit_of(account)
        return int(contracts.token.balance_of(account) + contracts.escrow.credit_of(account) + credits)

    # Nodes.

    @asynccontextmanager
    async def everybody(self) -> AsyncIterator[None]:
        async with self._alive(*self.members):
            yield

    def _life(self, node: Any) -> AbstractAsyncContextManager[Any]:
        life: AbstractAsyncContextManager[Any] = node.run()
        return life

    async def ruled(self) -> court.Ruling:
        await self.until(lambda: self.found().state is CaseState.RULED)
        return self.found().ruling
