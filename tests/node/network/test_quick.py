"""Mend 8: what libp2p's bookkeeping takes of a small request."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from libp2p.network.swarm import Swarm

from fakes.peers import echo, peer, peers
from tallymesh_node.network import mends, quick
from tallymesh_node.network.quick import QuickLock

REQUESTS = 20


class Steps(trio.abc.Instrument):
    """Counts each time that any task is run."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def steps_of_a_request() -> float:
    async with peers(2) as (server, client):
        server.serve("echo", echo)
        steps = Steps()
        assert await client.request(server.source, "echo", b"first", timeout_s=120) == b"first"
        trio.lowlevel.add_instrument(steps)
        for number in range(REQUESTS):
            body = bytes([number])
            assert await client.request(server.source, "echo", body, timeout_s=120) == body
        trio.lowlevel.remove_instrument(steps)
        return steps.count / REQUESTS


async def test_request_costs_few_turns() -> None:
    """34 on both sides together; what else hosts do meanwhile, on a slow machine, is the rest."""
    assert await steps_of_a_request() < 70


async def test_request_of_the_original_costs_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mends.MendedSwarm, "_notify", Swarm._notify)
    monkeypatch.setattr(quick, "QuickLock", trio.Lock)
    assert await steps_of_a_request() > 90


async def test_nobody_listens_to_streams_who_would_do_something_then() -> None:
    async with peer() as network:
        listeners = {type(each).__name__ for each in network._host.get_network().notifees}
        assert listeners == {"Connections", "PubsubNotifee", "TagStoreNotifee", "_IdentifyNotifee"}


async def test_free_lock_is_taken_at_once_but_not_for_ever() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    lock = QuickLock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(quick.TAKEN_AT_ONCE):
            async with lock:
                pass
        assert turns == 0
        for _ in range(10 * quick.TAKEN_AT_ONCE):
            async with lock:
                pass
        assert turns >= 5
        nursery.cancel_scope.cancel()


async def test_lock_has_one_holder_and_who_came_first_is_served_first() -> None:
    lock, order = QuickLock(), []

    async def use(number: int) -> None:
        async with lock:
            order.append(number)
            await trio.lowlevel.checkpoint()
            order.append(number)

    async with trio.open_nursery() as nursery, lock:
        for number in range(4):
            nursery.start_soon(use, number)
            await trio.testing.wait_all_tasks_blocked()
        assert order == []
    assert order == [0, 0, 1, 1, 2, 2, 3, 3]


async def test_cancelled_wait_leaves_the_lock_to_the_next() -> None:
    lock = QuickLock()
    async with lock:
        with trio.move_on_after(0) as scope:
            async with lock:
                raise AssertionError
        assert scope.cancelled_caught
    async with lock:
        pass


def test_libp2p_that_keeps_its_locks_elsewhere_is_noticed() -> None:
    with pytest.raises(AttributeError):
        quick._replace(object(), "streams_lock")
