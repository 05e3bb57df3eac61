"""The real bindings over the real contracts, on the embedded chain's own machine and the test's clock: one claim from
its making to its pay, asked and moved on through `ClaimsChain` alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from fakes.claims import BOND
from fakes.court_chain import admitted
from fakes.virtual_chain import VirtualChain
from fakes.worker_scene import CLASS, key_of
from tallymesh.errors import ChainError
from tallymesh.exchange import Opening
from tallymesh.ids import ZERO32
from tallymesh.messages import Assign, Lease, Order, Tally
from tallymesh.parameters import Parameters
from tallymesh_ledger import claims, merkle, sampling
from tallymesh_ledger.chain import Seating
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_ledger.claims import CLAIM_TALLY, ClaimState, Finding, Heard
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_node.claims.chain import ContractClaims, claims_of
from tallymesh_node.escrow import EscrowChain

PRICE, UNITS, FEE_WEI = 1000, 6, 20
PARAMETERS = Parameters(
    slot_wei=10_000, class_delay_s=1, claim_window_s=500, claim_commit_s=20, claim_open_s=20, claim_reveal_s=20,
    claim_challenge_s=20, court_quorum=3, court_panel=3, court_appeal_panel=5, court_member_fee_wei=FEE_WEI,
    confirmations=1,
)  # fmt: skip
WORKER, PAYER, SIGNER, AUDITORS = key_of(1), key_of(50), key_of(51), [key_of(n) for n in (11, 12, 13, 14)]


class Chain:
    """One network on one chain, and each account's way to it."""

    def __init__(self, virtual: VirtualChain) -> None:
        self.virtual = virtual
        self.rpc = virtual.rpc()
        self.chains: dict[bytes, EscrowChain] = {}
        self.claims: dict[bytes, ContractClaims] = {}

    async def prepare(self) -> None:
        staked = (WORKER, *AUDITORS)
        self.network, self.chains = await admitted(self.virtual, self.rpc, PARAMETERS, (*staked, PAYER), staked=staked)
        self.domains = Domains.of(self.network)
        for account, chain in self.chains.items():
            found = claims_of(chain, self.network)
            assert isinstance(found, ContractClaims)
            self.claims[account] = found

    def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.virtual.call("evm_mine")

    @property
    def now(self) -> int:
        return int(self.virtual.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    async def seat(self) -> None:
        """A job with one seat and receipts for all its units, none of them accepted."""
        self.order = Order(
            payer=PAYER.address, signer=SIGNER.address, template=ZERO32, numeric_profile=ZERO32, cores=1, memory_mib=1,
            disk_mib=1, gpus=0, price_max=PRICE, wages=100_000, audit_reserve=1000, lock_per_seat=100, claim_bond=BOND,
            audit_rate_bp=400, tally_units=4, claim_window=500, evidence_window=500, auditors=0,
            auditors_root=ZERO32, signer_seat_max=100_000, newcomers=False, deadline=self.now + 10_000, salt=ZERO32,
        )  # fmt: skip
        self.lease = Lease(
            job=job_id(self.domains, self.order), worker=WORKER.address, positions=UNITS, price=PRICE, work_ms=1000,
            numeric_class=CLASS, lock=100, until=self.now + 1000, seat_by=self.now + 100, secret_1=b"1" * 32,
            secret_2=b"2" * 32, nonce=1,
        )  # fmt: skip
        self.id = seat_id(self.domains, self.lease)
        seating = Seating(
            self.lease, WORKER.sign(self.domains, self.lease).signature, SIGNER.sign(self.domains, self.lease).signature
        )
        payer = self.chains[PAYER.address]
        outcome = await payer.contracts.escrow.open(payer.sender, self.order, [seating])
        assert not outcome.refused
        self.openings = [
            Opening(bytes([i]) * 32, ZERO32, b"e%d" % i + bytes(30), b"s%d" % i + bytes(30), b"a" * 32)
            for i in range(UNITS)
        ]
        self.leaves = [merkle.leaf(self.id, i, opening) for i, opening in enumerate(self.openings)]

    def tally(self) -> Any:
        tally = Tally(
            seat=self.id, number=CLAIM_TALLY, previous=ZERO32, start=0, count=UNITS, root=merkle.root(self.leaves),
            block_number=0, block_hash=ZERO32,
        )  # fmt: skip
        return WORKER.sign(self.domains, tally)

    def assign(self, position: int) -> bytes:
        unit = self.openings[position].unit_id
        return SIGNER.sign(self.domains, Assign(seat=self.id, position=position, unit_id=unit)).signature


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    virtual = VirtualChain(tmp_path)
    made = Chain(virtual)
    async with made.rpc:
        await made.prepare()
        await made.seat()
        yield made
    virtual.close()


@pytest.mark.slow
async def test_a_claim_is_made_moved_on_and_paid_through_the_real_contracts(chain: Chain) -> None:
    worker = chain.claims[WORKER.address]
    terms = await worker.terms()
    assert (terms.commit_s, terms.challenge_s, terms.court_fee, terms.quorum) == (20, 20, 3 * FEE_WEI, 3)
    witnesses = await worker.witnesses(chain.order, chain.lease)
    assert len(witnesses) == 3
    signed = chain.tally()
    id_ = claims.claim_id(chain.id, signed.message.root, 0, UNITS)
    assert await worker.claim_of(id_) is None
    before = await worker.tokens()

    await worker.claim(chain.order, chain.lease, signed, witnesses, bond=BOND, brings_wei=1)
    found = await worker.claim_of(id_)
    assert found is not None
    assert (found.state, found.from_, found.count, found.k) == (ClaimState.PENDING, 0, UNITS, 2)
    assert await worker.quarrels(chain.id) == (id_, UNITS)
    assert await worker.tokens() == before - BOND
    assert await worker.lease_of(id_, found.block_number) == chain.lease
    assert found.positions() == await worker.draws(id_, found.k) == [], "there is no seed yet"
    with pytest.raises(ChainError):
        await worker.capture(id_)

    chain.mine(claims.SEED_DELAY + 1)
    await worker.capture(id_)
    found = await worker.claim_of(id_)
    assert found is not None
    assert found.state is ClaimState.SAMPLING
    assert await worker.captured(found.sampled_at) == [id_]
    assert await worker.captured(found.sampled_at + 1) == []
    assert terms.commit_by(found) == found.sampled_at + 60

    drawn = [draw for draw in await worker.draws(id_, found.k) if draw.rank == 0]
    salt, probe = b"s" * 32, b"p" * 32
    for draw in drawn:
        end = chain.openings[found.positions()[draw.sample]].end
        commitment = sampling.commitment(end, salt, draw.auditor, probe)
        await chain.claims[draw.auditor].commit(id_, draw, commitment, bond=BOND, brings_wei=1)
    samples = await worker.samples(id_, found.k)
    assert all(sample.heard is Heard.COMMITTED and sample.taken and not sample.shown for sample in samples)
    assert await worker.leaf(id_, 0, found.block_number) is None
    assert await worker.shown(id_, chain.id, found.block_number) == []

    shown = {position: (chain.openings[position], chain.assign(position)) for position in found.positions()}
    await worker.show(id_, claims.openings(found, samples, chain.leaves, shown))
    seen = {each.position: each for each in await worker.shown(id_, chain.id, found.block_number)}
    assert {position: each.leaf for position, each in seen.items()} == {p: chain.leaves[p] for p in found.positions()}
    assert all(merkle.verify(found.root, UNITS, p, each.leaf, each.path) for p, each in seen.items())
    for draw in drawn:
        opening = chain.openings[found.positions()[draw.sample]]
        leaf = await worker.leaf(id_, draw.sample, found.block_number)
        assert leaf == (opening.start, opening.end)
        said = Finding(
            opened_start=leaf[0], opened_end=leaf[1], start=ZERO32, end=opening.end, salt=salt, probe=probe, steps=1
        )
        await chain.claims[draw.auditor].reveal(id_, draw.sample, said)
    assert {sample.heard for sample in await worker.samples(id_, found.k)} == {Heard.MATCH}

    await worker.conclude(chain.lease, id_)
    await trio.sleep(25)
    await worker.conclude(chain.lease, id_)
    found = await worker.claim_of(id_)
    assert found is not None
    assert found.state is ClaimState.PAID
    assert await worker.quarrels(chain.id) == (b"", UNITS)
    assert await worker.held(WORKER.address) == BOND
    await worker.collect()
    assert await worker.tokens() == before
    credits = await chain.chains[WORKER.address].credits(WORKER.address)
    assert credits == UNITS * PRICE - UNITS * PRICE * PARAMETERS.fee_bp // 10_000
    assert await chain.chains[drawn[0].auditor].credits(drawn[0].auditor) >= BOND // 2, "out of the payer's bond"


@pytest.mark.slow
async def test_what_brings_less_than_its_gas_is_not_sent(chain: Chain) -> None:
    policy = GasPolicy(coin_price_wei=10**18)
    key = chain.chains[WORKER.address].sender._key
    dear = claims_of(EscrowChain(chain.rpc, chain.network, key, policy=policy), chain.network)
    assert dear is not None
    slots = await dear.witnesses(chain.order, chain.lease)
    with pytest.raises(ChainError) as caught:
        await dear.claim(chain.order, chain.lease, chain.tally(), slots, bond=BOND, brings_wei=1)
    assert caught.value.code == "not_worth_gas"


@pytest.mark.slow
async def test_witnesses_are_sound_accounts_in_the_order_that_the_contract_wants(chain: Chain) -> None:
    worker = chain.claims[WORKER.address]
    slots = await worker.witnesses(chain.order, chain.lease)
    registry = chain.chains[WORKER.address].contracts.registry
    accounts = [(await registry.slots_from(slot, 1))[0].account for slot in slots]
    assert accounts == sorted(accounts)
    assert WORKER.address not in accounts
    other = msgspec.structs.replace(chain.lease, numeric_class=b"z" * 32)
    assert await worker.witnesses(chain.order, other) == []


@pytest.mark.slow
async def test_a_reorganisation_takes_a_captured_claim_back(chain: Chain) -> None:
    worker = chain.claims[WORKER.address]
    slots = await worker.witnesses(chain.order, chain.lease)
    await worker.claim(chain.order, chain.lease, chain.tally(), slots, bond=BOND, brings_wei=1)
    chain.mine(claims.SEED_DELAY + 1)
    mark = chain.virtual.call("evm_snapshot")
    since = chain.now
    await worker.capture(claims.claim_id(chain.id, merkle.root(chain.leaves), 0, UNITS))
    assert len(await worker.captured(since)) == 1
    assert chain.virtual.call("evm_revert", mark)
    chain.mine()
    assert await worker.captured(since) == []


@pytest.mark.slow
async def test_a_network_without_claims_has_none(chain: Chain) -> None:
    bare = msgspec.structs.replace(chain.network, contracts=msgspec.structs.replace(chain.network.contracts, claims=""))
    assert claims_of(chain.chains[WORKER.address], bare) is None
