"""The pool of cores: bounded, in order, audits first, and nothing lost to a cancellation."""

from __future__ import annotations

import random

import trio
import trio.testing

from tallymesh_node.cores import AUDIT, UNIT, Cores


async def test_no_more_run_than_there_are_cores(autojump_clock: trio.testing.MockClock) -> None:
    cores, running, most = Cores(3), 0, 0
    rng = random.Random(7)

    async def work() -> None:
        nonlocal running, most
        with trio.move_on_after(rng.uniform(0, 20)):
            async with cores.one(rng.choice((AUDIT, UNIT))):
                running += 1
                most = max(most, running)
                try:
                    await trio.sleep(rng.uniform(0, 2))
                finally:
                    running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(work)
    assert most == 3
    assert cores.busy == 0
    assert repr(cores) == "<Cores 0/3 waiting=0>"


async def test_turns_decide_within_a_kind_and_audits_go_first(autojump_clock: trio.testing.MockClock) -> None:
    cores, order = Cores(1), []

    async def work(name: str, kind: int, turn: int | None, after: float) -> None:
        await trio.sleep(after)
        async with cores.one(kind, turn):
            order.append(name)
            await trio.sleep(10)

    early, late = cores.turn(), cores.turn()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, "running", UNIT, None, 0)
        nursery.start_soon(work, "late", UNIT, late, 1)
        nursery.start_soon(work, "early", UNIT, early, 2)
        nursery.start_soon(work, "audit", AUDIT, None, 3)
    assert order == ["running", "audit", "early", "late"]


async def test_more_or_fewer_cores_count_at_once(autojump_clock: trio.testing.MockClock) -> None:
    cores = Cores(1)

    async def work() -> None:
        async with cores.one():
            await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
        await trio.sleep(1)
        assert cores.busy == 1
        cores.count = 3
        assert cores.busy == 3
        cores.count = 0
        assert cores.count == 1  # a node that runs has one
        await trio.sleep(11)  # the three have ended, the fourth is at work
        assert cores.busy == 1
