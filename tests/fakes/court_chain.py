"""One network with all contracts, on the embedded chain's own machine or on their model, and each account's way to it:
a job with one seat, its units signed by the worker and accepted by nobody, an accusation, the votes. For the suite that
both have to pass, and for measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from fakes.chain import DOMAINS, FakeChain, World
from fakes.claims import BOND, FakeClaims
from fakes.court import FakeCourt
from fakes.virtual_chain import CHAIN_ID, URL, VirtualChain
from fakes.worker_scene import CLASS, key_of
from tallymesh import units
from tallymesh.exchange import Opening
from tallymesh.ids import ZERO32
from tallymesh.messages import Assign, Lease, Order, Receipt
from tallymesh.network import Network
from tallymesh.parameters import Parameters
from tallymesh.units import Unit
from tallymesh_ledger import court, merkle
from tallymesh_ledger.chain import Rpc, Sender
from tallymesh_ledger.court import Case, Charge, Ruling, Statement, Word
from tallymesh_ledger.deploy import deploy
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.model.panels import CourtTerms
from tallymesh_ledger.model.rulings import ClaimTerms
from tallymesh_node.claims.chain import ContractClaims, claims_of
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.interfaces import SignedLease
from tallymesh_node.quarrels.chain import ContractCourt, court_of

PRICE, UNITS, COIN, FEE_WEI, LOCK = 1000, 6, 10**18, 20, 5000
PARAMETERS = Parameters(
    slot_wei=10_000, class_delay_s=1, claim_window_s=500, claim_commit_s=20, claim_open_s=20, claim_reveal_s=20,
    claim_challenge_s=20, court_quorum=3, court_panel=3, court_appeal_panel=5, court_member_fee_wei=FEE_WEI,
    court_move_s=30, court_commit_s=40, court_reveal_s=40, court_appeal_s=20, confirmations=1,
)  # fmt: skip
WORKER, PAYER, SIGNER, AUDITORS = key_of(1), key_of(50), key_of(51), [key_of(n) for n in (11, 12, 13, 14)]
DISPUTED = 2  # position of the unit that is accused


async def admitted(
    virtual: VirtualChain,
    rpc: Rpc,
    parameters: Parameters,
    keys: Iterable[AccountKey],
    *,
    staked: Iterable[AccountKey],
) -> tuple[Network, dict[bytes, EscrowChain]]:
    """A network on that new chain, and each account's way to it, with coin and tokens from the bank; those that are
    staked have a slot, too, and the class of it counts."""
    keys, staked = tuple(keys), tuple(staked)

    def chains_of(network: Network) -> dict[bytes, EscrowChain]:
        return {key.address: EscrowChain(rpc, network, key) for key in keys}

    async def story() -> Network:
        bank = Sender(rpc, virtual.key)
        network = Network("test", CHAIN_ID, (URL,), await deploy(bank, parameters), parameters)
        chains = chains_of(network)
        for account, chain in chains.items():
            await bank.send(account, value=COIN)
            await chain.contracts.token.transfer(bank, account, 10**6)
        for key in staked:
            chain = chains[key.address]
            await chain.contracts.registry.buy_slots(chain.sender, key.address, 1)
            await chain.contracts.registry.set_class(chain.sender, CLASS)
        await trio.sleep(parameters.class_delay_s + 1)
        virtual.call("evm_mine")
        return network

    who = (tuple(key.address for key in keys), tuple(key.address for key in staked))
    network = await virtual.begin(("admitted", parameters, who), story)
    return network, chains_of(network)


class Quarrel(ABC):
    """A job with one seat, what its worker signed, and a quarrel about one unit, whatever the chain is made of."""

    parameters: Parameters
    domains: Domains
    chains: dict[bytes, Any]  # by account: `Chain` …
    claims: dict[bytes, Any]  # … `ClaimsChain` …
    court: dict[bytes, Any]  # … and `CourtChain`

    @property
    def payer(self) -> Any:
        return self.court[PAYER.address]

    @property
    def worker(self) -> Any:
        return self.court[WORKER.address]

    @property
    @abstractmethod
    def now(self) -> int:
        """Chain time, in seconds."""

    @abstractmethod
    async def mine(self, blocks: int = 1) -> None: ...

    async def _open(self, lease: SignedLease) -> None:
        await self.chains[PAYER.address].open(self.order, [lease])
        assert await self.chains[PAYER.address].seat_state(self.id) is not None

    # The job.

    async def seat(self, unit: Unit | None = None) -> None:
        """A job with one seat and receipts for all its units, none of them accepted. `unit` is the disputed one."""
        self.order = Order(
            payer=PAYER.address, signer=SIGNER.address, template=ZERO32, numeric_profile=ZERO32, cores=1, memory_mib=0,
            disk_mib=0, gpus=0, price_max=PRICE, wages=100_000, audit_reserve=1000, lock_per_seat=LOCK, claim_bond=BOND,
            audit_rate_bp=400, tally_units=4, claim_window=500, evidence_window=500, auditors=0,
            auditors_root=ZERO32, signer_seat_max=100_000, newcomers=False, deadline=self.now + 10_000, salt=ZERO32,
        )  # fmt: skip
        self.lease = Lease(
            job=job_id(self.domains, self.order), worker=WORKER.address, positions=UNITS, price=PRICE, work_ms=1000,
            numeric_class=CLASS, lock=LOCK, until=self.now + 1000, seat_by=self.now + 100, secret_1=b"1" * 32,
            secret_2=b"2" * 32, nonce=1,
        )  # fmt: skip
        self.id = seat_id(self.domains, self.lease)
        signatures = [key.sign(self.domains, self.lease).signature for key in (SIGNER, WORKER)]
        await self._open(SignedLease(self.lease, *signatures))
        self.openings = [
            Opening(bytes([i]) * 32, ZERO32, b"e%d" % i + bytes(30), b"s%d" % i + bytes(30), b"a" * 32)
            for i in range(UNITS)
        ]
        if unit is not None:
            self.tell(Opening(units.unit_id(unit), unit.start, ZERO32, b"s" * 32, b"a" * 32))
        self.leaves = [merkle.leaf(self.id, i, opening) for i, opening in enumerate(self.openings)]

    def tell(self, opening: Opening) -> None:
        """What the worker says of the disputed unit."""
        self.openings[DISPUTED] = opening
        self.leaves = [merkle.leaf(self.id, i, each) for i, each in enumerate(self.openings)]

    def assign(self, position: int) -> bytes:
        unit = self.openings[position].unit_id
        return SIGNER.sign(self.domains, Assign(seat=self.id, position=position, unit_id=unit)).signature

    def receipt(self, position: int, leaf: bytes) -> Statement:
        message = Receipt(seat=self.id, position=position, leaf=leaf)
        return Statement(word=Word.RECEIPT, leaf=leaf, signature=WORKER.sign(self.domains, message).signature)

    # The quarrel.

    def charge(self, own_end: bytes = b"o" * 32, *, steps: int = 8) -> Charge:
        opening = self.openings[DISPUTED]
        return Charge(
            position=DISPUTED,
            statement=self.receipt(DISPUTED, self.leaves[DISPUTED]),
            opening=opening,
            assign=self.assign(DISPUTED),
            own_start=opening.start,
            own_end=own_end,
            steps=steps,
        )

    async def accuse(self, own_end: bytes = b"o" * 32, *, steps: int = 8) -> bytes:
        witnesses = await self.payer.witnesses(self.order, self.lease)
        charge = self.charge(own_end, steps=steps)
        await self.payer.accuse(self.order, self.lease, charge, witnesses, brings_wei=None)
        return court.accusation_of(self.id, DISPUTED, charge.opening, PAYER.address)

    async def found(self, case: bytes) -> Case:
        found = await self.worker.case_of(case)
        assert isinstance(found, Case)
        return found

    async def vote(self, case: bytes, result: bytes) -> int:
        """The whole panel commits to this, and reveals it. How many votes that was."""
        found = await self.found(case)
        members = await self.worker.members(case, (await self.worker.terms()).size(found))
        for member in members:
            commitment = court.vote(result, b"s" * 32, member.account)
            await self.court[member.account].commit(case, member, commitment, brings_wei=None)
        for member in members:
            await self.court[member.account].reveal(case, member.number, result, b"s" * 32)
        return len(members)

    async def rule(self, case: bytes) -> Ruling:
        """Count the votes, let the time for an appeal pass, and carry the ruling out."""
        await self.worker.advance(case)
        await trio.sleep(self.parameters.court_appeal_s + 2)
        await self.worker.advance(case)
        await self.payer.acquit_or_convict(self.lease, case)
        return (await self.found(case)).ruling


class CourtChain(Quarrel):
    """The real contracts on the embedded chain's own machine."""

    def __init__(self, virtual: VirtualChain, parameters: Parameters) -> None:
        self.virtual = virtual
        self.parameters = parameters
        self.rpc = virtual.rpc()
        self.chains, self.claims, self.court = {}, {}, {}

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, parameters: Parameters = PARAMETERS) -> AsyncIterator[CourtChain]:
        virtual = VirtualChain(folder)
        made = cls(virtual, parameters)
        async with made.rpc:
            await made._prepare()
            yield made
        virtual.close()

    async def _prepare(self) -> None:
        staked = (WORKER, *AUDITORS)
        self.network, chains = await admitted(self.virtual, self.rpc, self.parameters, (*staked, PAYER), staked=staked)
        self.domains = Domains.of(self.network)
        self.chains = dict(chains)
        for account, chain in self.chains.items():
            claiming, judging = claims_of(chain, self.network), court_of(chain, self.network)
            assert isinstance(claiming, ContractClaims)
            assert isinstance(judging, ContractCourt)
            self.claims[account], self.court[account] = claiming, judging

    async def mine(self, blocks: int = 1) -> None:
        await trio.lowlevel.checkpoint()
        for _ in range(blocks):
            self.virtual.call("evm_mine")

    @property
    def now(self) -> int:
        return int(self.virtual.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def gas(self, since_block: int = 0) -> int:
        """Of all transactions after that block."""
        head = int(self.virtual.call("eth_blockNumber"), 16)
        blocks = (self.virtual.call("eth_getBlockByNumber", hex(i), False) for i in range(since_block + 1, head + 1))
        return sum(int(block["gasUsed"], 16) for block in blocks)


class ModelChain(Quarrel):
    """The contracts' model, one block a second of the test's clock."""

    def __init__(self) -> None:
        p = self.parameters = PARAMETERS
        self.domains = DOMAINS
        self.world = World(DOMAINS, p)
        self.world.contracts.claims.terms = ClaimTerms(
            p.claim_commit_s, p.claim_open_s, p.claim_reveal_s, p.claim_challenge_s
        )
        self.world.contracts.court.terms = CourtTerms(
            p.court_quorum,
            p.court_panel,
            p.court_appeal_panel,
            p.court_member_fee_wei,
            p.court_move_s,
            p.court_commit_s,
            p.court_reveal_s,
            p.court_appeal_s,
        )
        accounts = [key.address for key in (WORKER, PAYER, *AUDITORS)]
        self.chains = {account: FakeChain(self.world, account) for account in accounts}
        self.claims = {account: FakeClaims(self.world, account) for account in accounts}
        self.court = {account: FakeCourt(self.world, account) for account in accounts}
        for account in accounts:
            self.world.mint(account, 10**6)
            if account != PAYER.address:
                self.world.stake(account, 1, CLASS)

    @property
    def now(self) -> int:
        return self.world.now()

    async def mine(self, blocks: int = 1) -> None:
        await trio.sleep(blocks)
