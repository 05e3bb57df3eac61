"""The quarrel of court_scene.py with real services on both sides: a payer whose auditors found another result, and the
worker that it accuses. Each is its journal, its blobs and the chain; each may be off for a while, killed, restored.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from msgspec.structs import replace

from fakes.chain import DOMAINS, FakeChain
from fakes.court import trained
from fakes.court_scene import MEMBERS, CourtScene, Party
from fakes.kills import Trap
from fakes.worker_scene import CLASS
from tallymesh import exchange, units
from tallymesh.exchange import AssignRequest, Opening, ReceiptRequest, Report, Source
from tallymesh.ids import BlobId, blob_id
from tallymesh.messages import Assign, Receipt
from tallymesh.units import Unit
from tallymesh_ledger import court, merkle
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.model import quarrels, trials
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Entry
from tallymesh_node.quarrels.grounds import Grounds
from tallymesh_node.quarrels.service import QuarrelsService
from tallymesh_node.quarrels.values import SEGMENT
from tallymesh_node.quarrels.whereabouts import Whereabouts
from tallymesh_node.worker.policy import SettlePolicy
from tallymesh_node.worker.record import SCOPE, LeaseLine, Line, ReceiptLine

POSITION = 0


def hashed(peer: str) -> bytes:
    """The peers of these tests have names."""
    return keccak(peer.encode())


class Told:
    """Where members find others: by offers, and by what they were told."""

    def __init__(self, offers: dict[bytes, Source], told: Sequence[Whereabouts]) -> None:
        self.offers, self.told = offers, told

    def get(self, account: bytes) -> Source | None:
        found = [each.source_of(account) for each in self.told]
        return self.offers.get(account) or next((each for each in found if each is not None), None)


class Door:
    """What court_scene asks of a party's door: the service may not have opened it yet."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def may_fetch(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        return self.host.service is not None and self.host.service.may_fetch(peer_id, blob, ticket)


class Host(Party):
    """A party with a real service."""

    def __init__(self, scene: PartyScene, party: Party) -> None:
        self.__dict__.update(party.__dict__)
        self.scene: PartyScene = scene
        self.service: QuarrelsService | None = None
        self.grounds: list[Grounds] = []
        self.numeric_class = CLASS
        self.serving: Any = Door(self)

    async def open(self) -> None:
        """The service does."""

    def make(self) -> QuarrelsService:
        self.network = self.scene.network.join(self.peer_id)
        return QuarrelsService(
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
            source_of=self.scene.offers.get,
            account_of=self.scene.accounts.get,
            numeric_class=lambda: self.numeric_class,
            grounds=lambda: self.grounds,
            audits=False,
            drawing=SettlePolicy(withdraw_wei=1, withdraw_idle_wei=1),
            hash_of=hashed,
        )

    @asynccontextmanager
    async def run(self) -> AsyncIterator[QuarrelsService]:
        self.service = self.make()
        self.scene.network.down.discard(self.peer_id)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.service.run)
            try:
                yield self.service
            finally:
                self.scene.network.down.add(self.peer_id)
            nursery.cancel_scope.cancel()

    def problems(self) -> dict[str, str]:
        assert self.service is not None
        return {problem.code: problem.sentence for problem in self.service.problems()}


