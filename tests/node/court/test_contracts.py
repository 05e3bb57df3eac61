"""One suite for the real bindings over the real contracts, on the embedded chain's own machine and the test's clock,
and for the fake over their model: an accusation from its making to the money, and a claim's sample before the Court,
asked and moved on through `CourtChain` alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from fakes.claims import BOND
from fakes.court_chain import (
    AUDITORS,
    DISPUTED,
    FEE_WEI,
    LOCK,
    PARAMETERS,
    PAYER,
    UNITS,
    WORKER,
    CourtChain,
    ModelChain,
    Quarrel,
)
from fakes.seldom import seldom
from fakes.worker_scene import CLASS
from tallymesh.errors import ChainError
from tallymesh.ids import ZERO32
from tallymesh.messages import Tally
from tallymesh_ledger import claims, court, merkle, sampling
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_ledger.claims import CLAIM_TALLY, Finding
from tallymesh_ledger.court import CaseState, Ruling, Vote
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.quarrels.chain import court_of


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[CourtChain]:
    async with CourtChain.open(tmp_path) as made:
        await made.seat()
        yield made


@pytest.fixture(params=seldom(["model", "contracts"]))
async def chain(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Quarrel]:
    """The model is the fake of all other tests: it passes what the contracts pass."""
    if request.param == "contracts":
        async with CourtChain.open(tmp_path) as made:
            await made.seat()
            yield made
    else:
        model = ModelChain()
        await model.seat()
        yield model


@pytest.mark.slow
async def test_an_accusation_is_made_narrowed_voted_on_and_paid_through_the_real_contracts(chain: Quarrel) -> None:
    payer, worker = chain.court[PAYER.address], chain.court[WORKER.address]
    terms = await payer.terms()
    assert (terms.panel, terms.fee, terms.appeal_fee, terms.quorum) == (3, 60, 100, 3)
    assert (terms.move_s, terms.commit_s, terms.reveal_s, terms.appeal_s) == (30, 40, 40, 20)
    assert await payer.lock_left(chain.lease) == LOCK
    before, began = await payer.tokens(), chain.now
    assert await payer.case_of(b"q" * 32) is None
    assert await payer.accusation_of(b"q" * 32) is None

    case = await chain.accuse()
    assert await payer.tokens() == before - terms.accusation_bond(chain.order) == before - BOND - 60
    made = await payer.accusation_of(case)
    assert made is not None
    assert (made.accuser, made.seat, made.bond, made.ended) == (PAYER.address, chain.id, BOND, False)
    (seen,) = await worker.accusations(chain.id, began)
    assert (seen.id, seen.position, seen.accuser) == (case, DISPUTED, PAYER.address)
    for account in (PAYER.address, WORKER.address):
        (opened,) = await worker.cases(account, began)
        assert (opened.case, opened.accused, opened.accuser) == (case, WORKER.address, PAYER.address)
        assert (opened.dispute.steps, opened.dispute.accuser_end) == (8, b"o" * 32)
    assert await worker.cases(AUDITORS[0].address, began) == []
    assert await worker.cases(WORKER.address, chain.now + 1) == []
    origin = await worker.origin(case)
    assert origin is not None
    assert (origin.seat, origin.position, origin.steps, origin.claim) == (chain.id, 2, 8, b"")
    assert await worker.origin(b"q" * 32) is None
    parties = await worker.parties_of(case)
    assert (parties.accused, parties.accuser, parties.numeric_class) == (WORKER.address, PAYER.address, CLASS)

    same = [bytes([i]) * 32 for i in range(6)]
    while (found := await worker.case_of(case)) is not None and found.state is CaseState.POSTING:
        middle = found.middle
        await worker.post(case, same[middle])
        await payer.answer(case, same[middle] if middle < 6 else b"o%d" % middle + bytes(30))
        if middle == 4:
            same += [b"x" * 32, b"y" * 32]
    assert found is not None
    assert (found.state, found.hi - found.lo) == (CaseState.DRAWING, 1)
    assert await worker.called(began) == [case]
    assert await worker.panels(began) == []
    assert await worker.members(case, terms.size(found)) == []

    await chain.mine(court.SEED_DELAY + 1)
    await worker.advance(case)
    assert await worker.panels(began) == [case]
    found = await worker.case_of(case)
    assert found is not None
    members = await worker.members(case, terms.size(found))
    assert [member.number for member in members] == [0, 1, 2]
    assert {member.account for member in members} <= {key.address for key in AUDITORS}
    salt = b"s" * 32
    for member in members:
        commitment = court.vote(found.accuser_value, salt, member.account)
        await chain.court[member.account].commit(case, member, commitment, brings_wei=None)
    ballots = await worker.ballots(case, found.round, 3)
    assert [ballot.member for ballot in ballots] == [member.account for member in members]
    for member in members:
        await chain.court[member.account].reveal(case, member.number, found.accuser_value, salt)
    assert {ballot.vote for ballot in await worker.ballots(case, found.round, 3)} == {Vote.ACCUSER}
    await worker.advance(case)
    found = await worker.case_of(case)
    assert found is not None
    assert (found.state, found.ruling) == (CaseState.APPEALABLE, Ruling.FOR_ACCUSER)
    await trio.sleep(25)
    await worker.advance(case)
    assert (await worker.held(members[0].account)).court >= FEE_WEI

    await payer.acquit_or_convict(chain.lease, case)
    assert await payer.lock_left(chain.lease) == 0
    made = await payer.accusation_of(case)
    assert made is not None
    assert made.ended
    assert (await payer.held(PAYER.address)).accusations == BOND + 60, "out of the court's share of the slash"
    await payer.collect_accusations()
    assert await payer.tokens() == before
    judge = chain.court[members[0].account]
    had, held = await judge.tokens(), (await judge.held(members[0].account)).court
    await judge.collect_court()
    assert await judge.tokens() == had + held
    gained = await chain.chains[PAYER.address].credits(PAYER.address)
    assert gained == LOCK * 40 // 100 + LOCK * 20 // 100, "as payer, and as whoever proved it"


@pytest.mark.slow
async def test_an_appeal_is_paid_and_called(chain: Quarrel) -> None:
    case = await chain.accuse(steps=1)
    worker = chain.court[WORKER.address]
    terms, began = await worker.terms(), chain.now
    await chain.mine(court.SEED_DELAY + 1)
    await worker.advance(case)
    found = await worker.case_of(case)
    assert found is not None
    assert await chain.vote(case, found.accuser_value) == 3
    await worker.advance(case)
    had = await worker.tokens()
    await worker.appeal(case)
    assert await worker.tokens() == had - terms.appeal_fee
    found = await worker.case_of(case)
    assert found is not None
    assert (found.appealed, found.appellant, terms.size(found)) == (True, WORKER.address, 5)
    await chain.mine(court.SEED_DELAY + 1)
    await worker.advance(case)
    assert len(await worker.members(case, 5)) == 5
    assert await worker.panels(began) == [case], "each case once"


async def test_two_leaves_for_one_position_are_fraud(chain: Quarrel) -> None:
    payer = chain.court[PAYER.address]
    one, other = chain.receipt(2, chain.leaves[2]), chain.receipt(2, chain.leaves[3])
    await payer.fraud(chain.order, chain.lease, 2, one, other, brings_wei=None)
    assert await payer.lock_left(chain.lease) == 0


@pytest.mark.slow
async def test_what_brings_less_than_its_gas_is_not_sent(real: CourtChain) -> None:
    policy = GasPolicy(coin_price_wei=10**18)
    key = real.chains[PAYER.address].sender._key
    dear = court_of(EscrowChain(real.rpc, real.network, key, policy=policy), real.network)
    assert dear is not None
    slots = await dear.witnesses(real.order, real.lease)
    with pytest.raises(ChainError) as caught:
        await dear.accuse(real.order, real.lease, real.charge(), slots, brings_wei=1)
    assert caught.value.code == "not_worth_gas"


@pytest.mark.slow
async def test_a_reorganisation_takes_a_case_back(real: CourtChain) -> None:
    payer, began = real.court[PAYER.address], real.now
    mark = real.virtual.call("evm_snapshot")
    await real.accuse()
    assert len(await payer.accusations(real.id, began)) == len(await payer.cases(PAYER.address, began)) == 1
    assert real.virtual.call("evm_revert", mark)
    await real.mine()
    assert await payer.accusations(real.id, began) == []
    assert await payer.cases(PAYER.address, began) == []


@pytest.mark.slow
async def test_a_claims_sample_before_the_court_says_which_unit_it_is_about(chain: Quarrel) -> None:
    worker, began = chain.claims[WORKER.address], chain.now
    slots = await worker.witnesses(chain.order, chain.lease)
    root = merkle.root(chain.leaves)
    tally = Tally(
        seat=chain.id, number=CLAIM_TALLY, previous=ZERO32, start=0, count=UNITS, root=root, block_number=0,
        block_hash=ZERO32,
    )  # fmt: skip
    signed = WORKER.sign(chain.domains, tally)
    id_ = claims.claim_id(chain.id, root, 0, UNITS)
    await worker.claim(chain.order, chain.lease, signed, slots, bond=BOND, brings_wei=1)
    await chain.mine(claims.SEED_DELAY + 1)
    await worker.capture(id_)
    found = await worker.claim_of(id_)
    assert found is not None
    for draw in await worker.draws(id_, found.k):
        if draw.rank == 0:
            commitment = sampling.commitment(b"o" * 32, b"s" * 32, draw.auditor, b"p" * 32)
            await chain.claims[draw.auditor].commit(id_, draw, commitment, bond=BOND, brings_wei=1)
    samples = await worker.samples(id_, found.k)
    shown = {position: (chain.openings[position], chain.assign(position)) for position in found.positions()}
    await worker.show(id_, claims.openings(found, samples, chain.leaves, shown))
    position = found.positions()[1]
    opening = chain.openings[position]
    said = Finding(
        opened_start=opening.start, opened_end=opening.end, start=ZERO32, end=b"o" * 32, salt=b"s" * 32,
        probe=b"p" * 32, steps=4,
    )  # fmt: skip
    auditor = samples[1].auditor
    await chain.claims[auditor].reveal(id_, 1, said)

    case = claims.case_id(id_, 1)
    (opened,) = await chain.court[auditor].cases(auditor, began)
    assert (opened.case, opened.accused, opened.dispute.steps) == (case, WORKER.address, 4)
    origin = await chain.court[auditor].origin(case)
    assert origin == court.Origin(
        seat=chain.id, position=position, steps=4, claim=id_, sample=1, unit_id=opening.unit_id
    )


async def test_witnesses_are_neither_the_parties_nor_of_the_accusers_owner(chain: Quarrel) -> None:
    accuser, named = AUDITORS[0].address, []
    await chain.mine(PARAMETERS.confirmations)
    view = chain.chains[accuser]
    registry = await view.registry_at(*await view.final_block())
    for key in (AUDITORS[0], PAYER):
        slots = await chain.court[key.address].witnesses(chain.order, chain.lease)
        named.append([registry.slots[slot] for slot in slots])
    assert accuser not in named[0]
    assert len(named[0]) == 3
    assert named[1] == sorted(named[1])
    other = msgspec.structs.replace(chain.lease, numeric_class=b"z" * 32)
    assert await chain.court[PAYER.address].witnesses(chain.order, other) == []


@pytest.mark.slow
async def test_a_network_without_a_court_has_none(real: CourtChain) -> None:
    bare = msgspec.structs.replace(
        real.network, contracts=msgspec.structs.replace(real.network.contracts, accusations="")
    )
    assert court_of(real.chains[WORKER.address], bare) is None
