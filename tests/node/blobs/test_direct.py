"""Direct sockets: only the peer that was dialled finishes one, and a record that is not the peer's ends it."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from fakes.peers import peer, peers, until
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh_node.network import direct
from tallymesh_node.network.direct import DirectSocket
from tallymesh_node.network.keys import generate, parse_peer_id

PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
KEYS = (bytes(range(32)), bytes(range(32, 64)))


@asynccontextmanager
async def between(other: tuple[bytes, bytes] = (KEYS[1], KEYS[0])) -> AsyncIterator[tuple[DirectSocket, socket.socket]]:
    """A direct socket, and the bare end of the other side; `sealed` writes as that side would."""
    server = socket.create_server(("127.0.0.1", 0))
    far = socket.create_connection(server.getsockname())
    near, _ = server.accept()
    made = DirectSocket(near, PEER, KEYS, trio.CapacityLimiter(1), lambda: None)
    try:
        yield made, far
    finally:
        await made.abort()
        far.close()
        server.close()


def sealed(*bodies: bytes, keys: tuple[bytes, bytes] = (KEYS[1], KEYS[0])) -> list[bytes]:
    """The records of these bodies, as the other side sends them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    sender = DirectSocket.__new__(DirectSocket)
    sender._out = direct.AESGCM(keys[0])
    sender._sent = 0
    sender._sealed = bytearray()
    sender._deadline = float("inf")
    sender._socket = ours
    records = []
    for body in bodies:
        sender._send(memoryview(body))
        records.append(theirs.recv(1 << 16))
    ours.close()
    theirs.close()
    return records


async def test_records_arrive_in_order() -> None:
    async with between() as (near, far):
        far.sendall(b"".join(sealed(b"one", b"", b"three")))
        assert [await near.read_frame(10) for _ in range(3)] == [b"one", b"", b"three"]


@pytest.mark.parametrize("kind", ["changed", "repeated", "left out", "swapped", "another key", "sent back"])
async def test_record_that_the_peer_did_not_send_so_ends_the_socket(kind: str) -> None:
    one, two = sealed(b"one", b"two")
    match kind:
        case "changed":
            data = one[:-1] + bytes([one[-1] ^ 1])
        case "repeated":
            data = one + one
        case "left out":
            data = two
        case "swapped":
            data = two + one
        case "another key":
            (data,) = sealed(b"one", keys=(bytes(32), bytes(32)))
        case _:
            (data,) = sealed(b"one", keys=KEYS)  # our own record, reflected
    async with between() as (near, far):
        far.sendall(data)
        if kind == "repeated":
            assert await near.read_frame(10) == b"one"
        with pytest.raises(RemoteError) as error:
            await near.read_frame(10)
        assert error.value.code == "bad_message"


@pytest.mark.parametrize("size", [0, 15, 27, 1 << 31])
async def test_record_of_a_size_that_was_not_asked_for_is_refused_before_memory_is_taken(size: int) -> None:
    async with between() as (near, far):
        far.sendall(size.to_bytes(4, "big"))
        with pytest.raises(RemoteError) as error:
            await near.read_frame(10)
        assert error.value.code == "too_large"
        assert len(near._sealed_in) < 100


async def test_socket_that_ends_early_is_unreachable() -> None:
    async with between() as (near, far):
        far.sendall(sealed(b"one")[0][:-1])
        far.close()
        with pytest.raises(RemoteError) as error:
            await near.read_frame(10)
        assert error.value.code == "unreachable"


async def test_cancelled_read_ends_its_thread_and_the_socket() -> None:
    freed = []
    async with between() as (near, _):
        near._closed = lambda: freed.append(1)
        with trio.move_on_after(0.05):
            await near.read_frame(10)
        assert near._socket.fileno() == -1
        with pytest.raises(RemoteError):
            await near.read_frame(10)
    assert freed == [1]


async def test_peer_that_is_silent_or_sends_drop_by_drop_is_too_slow() -> None:
    async with between() as (near, far):
        stop = threading.Event()

        def drip() -> None:
            for byte in sealed(bytes(1000))[0]:
                if stop.wait(0.02):
                    return
                far.sendall(bytes([byte]))

        dripping = threading.Thread(target=drip)
        dripping.start()
        asks = iter([(b"", 1000)])
        try:
            with pytest.raises(trio.TooSlowError):
                await near.take(lambda: next(asks, None), lambda data, new: None, 0.2, 1)
        finally:
            stop.set()
            dripping.join()


