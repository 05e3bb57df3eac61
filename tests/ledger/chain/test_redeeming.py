"""A worker's own settlement and withdrawal, weighed against what their gas is worth."""

from __future__ import annotations

import pytest

from tallymesh import wire
from tallymesh.errors import ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_node.escrow import EscrowChain

DEAR = GasPolicy(coin_price_wei=10**24)  # a coin is worth a million MESH
CHEAP = GasPolicy(coin_price_wei=10**18)


@pytest.mark.slow
async def test_pay_is_redeemed_only_where_it_is_worth_more_than_its_gas(
    rpc: Rpc, network: Network, contracts: Contracts, deal, caplog: pytest.LogCaptureFixture
) -> None:
    job = await deal(workers=1)
    (worker,), (lease,) = job.workers, job.leases
    await contracts.escrow.open(job.payer, job.order, job.seatings())
    one = job.settlement(0, 4)
    items = [(lease, wire.signed(one.accept, one.signature))]

    def chain(sender, policy: GasPolicy) -> EscrowChain:
        return EscrowChain(rpc, network, sender._key, policy=policy)

    dear = chain(worker, DEAR)
    for _ in range(3):
        with pytest.raises(ChainError) as caught:
            await dear.settle(items)
        assert caught.value.code == "not_worth_gas"
    assert dear.held_back is not None  # `status` shows it, and the log says it once
    assert sum("not redeemed" in record.message for record in caplog.records) == 1
    assert (await contracts.escrow.seat_of(job.seats[0])).paid_units == 0

    await chain(worker, CHEAP).settle(items)
    assert (await contracts.escrow.seat_of(job.seats[0])).paid_units == 4

    with pytest.raises(ChainError) as caught:  # nothing more is due, and gas still costs something
        await chain(worker, CHEAP).settle(items)
    assert caught.value.code in ("not_worth_gas", "nothing_done")

    with pytest.raises(ChainError) as caught:
        await chain(worker, DEAR).withdraw()
    assert caught.value.code == "not_worth_gas"
    before = await contracts.token.balance_of(worker.address)
    owed = await contracts.escrow.credit_of(worker.address)
    await chain(worker, CHEAP).withdraw()
    assert await contracts.token.balance_of(worker.address) == before + owed > before


async def test_a_payer_settles_what_it_owes_whatever_gas_costs(
    rpc: Rpc, network: Network, contracts: Contracts, deal
) -> None:
    job = await deal(workers=1)
    await contracts.escrow.open(job.payer, job.order, job.seatings())
    one = job.settlement(0, 4)
    payer = EscrowChain(rpc, network, job.payer._key, policy=DEAR)
    await payer.settle([(job.leases[0], wire.signed(one.accept, one.signature))])
    assert (await contracts.escrow.seat_of(job.seats[0])).paid_units == 4


async def test_an_auditors_fee_is_collected_only_where_it_is_worth_more_than_its_gas(
    rpc: Rpc, network: Network, contracts: Contracts, deal, account
) -> None:
    job, auditor = await deal(workers=1), await account()
    await contracts.escrow.open(job.payer, job.order, job.seatings())
    audit = job.audit(0, auditor)
    pair = (wire.signed(audit.order, audit.order_signature), wire.signed(audit.verdict, audit.verdict_signature))
    with pytest.raises(ChainError) as caught:
        await EscrowChain(rpc, network, auditor._key, policy=DEAR).pay_audits(job.leases[0], [pair])
    assert caught.value.code == "not_worth_gas"
    assert await contracts.escrow.credit_of(auditor.address) == 0
    assert await EscrowChain(rpc, network, auditor._key, policy=CHEAP).pay_audits(job.leases[0], [pair]) == 1
    assert await contracts.escrow.credit_of(auditor.address) == audit.order.fee


async def test_a_worker_frees_the_stake_of_a_seat_that_is_over(
    rpc: Rpc, network: Network, contracts: Contracts, deal, until
) -> None:
    job = await deal(workers=1)
    (worker,), (lease,), (seat,) = job.workers, job.leases, job.seats
    await contracts.escrow.open(job.payer, job.order, job.seatings())
    await contracts.escrow.settle(worker, [job.settlement(0, lease.positions)])
    chain = EscrowChain(rpc, network, worker._key)
    state = await chain.seat_state(seat)
    assert state is not None
    assert (state.open, state.unlocked, state.cases) == (False, False, 0)
    assert (await contracts.registry.stake_of(worker.address)).locked == lease.lock

    async def freed() -> bool:
        await chain.unlock([lease])  # before the tail is over it does nothing
        found = await chain.seat_state(seat)
        return found is not None and found.unlocked

    await until(freed)
    assert (await contracts.registry.stake_of(worker.address)).locked == 0
