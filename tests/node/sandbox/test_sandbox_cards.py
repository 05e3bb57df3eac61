"""Cards are held by whoever runs, given back however that ends, and a job's sandbox shows the one that it holds."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from tallymesh_node.gpus import Card
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox.cards import Cards

FIRST, SECOND, THIRD = (Card(f"GPU-{n}", n) for n in range(3))


def proven(*cards: Card) -> Cards:
    pool = Cards(cards)
    for card in cards:
        pool.prove(card)
    return pool


async def test_no_two_hold_the_same_card_whoever_is_cancelled_or_fails(autojump_clock: trio.testing.MockClock) -> None:
    pool, holders, done = proven(FIRST, SECOND), dict[Card, int](), 0
    rng = random.Random(5)

    async def work() -> None:
        nonlocal done
        with trio.move_on_after(rng.uniform(0, 30)):
            try:
                async with pool.one() as card:
                    holders[card] = holders.get(card, 0) + 1
                    assert holders[card] == 1
                    try:
                        await trio.sleep(rng.uniform(0, 2))
                        if rng.random() < 0.3:
                            raise Failure("program", "It failed.")
                    finally:
                        holders[card] -= 1
            except Failure:
                pass
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(work)
    assert not pool.held
    assert set(holders) == {FIRST, SECOND}
    assert done > 20
    assert repr(pool) == "<Cards 0 held, 2 of 2 proven>"


async def test_first_come_first_served(autojump_clock: trio.testing.MockClock) -> None:
    pool, order = proven(FIRST), list[int]()

    async def work(number: int) -> None:
        await trio.sleep(number / 10)
        async with pool.one():
            order.append(number)
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        for number in (3, 1, 2):
            nursery.start_soon(work, number)
    assert order == [1, 2, 3]


async def test_a_card_that_is_not_proven_is_given_to_the_nodes_own_trials_alone() -> None:
    pool = Cards((FIRST, SECOND))
    async with pool.one(SECOND) as card:
        assert card == SECOND
    with pytest.raises(Failure, match="lends none"):
        async with pool.one():
            raise AssertionError("nobody may have it")
    assert not pool.held


async def test_a_trial_waits_until_the_unit_that_has_the_card_is_done(autojump_clock: trio.testing.MockClock) -> None:
    pool = proven(FIRST, SECOND)
    async with trio.open_nursery() as nursery:

        async def unit() -> None:
            async with pool.one(FIRST):
                await trio.sleep(7)

        nursery.start_soon(unit)
        await trio.testing.wait_all_tasks_blocked()
        async with pool.one() as other:
            assert other == SECOND
        began = trio.current_time()
        async with pool.one(FIRST):
            assert trio.current_time() - began == pytest.approx(7)


async def test_who_waits_for_the_last_card_is_told_when_it_is_withdrawn() -> None:
    pool, refused = proven(FIRST), list[str]()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            try:
                async with pool.one():
                    raise AssertionError("it was withdrawn")
            except Failure as failure:
                refused.append(failure.code)

        async with pool.one():
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            pool.withdraw(FIRST)
            await trio.testing.wait_all_tasks_blocked()
            assert refused == ["sandbox"]
        assert not pool.held
    pool.prove(FIRST)
    async with pool.one() as card:
        assert card == FIRST
