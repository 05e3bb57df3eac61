"""The contracts through their bindings on a real chain: stake, a job with two leases, pay, audits, the end of a job."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
import trio.lowlevel

from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.errors import ChainError
from tallymesh.messages import PeerBinding
from tallymesh.network import Network
from tallymesh_ledger import balances
from tallymesh_ledger.chain import Contracts, Refusal, Rpc, SeatEnd, Seating, SeatStatus
from tallymesh_ledger.deploy import deploy
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.keys import AccountKey

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


SLOT = 1_000 * WEI_PER_TOKEN


async def test_the_deployed_contracts_know_each_other_and_the_parameters(
    network: Network, contracts: Contracts
) -> None:
    registry, escrow, token = contracts.registry, contracts.escrow, contracts.token
    assert await registry.read("escrow") == escrow.address
    assert await registry.read("token") == await escrow.read("token") == token.address
    assert await escrow.read("registry") == registry.address
    parameters = network.parameters
    assert await registry.read("slotWei") == parameters.slot_wei
    assert await registry.read("unbondingDelay") == parameters.unbonding_s
    assert await registry.read("classDelay") == parameters.class_delay_s
    assert await escrow.read("feeBp") == parameters.fee_bp
    assert await escrow.read("leaseMax") == parameters.lease_max_s
    assert await escrow.read("lockTail") == parameters.lock_tail_s
    assert await escrow.read("periodLength") == parameters.period_s
    rewards = contracts.rewards
    assert rewards is not None
    assert await rewards.read("escrow") == escrow.address
    assert await rewards.read("registry") == registry.address
    assert await rewards.read("token") == token.address
    assert await rewards.read("emission") == parameters.emission_wei


async def test_domain_separators_agree(domains: Domains, contracts: Contracts) -> None:
    assert await contracts.registry.read("domainSeparator") == domains.registry.separator
    assert await contracts.escrow.read("domainSeparator") == domains.escrow.separator


async def test_any_account_can_deploy_a_network_of_its_own(rpc: Rpc, network: Network, account) -> None:
    deployer = await account()
    made = await deploy(deployer, network.parameters)
    other = Contracts.of(rpc, msgspec.structs.replace(network, contracts=made))
    assert await other.registry.read("escrow") == other.escrow.address
    assert other.rewards is not None
    funded = await other.token.balance_of(other.rewards.address)
    assert funded == network.parameters.rewards_wei
    assert await other.token.balance_of(deployer.address) == await other.token.total_supply() - funded
    assert made.escrow != network.contracts.escrow


async def test_a_slot_is_bought_in_one_transaction_without_an_approval_before(contracts: Contracts, account) -> None:
    buyer = await account()
    before = await contracts.token.balance_of(buyer.address)
    outcome = await contracts.registry.buy_slots(buyer, buyer.address, 2)
    assert [event.values["count"] for event in outcome.of("SlotsBought")] == [2]
    assert (await contracts.registry.stake_of(buyer.address)).free == 2 * SLOT
    assert await contracts.token.balance_of(buyer.address) == before - 2 * SLOT
    assert await contracts.registry.live_slots(buyer.address) == 2


async def test_permits_of_one_account_at_once_do_not_take_each_others_number(contracts: Contracts, account) -> None:
    buyer = await account()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(contracts.registry.buy_slots, buyer, buyer.address, 1)
    assert await contracts.registry.live_slots(buyer.address) == 3


async def test_more_slots_than_tokens_are_refused_with_the_contracts_words(contracts: Contracts, account) -> None:
    buyer = await account()
    with pytest.raises(ChainError) as caught:
        await contracts.registry.buy_slots(buyer, buyer.address, 20)
    assert caught.value.reverted
    assert caught.value.code == "erc20_insufficient_balance"
    assert "insufficient balance" in caught.value.sentence
    assert str(20 * SLOT) in caught.value.sentence


async def test_a_binding_signed_by_another_key_is_refused(domains: Domains, contracts: Contracts, account) -> None:
    sender = await account()
    binding = PeerBinding(peer_id_hash=b"\x07" * 32, account=sender.address, version=1)
    forged = AccountKey.generate().sign(domains, binding).signature
    with pytest.raises(ChainError) as caught:
        await contracts.registry.bind(sender, binding, forged)
    assert caught.value.code == "bad_signature"
    assert "expected 0x" in caught.value.sentence
    await contracts.registry.bind(sender, binding, sender.sign_digest(domains.digest(binding)))
    assert await contracts.registry.peer_of(sender.address) == (b"\x07" * 32, 1)


async def test_a_class_counts_after_its_delay(contracts: Contracts, account, until) -> None:
    sender = await account()
    outcome = await contracts.registry.set_class(sender, b"\x0c" * 32)
    (event,) = outcome.of("ClassSet")
    current, following, effective = await contracts.registry.class_of(sender.address, at=outcome.mined.block_number)
    assert (current, following, effective) == (bytes(32), b"\x0c" * 32, event.values["effectiveAt"])

    async def in_force() -> bool:
        return (await contracts.registry.class_of(sender.address))[0] == b"\x0c" * 32

    await until(in_force)


async def test_stake_comes_back_after_the_delay(contracts: Contracts, account, until) -> None:
    sender = await account()
    bought = await contracts.registry.buy_slots(sender, sender.address, 1)
    before = await contracts.token.balance_of(sender.address)
    await contracts.registry.release_slots(sender, sender.address, [bought.of("SlotsBought")[0].values["first"]])
    assert (await contracts.registry.stake_of(sender.address)).unbonding == SLOT
    await until(lambda: contracts.registry.withdrawable(sender.address))
    await contracts.registry.withdraw(sender, sender.address)
    assert await contracts.token.balance_of(sender.address) == before + SLOT


async def test_a_job_from_open_to_the_last_wei(
    rpc: Rpc, network: Network, contracts: Contracts, account, deal, until
) -> None:
    job = await deal(workers=2)
    escrow, token = contracts.escrow, contracts.token
    price = job.leases[0].price
    before = await token.balance_of(job.payer.address)

    outcome = await escrow.open(job.payer, job.order, job.seatings())
    assert outcome.refused == {}
    assert [event.values["seat"] for event in outcome.of("SeatOpened")] == job.seats
    assert await token.balance_of(job.payer.address) == before - job.order.wages - job.order.audit_reserve
    state = await escrow.job_of(job.job)
    assert (state.opened, state.open_seats, state.free, state.reserve) == (True, 2, 0, job.order.audit_reserve)
    assert (await contracts.registry.stake_of(job.workers[0].address)).locked == job.leases[0].lock

    # all of the first seat, a part of the second; anyone may carry it, twice does no harm
    relay = await account()
    paid = await escrow.settle(relay, [job.settlement(0, 10), job.settlement(1, 4)])
    assert [event.values["units"] for event in paid.of("Settled")] == [10, 4]
    again = await escrow.settle(relay, [job.settlement(1, 4)])
    assert again.refused == {job.seats[1]: Refusal.NOTHING_NEW}
    seats = await escrow.seats_of(job.seats)
    assert [seat.state for seat in seats] == [SeatStatus.CLOSED, SeatStatus.OPEN]
    assert seats[1].paid_units == 4

    fee = network.parameters.fee_bp
    credit = await escrow.credit_of(job.workers[0].address)
    assert credit == 10 * price - 2 * (10 * price * fee // 20_000)  # half is burned, half the court's
    auditor = await account()
    audited = await escrow.pay_audits(relay, job.leases[1], [job.audit(1, auditor, position=2)])
    assert audited.refused == {}
    assert await escrow.credit_of(auditor.address) > 0

    assert (await escrow.close(relay, [job.closing(1, 4)])).refused == {}
    assert (await escrow.seat_of(job.seats[1])).state is SeatStatus.CLOSED
    seen = await balances.read_balance(rpc, network, job.payer.address)
    assert [(each.job, each.free_wei) for each in seen.escrows] == [(job.job, 6 * price)]

    (refunded,) = (await escrow.refund(job.payer, job.order)).of("Refunded")
    assert refunded.values["wages"] == 6 * price

    async def evidence_window_passed() -> bool:
        return (await escrow.refundable(job.order))[1] > 0

    if not refunded.values["reserve"]:  # on a busy machine the window's second was over before, and all is back
        await until(evidence_window_passed)
        await escrow.refund(job.payer, job.order)
    state = await escrow.job_of(job.job)
    assert (state.free, state.reserve, state.open_seats) == (0, 0, 0)

    parties = [job.payer.address, auditor.address, *(worker.address for worker in job.workers)]
    paid_out = 0
    for party in parties:
        owed = await escrow.credit_of(party)
        had = await token.balance_of(party)
        await escrow.withdraw(relay, party)
        assert await token.balance_of(party) == had + owed
        paid_out += owed
    fees = job.order.wages + job.order.audit_reserve - paid_out
    assert 0 < fees <= 2 * await escrow.fees_to_burn(), "as much again is the court's"
    await trio.lowlevel.checkpoint()
    while (await contracts.registry.stake_of(job.workers[0].address)).locked:
        await escrow.unlock(relay, job.leases)
        await trio.sleep(0.1)  # the lock's tail
    seen = await balances.read_balance(rpc, network, job.payer.address)
    assert (seen.credits_wei, seen.escrows) == (0, ())


async def test_finish_ends_a_seat_in_one_transaction(contracts: Contracts, account, deal) -> None:
    job = await deal(workers=1)
    await contracts.escrow.open(job.payer, job.order, job.seatings())
    auditor = await account()
    settlement, closing = job.settlement(0, 3), job.closing(0, 3)
    end = SeatEnd(
        job.leases[0], settlement.accept, settlement.signature, closing.release, closing.signature,
        (job.audit(0, auditor, position=1),),
    )  # fmt: skip
    outcome = await contracts.escrow.finish(job.payer, job.order, [end])
    assert outcome.refused == {}
    assert {event.name for event in outcome.events} >= {"Settled", "AuditPaid", "SeatClosed", "Refunded"}
    assert (await contracts.escrow.seat_of(job.seats[0])).state is SeatStatus.CLOSED


async def test_a_seat_ends_by_time_alone(rpc: Rpc, contracts: Contracts, deal, until) -> None:
    """What a busy machine makes of a lease of a few seconds, the contract says by the time of its blocks."""
    job = await deal(workers=1)
    lasts_s, lease, opened = 2, job.leases[0], False
    while not opened:  # it may have ended before it was seated
        lasts_s *= 2
        lease = msgspec.structs.replace(lease, until=(await rpc.block()).timestamp + lasts_s)
        seating = Seating(lease, job.by(job.workers[0], lease), job.by_signer(lease))
        if (await contracts.escrow.job_of(job.job)).opened:
            outcome = await contracts.escrow.seat(job.payer, job.order, [seating])
        else:
            outcome = await contracts.escrow.open(job.payer, job.order, [seating])
        opened = outcome.refused == {}

    async def expired() -> bool:
        outcome = await contracts.escrow.expire(job.payer, job.order, [lease])
        closed = [event.values["paidUnits"] for event in outcome.of("SeatClosed")]
        over = (await rpc.block(outcome.mined.block_number)).timestamp > lease.until
        assert (closed, list(outcome.refused.values())) == (([0], []) if over else ([], [Refusal.TOO_EARLY]))
        return over

    await until(expired)
    assert (await contracts.escrow.seat_of(seat_id(job.domains, lease))).state is SeatStatus.CLOSED


async def test_a_lease_that_the_worker_did_not_sign_is_refused_by_name(contracts: Contracts, deal) -> None:
    job = await deal(workers=2)
    good, bad = job.seatings()
    forged = Seating(bad.lease, AccountKey.generate().sign(job.domains, bad.lease).signature, bad.signer_signature)
    outcome = await contracts.escrow.open(job.payer, job.order, [good, forged])
    assert outcome.refused == {job.seats[1]: Refusal.BAD_SIGNATURE}
    assert (await contracts.escrow.job_of(job.job)).open_seats == 1


async def test_opening_twice_names_the_job(contracts: Contracts, deal) -> None:
    job = await deal(workers=1)
    await contracts.escrow.open(job.payer, job.order)
    with pytest.raises(ChainError, match="job exists") as caught:
        await contracts.escrow.open(job.payer, job.order)
    assert caught.value.code == "job_exists"


async def test_balance_of_a_stranger_is_zero(rpc: Rpc, network: Network) -> None:
    seen = await balances.read_balance(rpc, network, b"\x42" * 20)
    assert (seen.tokens_wei, seen.gas_wei, seen.slots, seen.credits_wei, seen.escrows) == (0, 0, 0, 0, ())


async def test_a_network_file_of_another_chain_is_noticed(rpc: Rpc, network: Network) -> None:
    strangers = msgspec.structs.replace(network.contracts, token="0x" + "77" * 20)
    other = Contracts.of(rpc, msgspec.structs.replace(network, contracts=strangers))
    with pytest.raises(ChainError, match="no Token at"):
        await other.token.balance_of(b"\x42" * 20)


def test_refusals_are_those_of_the_contract() -> None:
    source = Path(__file__).parents[3] / "contracts/src/interfaces/IJobEscrow.sol"
    body = source.read_text().split("enum Refusal {")[1].split("}")[0]
    names = [line.split("//")[0].strip().rstrip(",") for line in body.splitlines() if line.strip()]
    ours = ["".join(part.capitalize() for part in refusal.name.split("_")) for refusal in Refusal]
    assert [name for name in names if name] == ours