async def test_time_that_writing_took_is_not_the_peers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = iter([(bytes([number]), 1) for number in range(2)])
    now = [0.0]
    monkeypatch.setattr(direct, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def use(data: memoryview, new: int) -> None:
        now[0] += 1000.0  # a disk that is busy

    async with between() as (near, far):
        far.sendall(b"".join(sealed(b"a", b"b")))
        await near.take(lambda: next(asks, None), use, 60.0, 1)
        assert now[0] == 2000.0


async def test_as_many_questions_are_on_their_way_as_were_to_be_ahead() -> None:
    asks = iter([(bytes([number]), 1) for number in range(5)])
    got: list[bytes] = []
    async with between() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(
            near.take, lambda: next(asks, None), lambda data, new: got.append(bytes(data[new:])), 60.0, 3
        )
        size = len(sealed(b"x")[0])
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 60, 0))  # s: else it waits for good
        for _ in range(3):
            assert len(await trio.to_thread.run_sync(far.recv, size, socket.MSG_WAITALL)) == size
        far.settimeout(0.1)
        with pytest.raises(TimeoutError):
            far.recv(1)
        far.settimeout(60)
        far.sendall(b"".join(sealed(b"a", b"b", b"c", b"d", b"e")))
    assert got == [b"a", b"b", b"c", b"d", b"e"]


async def test_record_of_another_size_than_was_asked_for_is_refused() -> None:
    asks = iter([(b"", 5)])
    async with between() as (near, far):
        far.sendall(sealed(b"four")[0])
        with pytest.raises(RemoteError) as error:
            await near.take(lambda: next(asks, None), lambda data, new: None, 60.0, 1)
        assert error.value.code == "bad_message"


async def test_part_of_a_file_comes_in_records_of_which_each_is_used_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One side works on the first while the other makes the next, with no more than one part on its way."""
    monkeypatch.setattr(direct, "PIECE_BYTES", 4)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789abcdef")
    came: list[tuple[bytes, int]] = []
    asks = iter([(b"a", 10), (b"b", 4), (b"c", 0)])
    spans = {b"a": (3, 10), b"b": (0, 4), b"c": (0, 0)}
    server = socket.create_server(("127.0.0.1", 0))
    ends = [socket.create_connection(server.getsockname()), server.accept()[0]]
    giver, taker = (
        DirectSocket(end, PEER, keys, trio.CapacityLimiter(1), lambda: None)
        for end, keys in zip(ends, (KEYS, KEYS[::-1]), strict=True)
    )
    descriptor = os.open(path, os.O_RDONLY)

    async def give() -> None:
        with pytest.raises(RemoteError):
            await giver.give(descriptor, None, spans.__getitem__, 60.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give)
        await taker.take(lambda: next(asks, None), lambda data, new: came.append((bytes(data), new)), 60.0, 1)
        await taker.abort()
    os.close(descriptor)
    await giver.abort()
    server.close()
    assert came == [(b"3456", 0), (b"3456789a", 4), (b"3456789abc", 8), (b"0123", 0)]
    assert (giver._sent, taker._received) == (4, 4)


@pytest.mark.parametrize("second", [b"45", b"45678"], ids=["shorter", "longer"])
async def test_later_record_of_another_size_than_was_asked_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, second: bytes
) -> None:
    monkeypatch.setattr(direct, "PIECE_BYTES", 4)
    asks = iter([(b"", 7)])
    came: list[bytes] = []
    async with between() as (near, far):
        far.sendall(b"".join(sealed(b"0123", second)))
        with pytest.raises(RemoteError) as error:
            await near.take(lambda: next(asks, None), lambda data, new: came.append(bytes(data)), 60.0, 1)
        assert error.value.code == ("bad_message" if len(second) < 3 else "too_large")
    assert came == [b"0123"]


class Noise:
    """One end of a Noise connection, as far as agreeing on keys needs it."""

    def __init__(self, out: trio.MemorySendChannel[bytes], back: trio.MemoryReceiveChannel[bytes]) -> None:
        self.write, self._back = out.send, back

    async def read(self, size: int) -> bytes:
        return (await self._back.receive())[:size]


async def agreed() -> list[tuple[bytes, bytes]]:
    """The keys of both sides, the dialler's first."""
    there, here = trio.open_memory_channel[bytes](1), trio.open_memory_channel[bytes](1)
    found: dict[bool, tuple[bytes, bytes]] = {}

    async def side(end: Noise, *, dialled: bool) -> None:
        found[dialled] = await direct._agree(end, dialled=dialled)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: side(Noise(there[0], here[1]), dialled=True))
        nursery.start_soon(lambda: side(Noise(here[0], there[1]), dialled=False))
    return [found[True], found[False]]


