"""asyncio's callbacks beside a busy trio: how many turns they wait."""

from __future__ import annotations

import pytest
import trio
import trio_asyncio

from tallymesh_node.http import turns


async def turns_taken(callbacks: int) -> int:
    """Of trio's other tasks, until so many callbacks have run, which came at once."""
    taken, done, order = 0, trio.Event(), list[int]()

    async def others() -> None:
        nonlocal taken
        while True:
            taken += 1
            await trio.lowlevel.checkpoint()

    async with trio_asyncio.open_loop() as loop, trio.open_nursery() as nursery:
        turns.make_brisk(loop)
        nursery.start_soon(others)
        for number in range(callbacks):
            loop.call_soon(order.append, number)
        loop.call_soon(done.set)
        await done.wait()
        nursery.cancel_scope.cancel()
    assert order == list(range(callbacks))
    return taken


@pytest.mark.parametrize("brisk", [True, False])
async def test_a_crowd_of_callbacks_takes_few_turns_and_leaves_trio_its_own(
    monkeypatch: pytest.MonkeyPatch, brisk: bool
) -> None:
    if not brisk:
        monkeypatch.setattr(turns, "CALLBACKS_A_TURN", 1)
    callbacks = 10 * 64
    taken = await turns_taken(callbacks)
    assert 10 <= taken <= 20 if brisk else taken >= callbacks
