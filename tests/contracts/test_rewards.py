"""Rewards: a part of what was burned on a worker's pay comes back, always less than that."""

from __future__ import annotations

import random

import pytest

from fakes.contract_world import Reverted, World
from fakes.quarrel import POSITIONS, PRICE, Quarrel, net
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import abi

PERIOD = 7 * 86400
EMISSION = 10**15


def quarrel(workers: int = 1, *, emission: int = EMISSION, fund: int = 10**18) -> Quarrel:
    scene = Quarrel(workers=workers, bond=0, parameters=Parameters(emission_wei=emission))
    if fund:
        rewards = scene.world.contracts["Rewards"]
        scene.world.call("Token", "transfer", rewards, fund, by=scene.world.bank)
    return scene


def period(world: World) -> int:
    return world.now // PERIOD


def burned(scene: Quarrel, worker: bytes, of: int) -> int:
    return int(scene.world.read("JobEscrow", "burnedOf", of, worker))


def collect(scene: Quarrel, worker: bytes, of: int) -> int:
    return int(scene.world.call("Rewards", "collect", worker, of, by=scene.stranger).value)


def half(amount: int) -> int:
    return amount * 200 // 20_000


def test_burned_fees_are_noted_per_worker_and_period() -> None:
    scene = quarrel(2)
    first = period(scene.world)
    a, b = (worker.address for worker in scene.job.workers)
    scene.settle(10, 0)
    scene.settle(30, 1)
    scene.world.wait(PERIOD)
    scene.settle(15, 0)
    scene.world.wait(3 * PERIOD)
    scene.settle(20, 0)
    fees = [half(10 * PRICE), half(15 * PRICE) - half(10 * PRICE), half(20 * PRICE) - half(15 * PRICE)]
    assert [burned(scene, a, first + n) for n in (0, 1, 2, 4, 5)] == [fees[0], fees[1], 0, fees[2], 0]
    assert [burned(scene, b, first + n) for n in (0, 1)] == [half(30 * PRICE), 0]
    total = [int(scene.world.read("JobEscrow", "burnedIn", first + n)) for n in (0, 1, 2, 4)]
    assert total == [fees[0] + half(30 * PRICE), fees[1], 0, fees[2]]
    assert scene.world.read("JobEscrow", "feesToBurn") == sum(total)


def test_a_withdrawal_forgets_no_burned_fee() -> None:
    scene = quarrel()
    now, worker = period(scene.world), scene.worker.address
    scene.settle(10)
    scene.call("withdraw", worker, by=scene.stranger)
    scene.call("burnFees", by=scene.stranger)
    assert burned(scene, worker, now) == half(10 * PRICE)
    scene.settle(20)
    assert burned(scene, worker, now) == half(20 * PRICE)
    assert scene.credit(worker) == net(20 * PRICE) - net(10 * PRICE)


def test_nothing_is_paid_before_the_period_is_over_or_twice_or_to_who_earned_nothing() -> None:
    scene = quarrel()
    now, worker = period(scene.world), scene.worker.address
    scene.settle(10)
    for of in (now, now + 1):
        with pytest.raises(Reverted, match="period_not_over"):
            collect(scene, worker, of)
    scene.world.wait(PERIOD)
    for account, of in ((scene.stranger.address, now), (worker, now - 1)):
        with pytest.raises(Reverted, match="nothing_to_collect"):
            collect(scene, account, of)
    due = scene.world.read("Rewards", "rewardOf", worker, now)
    assert collect(scene, worker, now) == due > 0
    assert scene.world.read("Rewards", "collected", worker, now) is True
    assert scene.world.read("Rewards", "rewardOf", worker, now) == 0
    with pytest.raises(Reverted, match="nothing_to_collect"):
        collect(scene, worker, now)


def test_a_reward_goes_to_the_accounts_owner() -> None:
    scene = quarrel()
    now, owner = period(scene.world), scene.world.account()
    scene.settle(10)
    scene.registry("proposeOwner", scene.worker.address, owner.address, by=scene.worker)
    scene.registry("acceptOwner", scene.worker.address, by=owner)
    scene.world.wait(PERIOD)
    paid = collect(scene, scene.worker.address, now)
    assert scene.tokens(owner.address) == paid


def test_workers_share_the_emission_by_what_was_burned_for_them() -> None:
    scene = quarrel(2, emission=1001)
    now = period(scene.world)
    a, b = (worker.address for worker in scene.job.workers)
    scene.settle(10, 0)
    scene.settle(20, 1)
    scene.world.wait(PERIOD)
    assert [collect(scene, a, now), collect(scene, b, now)] == [1001 // 3, 2002 // 3]


def test_with_much_emission_nine_tenths_of_what_was_burned_is_the_most() -> None:
    scene = quarrel(emission=10**30)
    now, worker = period(scene.world), scene.worker.address
    scene.settle(37)
    scene.world.wait(PERIOD)
    assert collect(scene, worker, now) == burned(scene, worker, now) * 9 // 10


def test_it_never_pays_more_than_it_holds() -> None:
    scene = quarrel(fund=5)
    now, worker = period(scene.world), scene.worker.address
    scene.settle(10)
    scene.world.wait(PERIOD)
    assert collect(scene, worker, now) == 5
    empty = quarrel(fund=0)
    empty.settle(10)
    empty.world.wait(PERIOD)
    with pytest.raises(Reverted, match="nothing_to_collect"):
        collect(empty, empty.worker.address, now)


@pytest.mark.parametrize("seed", range(12))
def test_trading_with_oneself_always_loses(seed: int) -> None:
    """One owner of payer, workers and carriers, any emission, any pay over any periods, alone or beside others: what
    comes back is less than what the fees cost, even if the court's half were its own."""
    rng = random.Random(seed)
    scene = quarrel(2, emission=rng.choice([0, 1, 10**9, 10**15, 10**30]), fund=10**24)
    start = period(scene.world)
    mine = scene.worker.address
    units = [0, 0]
    for _ in range(rng.randrange(1, 8)):
        who = rng.randrange(2) if rng.random() < 0.5 else 0
        units[who] = min(POSITIONS, units[who] + rng.randrange(1, 30))
        scene.settle(units[who], who)
        scene.world.wait(rng.choice([0, PERIOD // 3, PERIOD]))
    scene.world.wait(PERIOD)
    paid_fee = units[0] * PRICE - net(units[0] * PRICE)
    back = 0
    for of in range(start, period(scene.world)):
        if scene.world.read("Rewards", "rewardOf", mine, of):
            got = collect(scene, mine, of)
            assert got * 10 <= burned(scene, mine, of) * 9
            back += got
    courts_half = half(units[0] * PRICE)
    assert back + courts_half < paid_fee or paid_fee == 0


def test_emission_is_never_exceeded_in_a_period() -> None:
    scene = quarrel(3, emission=997)
    now = period(scene.world)
    for i, units in enumerate((7, 11, 13)):
        scene.settle(units, i)
    scene.world.wait(PERIOD)
    assert sum(collect(scene, worker.address, now) for worker in scene.job.workers) <= 997


def test_deployment_without_an_address_is_refused() -> None:
    world = World()
    full = [world.contracts[name] for name in ("Token", "Registry", "JobEscrow")]
    for i in range(3):
        arguments = [bytes(20) if i == j else each for j, each in enumerate(full)]
        with pytest.raises(Reverted, match="zero_address"):
            world.engine.transact(world.bank, b"", abi.load("Rewards").creation(*arguments, 1))
