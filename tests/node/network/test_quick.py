"""Mend 8: what libp2p's bookkeeping takes of a small request."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.swarm import Swarm

from fakes.peers import echo, peer, peers
from tallymesh_node.network import direct, mends, quick
from tallymesh_node.network.mends import MendedRaw
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


class Arriving:
    """A connection on which each of these pieces arrives by itself, and then its end."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self.asked: list[int | None] = []

    async def read(self, n: int | None) -> bytes:
        self.asked.append(n)
        return self._pieces.pop(0) if self._pieces else b""


async def test_what_has_arrived_is_read_at_once_and_given_as_it_was_asked_for() -> None:
    arriving = Arriving(b"\0\3one\0\3", b"two", b"the rest", b"more")
    raw = MendedRaw(arriving, initiator=True)
    assert [await raw.read(n) for n in (2, 3, 0, 2, 5)] == [b"\0\3", b"one", b"", b"\0\3", b"two"]
    assert len(arriving.asked) == 2
    assert await raw.read(4) == b"the "
    assert await raw.read(None) == b"rest"
    assert await raw.read(None) == b"more"
    with pytest.raises(ConnectionClosedError):
        await raw.read(1)


async def test_large_reads_are_not_made_smaller() -> None:
    arriving = Arriving(b"x")
    await MendedRaw(arriving, initiator=True).read(10 * mends.READ_BYTES)
    assert arriving.asked == [10 * mends.READ_BYTES]


async def test_connection_that_said_more_than_was_asked_for_becomes_no_direct_socket() -> None:
    """What was read ahead would be missing from the records, and the socket would wait for it for good."""
    here, there = socket.socketpair()
    with there:
        raw = MendedRaw(TrioTCPStream(trio.SocketStream(trio.socket.from_stdlib_socket(here))), initiator=True)
        there.sendall(b"early!")
        assert await raw.read(1) == b"e"
        with pytest.raises(ValueError, match="5 bytes came too early"):
            direct._own(raw)
        assert await raw.read(5) == b"arly!"
        direct._own(raw).close()
        await raw.close()
