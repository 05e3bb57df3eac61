"""Streams of requests as a hostile or dying peer uses them, on both sides: bounded time, bounded memory, no crash."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from fakes.peers import PATIENCE_S, TOPIC, peer, peers, proxy, until
from tallymesh.errors import RemoteError
from tallymesh.exchange import MAX_BODY_BYTES
from tallymesh_node.network import Libp2pNetwork, arriving, open_network, requests
from tallymesh_node.network.counters import Counters
from tallymesh_node.network.keys import generate
from tallymesh_node.network.requests import (
    MAX_FRAME_BYTES,
    Dispatcher,
    decode_answer,
    encode_answer,
    encode_refusal,
    encode_request,
)
from tallymesh_node.network.wire import Wire, expect_protocol, opening

Patch = pytest.MonkeyPatch
PROTOCOL = f"/{TOPIC}/request/1"


async def echo(peer_id: str, body: bytes) -> bytes:
    return body


async def serves(server: Libp2pNetwork, client: Libp2pNetwork) -> bool:
    return await client.request(server.source, "echo", b"?", timeout_s=PATIENCE_S) == b"?"


FRAMES = {
    "empty": b"",
    "no msgpack": b"\xc1",
    "deep nesting": b"\x91" * 100_000,
    "no array": b"\x01",
    "too long an array": msgspec.msgpack.encode(["echo", b"", b""]),
    "no name": msgspec.msgpack.encode([7, b""]),
    "no body": msgspec.msgpack.encode(["echo", "text"]),
    "a long name": msgspec.msgpack.encode(["x" * 100_000, b""]),
    "a body over the limit": msgspec.msgpack.encode(["echo", bytes(MAX_BODY_BYTES + 1)]),
}


async def test_malformed_requests_are_refused_and_the_host_goes_on() -> None:
    async with peers(2) as (server, attacker):
        server.serve("echo", echo)
        for kind, frame in FRAMES.items():
            wire = await attacker.open_wire(server.source, PROTOCOL, frame)
            await expect_protocol(wire, PROTOCOL)
            with pytest.raises(RemoteError) as error:
                decode_answer(await wire.read_frame(MAX_FRAME_BYTES), peer="")
            assert error.value.code in ("bad_message", "unknown_request", "too_large"), kind
            assert len(error.value.sentence) < 1100
            await wire.abort()
            assert await serves(server, attacker), kind


async def test_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    async with peers(2) as (server, attacker):
        server.serve("echo", echo)
        stream = Wire(await attacker.connections.open_stream(server.source))
        await stream.send(b"\x13/multistream/1.0.0\n" + bytes([len(PROTOCOL) + 1]) + PROTOCOL.encode() + b"\n")
        await stream.send(b"\xff\xff\xff\xff")
        with trio.fail_after(PATIENCE_S):
            await expect_protocol(stream, PROTOCOL)
            assert b"too_large" in await stream.read_frame(2000)
        await stream.abort()
        assert await serves(server, attacker)


async def test_half_open_peer_is_cut_after_a_deadline(monkeypatch: Patch) -> None:
    monkeypatch.setattr(requests, "READ_S", 0.1)
    async with peers(2) as (server, attacker):
        server.serve("echo", echo)
        wire = Wire(await attacker.connections.open_stream(server.source))
        await wire.send(b"\x13/multistream/1.0.0\n" + bytes([len(PROTOCOL) + 1]) + PROTOCOL.encode() + b"\n")
        await wire.send(b"\x00\x00\x00\x10half")
        with trio.fail_after(PATIENCE_S):
            await expect_protocol(wire, PROTOCOL)
            assert await wire.read_some() == b""
        await wire.abort()


@pytest.mark.slow
@pytest.mark.parametrize("bounded", [True, False])
async def test_requests_that_never_end_hold_a_bounded_memory_and_keep_nobody_out(
    monkeypatch: Patch, bounded: bool
) -> None:
    """One key begins twenty requests of 1 MiB and sends 50 kB of each; another asks meanwhile."""
    bound = 400_000 if bounded else 1 << 40
    monkeypatch.setattr(arriving.Arriving.__init__, "__defaults__", (bound,))
    half = opening(PROTOCOL, b"")[:-4] + (1 << 20).to_bytes(4, "big") + bytes(50_000)
    async with peers(3) as (server, attacker, honest):
        server.serve("echo", echo)
        held = server._requests._arriving
        begun = [Wire(await attacker.connections.open_stream(server.source)) for _ in range(20)]
        for wire in begun:
            await wire.send(half)
            assert await serves(server, honest)
            assert held.size <= bound
        body = bytes(100_000)
        assert await honest.request(server.source, "echo", body, timeout_s=PATIENCE_S) == body
        if bounded:
            async with trio.open_nursery() as nursery:

                async def is_refused(wire: Wire) -> None:
                    await expect_protocol(wire, PROTOCOL)
                    assert b"busy" in await wire.read_frame(1000)
                    nursery.cancel_scope.cancel()

                for wire in begun:
                    nursery.start_soon(is_refused, wire)
        else:
            await until(lambda: held.size >= 20 * 50_000)
        for wire in begun:
            await wire.abort()
        await until(lambda: not held.size)


async def test_who_holds_most_where_most_is_held_makes_room() -> None:
    held = arriving.Arriving(1000)
    with ExitStack() as stack:

        def begin(peer_id: str, host: str, size: int) -> arriving.Part:
            part = stack.enter_context(held.one(peer_id, host))
            held.add(part, size)
            return part

        honest = begin("honest", "10.9.0.1", 300)  # more than any of the crowd's
        neighbour = begin("neighbour", "10.0.0.9", 100)
        crowd = [begin(f"{number}", "10.0.0.1", 100) for number in range(8)]
        large = begin("7", "10.0.0.1", 110)
        assert held.size <= 1000
        assert large.scope.cancel_called
        assert not any(part.scope.cancel_called for part in (honest, neighbour))
        assert sum(part.scope.cancel_called for part in crowd) == 2
        held.add(large, 5000)  # it is gone, and counts no more
        assert held.size <= 1000
    assert held.size == 0


async def test_who_makes_room_is_found_without_a_look_at_each_that_a_crowd_has_begun(monkeypatch: Patch) -> None:
    """With ninety requests of each of three hundred keys a look at all took 20 ms, for every frame that they send."""
    looked: list[arriving.Part] = []

    class Watched(arriving.Part):
        def __getattribute__(self, name: str) -> object:
            if name == "size":
                looked.append(self)
            return super().__getattribute__(name)

    monkeypatch.setattr(arriving, "Part", Watched)
    held = arriving.Arriving(2000)
    with ExitStack() as stack:
        crowd = [stack.enter_context(held.one(f"{number % 40}", f"10.0.{number % 40}.1")) for number in range(400)]
        for part in crowd:
            held.add(part, 5)
        looked.clear()
        held.add(crowd[7], 1)
        assert sum(part.scope.cancel_called for part in crowd) == 1
        assert len(set(looked)) <= 400 // 40


async def test_handler_is_cancelled_when_its_caller_is_gone() -> None:
    async with peer() as server, proxy(server) as between, peer() as client:
        entered, cancelled = trio.Event(), trio.Event()

        async def hold(peer_id: str, body: bytes) -> bytes:
            entered.set()
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
            return b""

        server.serve("hold", hold)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(RemoteError) as error:
                    await client.request(between.source(server), "hold", b"", timeout_s=PATIENCE_S)
                assert error.value.code == "unreachable"

            nursery.start_soon(ask)
            with trio.fail_after(PATIENCE_S):
                await entered.wait()
                await between.cut()
                await cancelled.wait()


async def test_frozen_peer_is_a_timeout() -> None:
    async with peer() as server, proxy(server) as between, peer() as client:
        server.serve("echo", echo)
        source = between.source(server)
        await client.request(source, "echo", b"", timeout_s=PATIENCE_S)
        between.freeze()
        with pytest.raises(RemoteError) as error:
            await client.request(source, "echo", b"", timeout_s=0.1)
        assert error.value.code == "timeout"
        between.thaw()
        assert await client.request(source, "echo", b"back", timeout_s=PATIENCE_S) == b"back"


ANSWERS = {
    "no frame": (b"\x00\x00", "unreachable"),
    "a frame of 4 GiB": (b"\xff\xff\xff\xff" + bytes(64), "too_large"),
    "no msgpack": (b"\x00\x00\x00\x01\xc1", "bad_message"),
    "no answer": (b"\x00\x00\x00\x01\x90", "bad_message"),
    "nothing": (b"", "unreachable"),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_malformed_answer_is_the_peers_fault(monkeypatch: Patch, kind: str) -> None:
    data, code = ANSWERS[kind]

    async def accept(self: requests.Requests, wire: Wire) -> None:
        await wire.send(data)

    monkeypatch.setattr(requests.Requests, "accept", accept)
    async with peers(2) as (server, client):
        with pytest.raises(RemoteError) as error:
            await client.request(server.source, "echo", b"", timeout_s=PATIENCE_S)
        assert error.value.code == code
        assert error.value.peer == server.peer_id


async def test_peer_of_another_network_is_told_apart() -> None:
    async with open_network(generate(), "tallymesh/other/1/x") as server, peer() as client:
        server.serve("echo", echo)
        with pytest.raises(RemoteError) as error:
            await client.request(server.source, "echo", b"", timeout_s=PATIENCE_S)
        assert error.value.code == "unreachable"
        assert "does not speak this network's protocol" in error.value.sentence


@given(st.binary(max_size=200))
async def test_any_bytes_get_an_answer(frame: bytes) -> None:
    dispatcher = Dispatcher(Counters())
    dispatcher.serve("echo", echo)
    kind, *rest = msgspec.msgpack.decode(await dispatcher.answer("peer", frame))
    assert kind == "ok" or rest[0] in ("bad_message", "unknown_request")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_remote_error(data: bytes) -> None:
    try:
        assert isinstance(decode_answer(data, peer="peer"), bytes)
    except RemoteError:
        pass  # anything else would fail


def test_answers_are_what_the_protocol_says() -> None:
    assert msgspec.msgpack.decode(encode_answer(b"body")) == ["ok", b"body"]
    assert msgspec.msgpack.decode(encode_refusal("busy", "Later.")) == ["refused", "busy", "Later."]


def test_a_refusal_is_one_line_of_plain_text_on_both_sides() -> None:
    """A peer's words end up on the owner's terminal; ours may hold what a file name or a program put into them."""
    assert msgspec.msgpack.decode(encode_refusal("a\x1bb", "half a pair \udc80\nmore")) == [
        "refused",
        "a\N{REPLACEMENT CHARACTER}b",
        "half a pair ? more",
    ]
    with pytest.raises(RemoteError) as error:
        decode_answer(msgspec.msgpack.encode(["refused", "no\n", "\x1b[2JAll is paid.\n\u202eX"]), peer="peer")
    assert error.value.code == "no "
    assert error.value.sentence == "\N{REPLACEMENT CHARACTER}[2JAll is paid. \N{REPLACEMENT CHARACTER}X"


@pytest.mark.parametrize(
    ("hosts", "answered"),
    [
        (["198.51.100.1"], 4),
        (["::ffff:198.51.100.1", "198.51.100.1"], 4),
        (["2001:db8::1", "2001:db8::2"], 4),
        (["198.51.100.1", "198.51.100.2"], 8),
        (["127.0.0.1", "127.0.0.2", "::1", ""], 10),
    ],
    ids=["one", "one by two names", "a whole /64", "two", "this machine"],
)
async def test_an_address_has_a_share_of_the_requests_under_way_however_many_keys_it_has(
    monkeypatch: Patch, hosts: list[str], answered: int
) -> None:
    monkeypatch.setattr(requests, "HANDLED", 10)
    monkeypatch.setattr(requests, "HANDLED_PER_ADDRESS", 4)
    dispatcher = Dispatcher(Counters())
    held, release = 0, trio.Event()

    async def hold(peer: str, body: bytes) -> bytes:
        nonlocal held
        held += 1
        await release.wait()
        return b""

    dispatcher.serve("hold", hold)
    frame = encode_request("hold", b"")
    answers: list[bytes] = []

    async def ask(number: int, host: str) -> None:
        answers.append(await dispatcher.answer(f"peer-{number}", frame, host))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number, hosts[number % len(hosts)])
        await trio.testing.wait_all_tasks_blocked()
        assert held == answered
        busy = encode_refusal("busy", "")[:12]
        assert sum(each[:12] == busy for each in answers) == 20 - answered
        release.set()
    await dispatcher.answer("later", frame, hosts[0])
    assert held == answered + 1, "what is over is not counted"


async def test_limits_let_so_many_through_and_forget_their_keys() -> None:
    limits = requests.Limits(3, 2)
    inside: list[str] = []
    leave = trio.Event()

    async def enter(key: str) -> None:
        async with limits.slot(key):
            inside.append(key)
            await leave.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(enter, "a")
        await until(lambda: len(inside) == 2)
        for _ in range(4):
            nursery.start_soon(enter, "b")
        await trio.sleep(0.02)
        assert sorted(inside) == ["a", "a", "b"]
        leave.set()
    assert len(inside) == 8
    assert not limits._by_key
