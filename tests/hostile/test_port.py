"""The raw libp2p port under connections that say nothing, little or nonsense: others are served, and nothing stays."""

from __future__ import annotations

import random
import struct
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from libp2p.stream_muxer.yamux import yamux

from fakes.peers import PATIENCE_S, be_patient, echo, peer, until
from hostile.inputs import NASTY
from tallymesh_node.network import Libp2pNetwork, mends
from tallymesh_node.network.wire import opening

HELLO = b"\x13/multistream/1.0.0\n"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


async def line(network: Libp2pNetwork) -> trio.SocketStream:
    host, port = network.addresses[0].split("/")[2], int(network.addresses[0].split("/")[4])
    return await trio.open_tcp_stream(host, port)


async def ended(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def test_who_waits_longest_in_its_handshake_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mends, "MAX_HALF_OPEN", 4)
    async with peer() as server, AsyncExitStack() as stack:
        server.serve("echo", echo)
        server._host.get_network().connection_config.inbound_upgrade_timeout = 10 * PATIENCE_S
        lines = [await stack.enter_async_context(await line(server)) for _ in range(12)]
        with trio.fail_after(PATIENCE_S):
            for each in lines[:8]:
                await ended(each)
            async with peer() as honest:
                assert await honest.request(server.source, "echo", b"still here", timeout_s=PATIENCE_S) == b"still here"


@pytest.mark.slow
async def test_more_silent_connections_than_there_are_slots_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 of them, and the handshakes' own deadline far away: who comes after them is served."""
    async with peer() as server, AsyncExitStack() as stack:
        server.serve("echo", echo)
        server._host.get_network().connection_config.inbound_upgrade_timeout = 10 * PATIENCE_S
        with trio.fail_after(PATIENCE_S):
            for number in range(320):
                each = await stack.enter_async_context(await line(server))
                if number % 2:
                    await each.send_all(HELLO[: number % len(HELLO)])
            async with peer() as honest:
                assert await honest.request(server.source, "echo", b"still here", timeout_s=PATIENCE_S) == b"still here"


@pytest.mark.parametrize("mended", [True, False])
async def test_a_flood_of_streams_that_are_begun_and_reset_leaves_nothing_and_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    """In frames of its own, many to a message, as no honest peer makes them: each stream is begun, some with a few
    bytes, and reset in the same breath. Without the mend what it sent stays, of as many streams as it likes."""
    if not mended:
        monkeypatch.setattr(mends._Stream, "reset", yamux.YamuxStream.reset)
    async with peer() as server, peer() as attacker, peer() as honest:
        server.serve("echo", echo)
        assert await honest.request(server.source, "echo", b"0", timeout_s=PATIENCE_S) == b"0"
        await attacker.connections.connect(server.source)
        await until(lambda: attacker.peer_id in server.peers)
        theirs, mine = _between(server, attacker), _between(attacker, server)

        def frame(kind: int, flags: int, number: int, body: bytes = b"") -> bytes:
            return struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, kind, flags, number, len(body)) + body

        begun = opening("/none/1", bytes(500))
        first = mine.next_stream_id + 1000  # besides the honest ones that gossip begins
        with trio.fail_after(PATIENCE_S):
            for at in range(first, first + 400, 40):
                burst = b""
                for number in range(at, at + 40, 2):
                    burst += frame(yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, number)
                    burst += frame(yamux.TYPE_DATA, 0, number, begun) if number % 4 == first % 4 else b""
                    burst += frame(yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_RST, number)
                await mine.secured_conn.write(burst)
                body = b"%d" % at
                assert await honest.request(server.source, "echo", body, timeout_s=PATIENCE_S) == body
        flood = set(range(first, first + 400))
        books = (theirs.streams, theirs.stream_buffers, theirs.stream_events)
        if mended:
            await until(lambda: not any(book.keys() & flood for book in books))
            assert attacker.peer_id in server.peers, "a peer may reset what it began"
        else:
            await until(lambda: len(theirs.stream_buffers.keys() & flood) >= 90)


def _between(one: Libp2pNetwork, other: Libp2pNetwork) -> Any:
    (found,) = [
        each.muxed_conn
        for each in one._host.get_network().get_connections()
        if str(each.muxed_conn.peer_id) == other.peer_id
    ]
    return found


async def test_noise_on_the_port_leaves_no_task_behind() -> None:
    """Garbage, half a handshake and nasty bytes after a good beginning, beside an honest peer that asks on."""
    dice = random.Random(7)
    async with peer() as server, peer() as honest:
        server.serve("echo", echo)
        assert await honest.request(server.source, "echo", b"0", timeout_s=PATIENCE_S) == b"0"
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.fail_after(PATIENCE_S):
            for number in range(150):
                async with await line(server) as stream:
                    head = dice.choice((b"", HELLO, HELLO + b"\x07/noise\n"))
                    try:
                        await stream.send_all(head + dice.choice((*NASTY, dice.randbytes(2000))) + b"\x00")
                    except trio.BrokenResourceError:
                        pass
                if number % 15 == 0:
                    body = b"%d" % number
                    assert await honest.request(server.source, "echo", body, timeout_s=PATIENCE_S) == body
            swarm = server._host.get_network()
            while swarm._half_open or trio.lowlevel.current_statistics().tasks_living > before:  # noqa: ASYNC110
                await trio.sleep(0.05)  # their handshakes are given up after 10 s at the latest