async def test_each_direction_and_each_socket_has_a_key_of_its_own() -> None:
    (dialler, other), (_, again) = await agreed(), await agreed()
    assert dialler == other[::-1]
    assert len({*dialler, *again}) == 4
    assert {len(key) for key in dialler} == {32}


async def test_file_that_became_shorter_is_no_chunk(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"short")
    async with between() as (near, _):
        descriptor = os.open(path, os.O_RDONLY)
        with pytest.raises(RemoteError):
            await near.give(descriptor, (0, 6), lambda frame: (0, 0), 10.0)
        os.close(descriptor)


# -- made over libp2p


@pytest.mark.slow
async def test_both_sides_know_who_the_other_is() -> None:
    async with peers(2) as (server, client):
        accepted: list[DirectSocket] = []
        server.serve_direct(accepted.append)
        mine = await client.open_direct(server.source)
        await until(lambda: accepted, 60)
        assert (mine.peer_id, accepted[0].peer_id) == (server.peer_id, client.peer_id)
        await mine.send_frame(b"to")
        assert await accepted[0].read_frame(10) == b"to"
        await accepted[0].send_frame(b"fro")
        assert await mine.read_frame(10) == b"fro"
        assert 0 <= mine.round_trip_s() < 60
        await mine.abort()
        await accepted[0].abort()


@pytest.mark.slow
async def test_peer_with_another_id_cannot_finish_one() -> None:
    async with peers(2) as (server, client):
        accepted: list[DirectSocket] = []
        server.serve_direct(accepted.append)
        wanted = Source(peer_id=generate().peer_id, addresses=tuple(server.addresses))
        with pytest.raises(RemoteError) as error:
            await client.open_direct(wanted)
        assert error.value.code == "unreachable"
        assert not accepted


@pytest.mark.slow
async def test_peer_that_serves_none_and_banned_ones_get_no_direct_socket() -> None:
    async with peers(2) as (server, client):
        with pytest.raises(RemoteError):
            await client.open_direct(server.source)
        accepted: list[DirectSocket] = []
        server.serve_direct(accepted.append)
        await server.connections.ban(parse_peer_id(client.peer_id), 1000.0)
        with pytest.raises(RemoteError):
            await client.open_direct(server.source)
        assert not accepted


@pytest.mark.slow
async def test_one_peers_direct_sockets_are_bounded_and_a_closed_one_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct, "ACCEPTED_PER_PEER", 1)
    async with peers(2) as (server, client):
        accepted: list[DirectSocket] = []
        server.serve_direct(accepted.append)
        first = await client.open_direct(server.source)
        with pytest.raises(RemoteError):
            await client.open_direct(server.source)
        await until(lambda: accepted, 60)
        await accepted[0].abort()
        second = await client.open_direct(server.source)
        await first.abort()
        await second.abort()
        for each in accepted:
            await each.abort()
        assert not server._direct._accepted


@pytest.mark.slow
async def test_all_peers_direct_sockets_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "ACCEPTED", 1)
    async with peers(3) as (server, one, two):
        accepted: list[DirectSocket] = []
        server.serve_direct(accepted.append)
        first = await one.open_direct(server.source)
        with pytest.raises(RemoteError):
            await two.open_direct(server.source)
        await first.abort()
        for each in accepted:
            await each.abort()


@pytest.mark.slow
async def test_multiplexed_connections_go_on_beside_it() -> None:
    async def echo(caller: str, body: bytes) -> bytes:
        return body

    async with peer() as server, peer() as client:
        server.serve("echo", echo)
        accepted: list[DirectSocket] = []
        server.serve_direct(accepted.append)
        mine = await client.open_direct(server.source)
        assert await client.request(server.source, "echo", b"x", timeout_s=60) == b"x"
        await mine.abort()
        assert await client.request(server.source, "echo", b"y", timeout_s=60) == b"y"
        await until(lambda: accepted, 60)
        await accepted[0].abort()