class PartyScene(CourtScene):
    """`honest` says whether the worker's leaf is what everybody would find; the payer's auditors say something else."""

    def __init__(
        self, folder: Path, *, steps: int = 8, wrong: int = 6, honest: bool = False,
        members: Sequence[int] = MEMBERS,
    ) -> None:  # fmt: skip
        super().__init__(folder, steps=steps, wrong=wrong, members=members)
        self.is_honest = honest
        self.offers: dict[bytes, Source] = {}
        self.worker: Host = Host(self, self.worker)
        self.payer: Host = Host(self, self.payer)
        self.parties = (self.worker, self.payer)

    async def prepare(self, unit: Unit | None = None) -> None:
        await super().prepare(unit)
        # A payer publishes no offer: members hear from itself where it is.
        self.offers |= {key: source for key, source in self.sources.items() if key != self.payer.key.address}
        told = [Whereabouts(each.network, DOMAINS, each.key, hash_of=hashed) for each in self.members]
        for each in told:
            each.open()
        self.sources: Any = Told(self.offers, told)
        end = self.honest[-1] if self.is_honest else self.told[-1]
        salt = merkle.salt(self.worker.key.secret, self.seat, POSITION)
        self.opening = Opening(units.unit_id(self.unit), self.unit.start, end, salt, blob_id(b"{}"))
        self.leaf = merkle.leaf(self.seat, POSITION, self.opening)
        receipt = self.worker.key.sign(DOMAINS, Receipt(seat=self.seat, position=POSITION, leaf=self.leaf)).body
        message = Assign(seat=self.seat, position=POSITION, unit_id=self.opening.unit_id)
        self.assign = self.signer.sign(DOMAINS, message).body
        self.case = court.accusation_of(self.seat, POSITION, self.opening, self.payer.key.address)
        found = self.told[-1] if self.is_honest else self.honest[-1]
        self.grounds = Grounds(
            self.payer.key.sign(DOMAINS, self.order).body, self.worker.key.sign(DOMAINS, self.lease).body, POSITION,
            receipt, self.opening, self.assign, units.encode(self.unit), found, self.worker.network.source,
        )  # fmt: skip
        self.payer.grounds.append(self.grounds)
        liar = self.payer if self.is_honest else self.worker
        liar.executor.functions[SEGMENT] = self._liar
        lines = (
            (Line.LEASE, LeaseLine(self.grounds.order, self.signer.sign(DOMAINS, self.lease).body, self.grounds.lease,
                                   self.payer.network.source, self.chain.now())),
            (Line.ASSIGN, AssignRequest(self.assign, self.grounds.unit)),
            (Line.RECEIPT, ReceiptLine(exchange.encode(ReceiptRequest(receipt, self.opening, Report())),
                                       self.chain.now())),
        )  # fmt: skip
        await self.worker.journal.append(
            SCOPE + self.seat.hex(), *((kind.value, exchange.encode(line)) for kind, line in lines)
        )

    async def sign(self, before: Sequence[Entry], *, salt: bytes) -> None:
        """The worker's journal of the seat, with another receipt than that which the payer has."""
        opening = replace(self.opening, salt=salt)
        leaf = merkle.leaf(self.seat, POSITION, opening)
        receipt = self.worker.key.sign(DOMAINS, Receipt(seat=self.seat, position=POSITION, leaf=leaf)).body
        line = ReceiptLine(exchange.encode(ReceiptRequest(receipt, opening, Report())), self.chain.now())
        lines = [(entry.kind, entry.body) for entry in before]
        await self.worker.journal.append(SCOPE + self.seat.hex(), *lines, (Line.RECEIPT.value, exchange.encode(line)))

    def _liar(self, unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        """The same story however it is cut: where the state is one of the story's, it goes on from there."""
        state, steps = inputs[unit.input("state")], json.loads(unit.config)["steps"]
        done = self.told.index(blob_id(state)) if blob_id(state) in self.told else None
        if done is None:
            return trained(unit, inputs)
        value = self.told[min(done + steps, self.steps)]
        return self.worker.blobs.get(BlobId(value)), {"loss": 0.5}

    # Nodes.

    @asynccontextmanager
    async def everybody(self, *hosts: Host) -> AsyncIterator[None]:
        """Members, and these parties (both, where none is named)."""
        async with super().everybody():
            await self.start(*(hosts or self.parties))
            yield

    async def ended(self, *, timeout_s: float = 5000.0) -> court.Ruling:
        """Ruled, carried out, and everybody has drawn what it is owed."""
        await self.until(lambda: self.found().taken, timeout_s=timeout_s)
        contracts = self.chain.contracts
        await self.until(lambda: not any(contracts.accusations.credit_of(host.key.address) for host in self.parties))
        self.chain.check()
        return self.found().ruling

    def all_of(self, account: bytes) -> int:
        """Tokens, credits and stake."""
        free, locked, unbonding = self.chain.contracts.registry.stake_of(account)
        return self.wealth(account) + int(free + locked + unbonding)

    def moves(self, name: str) -> int:
        """Transactions of this kind, by anybody."""
        return sum(what == name for what, _ in self.chain.transactions)

    async def until_moved(self) -> None:
        """Until the case's state, or what it is about, is another one."""
        found = self.found()
        before = found.state, found.lo, found.hi
        await self.until(lambda: (self.found().state, self.found().lo, self.found().hi) != before or self.found().taken)

    def trap(self, host: Host, kind: str, *, after: bool) -> Callable[[], bool]:
        """Kills the host at the first line of this kind: before it is stored, or once it is."""
        trap = Trap(host.journal, kind, after=after)
        return lambda: trap.sprung

    def take_back(self) -> None:
        """A reorganisation: the accusation, its bond, its case and its hold on the seat are gone."""
        contracts, token = self.chain.contracts, self.chain.contracts.token
        made, accuser = contracts.accusations, self.payer.key.address
        bond, fee = made.accusation_of(self.case).bond, contracts.court.fee()
        self.chain.run(lambda: contracts.escrow.let_go(made.address, self.lease))
        self.chain.run(lambda: token.transfer(made.address, accuser, bond))
        self.chain.run(lambda: token.transfer(contracts.court.address, accuser, fee))
        contracts.court._owed["sum"] -= fee
        made._accusations[self.case] = quarrels.Accusation()
        contracts.court._cases[self.case] = trials.Case()
        names = ("Accused", "CaseOpened")
        self.chain.events = [(at, event) for at, event in self.chain.events if event.name not in names]

    def rule_for_now(self, ruling: court.Ruling) -> None:
        """The panel has decided so, with all its votes."""
        model = self.chain.contracts.court
        found = model.case_of(self.case)
        deadline = self.chain.now() + model.terms.appeal_window
        model._cases[self.case] = replace(
            found, state=trials.State.APPEALABLE, ruling=trials.Ruling(ruling), deadline=deadline,
            first_round=found.round,
        )  # fmt: skip

    def fund(self, host: Host) -> None:
        """For an appeal."""
        self.chain.mint(host.key.address, self.chain.contracts.court.appeal_fee())

    async def until_state(self, *states: court.CaseState, timeout_s: float = 5000.0) -> None:
        await self.until(lambda: self.found().state in states, timeout_s=timeout_s)
