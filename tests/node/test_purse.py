"""What the escrow and Rewards owe an account comes home by itself, against the real contracts."""

from __future__ import annotations

import msgspec
import pytest

from fakes.contract_chain import Chain, Direct
from fakes.contract_world import START, Job
from tallymesh.errors import ChainError
from tallymesh.messages import Lease, Order
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import purse
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.purse import Purse

pytestmark = pytest.mark.slow  # the contracts are made for each test

WEEK = 7 * 24 * 3600


class Owner:
    """One account's node as far as its purse is concerned; made anew, it knows what the chain says and nothing else."""

    def __init__(self, chain: Chain, key: AccountKey, *, credits: bool = False, **policy: int) -> None:
        self.chain, self.key, self.rpc = chain, key, Direct(chain.methods)
        self.escrow = EscrowChain(self.rpc, chain.network, key, policy=GasPolicy(**policy))
        network = chain.network
        self.purse = Purse(
            self.escrow,
            period_s=network.parameters.period_s,
            deployed_block=network.contracts.deployed_block,
            credits=credits,
        )

    async def look(self) -> None:
        await self.escrow.look()
        await self.purse.look()

    def tokens(self) -> int:
        return int(self.chain.world.read("Token", "balanceOf", self.key.address))

    def sent(self) -> int:
        return sum(method == "eth_sendRawTransaction" for method, _ in self.rpc.asked)


@pytest.fixture
def chain() -> Chain:
    made = Chain()
    world = made.world
    rewards = world.contracts["Rewards"]
    world.call("Token", "transfer", rewards, world.parameters.rewards_wei, by=world.bank)
    return made


def paid(chain: Chain, *, price: int = 10**19) -> Job:
    """A job in the running period: one worker, ten units, paid; nothing withdrawn."""
    job = Job(chain.world, workers=1, positions=10, price=price)
    call = chain.world.call
    call("JobEscrow", "open", job.order, [job.seating(0)], by=job.payer)
    call("JobEscrow", "finish", job.order, [job.end(0, 9, [], released=True)], by=job.payer)
    return job


def wait(chain: Chain, seconds: int) -> None:
    chain.world.wait(seconds)
    chain.mine()


REWARD = 9 * 9 * 10**19 // 100 // 10  # nine tenths of the half of 2 % that is burned, of nine units


async def test_the_reward_of_a_period_is_collected_once_it_is_over(chain: Chain) -> None:
    worker = Owner(chain, paid(chain).workers[0])
    await worker.look()
    assert (worker.tokens(), worker.sent()) == (0, 0), "the period runs"
    wait(chain, WEEK)
    await worker.look()
    assert (worker.tokens(), worker.sent()) == (REWARD, 1)
    await worker.look()
    wait(chain, WEEK)
    await worker.look()
    assert (worker.tokens(), worker.sent(), worker.purse.counters["rewards_collected"]) == (REWARD, 1, 1)


def questions(owner: Owner) -> int:
    """How often Rewards was asked what a period gives."""
    selector = "0x" + abi.load("Rewards").functions["rewardOf"].selector.hex()
    return sum(method == "eth_call" and params[0]["data"].startswith(selector) for method, params in owner.rpc.asked)


async def test_nothing_is_asked_about_periods_before_there_were_contracts(chain: Chain) -> None:
    owner = Owner(chain, AccountKey.generate())
    await owner.look()
    assert questions(owner) == 0, "the first period runs"
    wait(chain, 2 * WEEK)
    await owner.look()
    assert questions(owner) == 2
    await owner.look()
    assert questions(owner) == 2, "each once"
    restarted = Owner(chain, owner.key)
    await restarted.look()
    assert questions(restarted) == 2


async def test_a_chain_without_the_old_header_is_asked_about_all_periods(chain: Chain) -> None:
    worker = Owner(chain, paid(chain).workers[0])
    worker.purse._deployed_block = 10**6
    wait(chain, WEEK)
    await worker.look()
    assert (worker.tokens(), questions(worker)) == (REWARD, purse.PERIODS_MAX + 1)


async def test_a_node_that_was_off_for_a_year_finds_each_reward_it_missed(chain: Chain) -> None:
    job = paid(chain)
    wait(chain, 2 * WEEK)
    chain.world.call("JobEscrow", "unlock", [job.leases[0]], by=job.payer)
    job.again()
    shift = 2 * WEEK
    job.order, job.leases = _later(job, shift)
    chain.world.call("JobEscrow", "open", job.order, [job.seating(0)], by=job.payer)
    chain.world.call("JobEscrow", "settle", [job.settlement(0, 9)], by=job.payer)
    wait(chain, 50 * WEEK)
    worker = Owner(chain, job.workers[0])
    await worker.look()
    assert (worker.tokens(), worker.sent()) == (2 * REWARD, 2)
    again = Owner(chain, job.workers[0])  # restarted: the chain says what was collected
    await again.look()
    assert again.sent() == 0


def _later(job: Job, seconds: int) -> tuple[Order, list[Lease]]:
    order = msgspec.structs.replace(job.order, deadline=job.order.deadline + seconds)
    job.order, job.id = order, job_id(job.world.domains, order)
    leases = [
        msgspec.structs.replace(each, job=job.id, until=each.until + seconds, seat_by=each.seat_by + seconds)
        for each in job.leases
    ]
    job.seats = [seat_id(job.world.domains, lease) for lease in leases]
    return order, leases


async def test_a_reward_that_is_worth_less_than_its_transaction_stays(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Owner(chain, paid(chain).workers[0])
    wait(chain, WEEK)
    monkeypatch.setattr(purse, "REWARD_WEI", REWARD + 1)
    await worker.look()
    assert (worker.tokens(), worker.sent()) == (0, 0)


async def test_gas_that_is_worth_more_than_the_reward_is_not_spent_and_tried_again_later(chain: Chain) -> None:
    job = paid(chain)
    wait(chain, WEEK)
    worker = Owner(chain, job.workers[0], coin_price_wei=10**30)
    for _ in range(2):
        with pytest.raises(ChainError) as caught:
            await worker.look()
        assert caught.value.code == "not_worth_gas"
    assert worker.sent() == 0
    assert worker.purse._waiting, "the next look tries again"


async def test_somebody_else_collected_it(chain: Chain) -> None:
    job = paid(chain)
    worker = Owner(chain, job.workers[0])
    wait(chain, WEEK)
    await worker.escrow.look()
    assert worker.purse._rewards is not None
    await worker.purse._find(worker.purse._rewards)
    chain.world.call("Rewards", "collect", worker.key.address, START // WEEK, by=job.payer)
    await worker.look()
    assert (worker.tokens(), worker.sent()) == (REWARD, 0)


async def test_a_payers_refund_and_an_auditors_fees_come_home(chain: Chain) -> None:
    job = paid(chain)
    payer = Owner(chain, job.payer, credits=True)
    had = payer.tokens()
    await payer.look()
    assert payer.tokens() == had + job.price  # the unit that nobody ran
    assert payer.sent() == 1
    await payer.look()
    assert payer.sent() == 1


async def test_a_small_credit_waits_until_it_is_worth_its_gas(chain: Chain) -> None:
    job = paid(chain, price=purse.CREDIT_WEI // 2)
    payer = Owner(chain, job.payer, credits=True)
    await payer.look()
    assert payer.sent() == 0
