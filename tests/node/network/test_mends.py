"""One test for each defect of py-libp2p that mends.py mends. Each runs with and without the mend: without it the defect
must still show, else the mend can go."""

from __future__ import annotations

import gc
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.io.trio import TrioTCPStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from libp2p.utils import encode_varint_prefixed
from multiaddr import Multiaddr

from fakes.peers import PATIENCE_S, TOPIC, address_of, peer, peers, proxy, until
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh_node.network import Libp2pNetwork, gossip, host, mends
from tallymesh_node.network.addresses import host_and_port
from tallymesh_node.network.gossip import topic_name
from tallymesh_node.network.wire import Wire, opening

MESHSUB = "/meshsub/1.1.0"
OFFERS = topic_name(TOPIC)
Patch = pytest.MonkeyPatch
Ends = Callable[[Libp2pNetwork, Libp2pNetwork], Awaitable[None]]


@pytest.fixture
def crash() -> Iterator[None]:
    """For programs that libp2p is to kill: what they leave open is collected here, without a warning."""
    yield
    gc.collect()


def unmend(patch: Patch, mended: type, *names: str) -> None:
    """Put libp2p's own methods back."""
    for name in names:
        patch.setattr(mended, name, getattr(mended.__mro__[1], name))


async def echo(peer_id: str, body: bytes) -> bytes:
    return body


async def serves(server: Libp2pNetwork, client: Libp2pNetwork) -> bool:
    return await client.request(server.source, "echo", b"?", timeout_s=PATIENCE_S) == b"?"


# -- 1. a host accepts so many inbound connections in its life


async def connect_and_leave(server: Libp2pNetwork, client: Libp2pNetwork) -> None:
    await client.connections.connect(server.source)
    await client.connections.disconnect(ID.from_base58(server.peer_id))
    await until(lambda: not server.peers)


@pytest.mark.parametrize("mended", [True, False])
async def test_closed_inbound_connection_gives_its_slot_back(monkeypatch: Patch, mended: bool) -> None:
    monkeypatch.setattr(host, "MAX_CONNECTIONS", 2)
    if not mended:
        unmend(monkeypatch, mends.MendedSwarm, "_do_handle_inbound_connection")
    async with peer() as server, peer() as client:
        for _ in range(2):
            await connect_and_leave(server, client)
        if mended:
            await connect_and_leave(server, client)
        else:
            with pytest.raises(RemoteError):
                await connect_and_leave(server, client)


@pytest.mark.slow
async def test_300_connections_in_a_row() -> None:
    async with peer() as server, peer() as client:
        server.serve("echo", echo)
        for _ in range(300):
            await client.connections.connect(server.source)
            await client.connections.disconnect(ID.from_base58(server.peer_id))
        assert await serves(server, client)
        swarm = server._host.get_network()
        assert isinstance(swarm, Swarm)
        await until(lambda: swarm._inbound_limiter.borrowed_tokens <= 1)


# -- 2. what a peer sends to gossip ends the program


def rpc(**fields: Any) -> bytes:
    return encode_varint_prefixed(rpc_pb2.RPC(**fields).SerializeToString())


def control(**fields: Any) -> bytes:
    return rpc(control=rpc_pb2.ControlMessage(**fields))


def message(**fields: Any) -> bytes:
    settings = {"data": b"offer", "topicIDs": [OFFERS], "seqno": b"12345678"}
    return rpc(publish=[rpc_pb2.Message(**{**settings, **fields})])


KILLERS = {
    "no protobuf": encode_varint_prefixed(b"\xff" * 40),
    "a key that is none": message(from_id=b"\x12\x20" + bytes(32), key=b"\xff\xff\xff", signature=b"x" * 64),
}
HARMLESS = {
    "an author that is none": message(from_id=b"\x01", key=b"\x08\x01\x12\x20" + bytes(32), signature=b"x" * 64),
    "an author without bytes": message(from_id=b"", key=b"", signature=b"x"),
    "no signature": message(from_id=b"\x01"),
    "a length without end": b"\xff" * 32,
    "a length of 4 GiB": b"\xff\xff\xff\xff\x0f",
    "half a message": encode_varint_prefixed(b"x" * 100)[:50],
    "a record that is none": rpc(senderRecord=b"\x01\x02\x03"),
    "many subscriptions": rpc(subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=str(n)) for n in range(4000)]),
    "graft of an unknown topic": control(graft=[rpc_pb2.ControlGraft(topicID="unknown")]),
    "prune of unknown topics": control(prune=[rpc_pb2.ControlPrune(topicID=str(n)) for n in range(4000)]),
    "prune that recommends peers": control(
        prune=[rpc_pb2.ControlPrune(topicID=OFFERS, peers=[rpc_pb2.PeerInfo(peerID=b"x")], backoff=2**60)]
    ),
    "ihave of an unknown topic": control(ihave=[rpc_pb2.ControlIHave(topicID="unknown", messageIDs=[b"1"] * 2000)]),
    "iwant of nothing": control(iwant=[rpc_pb2.ControlIWant(messageIDs=[b"1"] * 2000)]),
    "idontwant of all": control(idontwant=[rpc_pb2.ControlIDontWant(messageIDs=[b"%d" % n for n in range(5000)])]),
    "another topic": message(topicIDs=["another"], from_id=b"\x01"),
}


async def send_to_gossip(server: Libp2pNetwork, attacker: Libp2pNetwork, data: bytes) -> None:
    stream = await attacker.connections.open_stream(server.source)
    await stream.write(opening(MESHSUB, b"")[:-4] + data)  # the lines that choose the protocol, without a frame of ours
    await trio.sleep(0.03)


async def test_hostile_gossip_ends_at_most_its_own_stream() -> None:
    async with peers(3) as (server, attacker, honest):
        server.serve("echo", echo)
        await until(lambda: server.gossip.peers == 2 and honest.gossip.peers)
        for kind, data in {**KILLERS, **HARMLESS}.items():
            await send_to_gossip(server, attacker, data)
            assert await serves(server, honest), kind
            await honest.gossip.publish(kind.encode())
            with trio.fail_after(PATIENCE_S):
                assert await server.gossip.receive() == (honest.peer_id, kind.encode())


@pytest.mark.slow
@pytest.mark.usefixtures("crash")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", KILLERS)
async def test_without_the_mend_the_same_bytes_end_the_program(monkeypatch: Patch, kind: str) -> None:
    unmend(monkeypatch, mends.MendedPubsub, "stream_handler", "push_msg")
    monkeypatch.setattr(host, "guard_streams", lambda handle: handle)

    async def provoke() -> None:
        async with peers(2) as (server, attacker):
            await attacker.gossip.wait_for_peer()
            await send_to_gossip(server, attacker, KILLERS[kind])
            await trio.sleep(1)

    with pytest.raises(BaseExceptionGroup):
        await provoke()


@pytest.mark.parametrize("mended", [True, False])
async def test_prunes_of_unknown_topics_are_not_remembered(monkeypatch: Patch, mended: bool) -> None:
    if not mended:
        unmend(monkeypatch, mends.MendedGossipSub, "handle_rpc")
    async with peers(2) as (server, attacker):
        await until(lambda: server.gossip.peers)
        await send_to_gossip(server, attacker, HARMLESS["prune of unknown topics"])
        router = server.gossip._router
        if mended:
            await trio.sleep(0.1)
            assert set(router.back_off) <= {OFFERS}
        else:
            await until(lambda: len(router.back_off) > 1000)


def signed(author: Libp2pNetwork, data: bytes) -> rpc_pb2.Message:
    pubsub = author.gossip._pubsub
    made = rpc_pb2.Message(data=data, topicIDs=[OFFERS], from_id=pubsub.my_id.to_bytes(), seqno=pubsub._next_seqno())
    made.signature = pubsub.sign_key.sign(PUBSUB_SIGNING_PREFIX.encode() + made.SerializeToString())
    return made


@pytest.mark.parametrize("mended", [True, False])
async def test_a_burst_larger_than_libp2ps_queue_is_delivered(monkeypatch: Patch, mended: bool) -> None:
    if not mended:
        unmend(monkeypatch, mends.MendedPubsub, "notify_subscriptions")
    monkeypatch.setattr(gossip, "AUTHOR_BURST", 1000)
    async with peers(2) as (server, client):
        await until(lambda: server.gossip.peers)
        burst = rpc_pb2.RPC(publish=[signed(client, b"%d" % number) for number in range(60)])
        await send_to_gossip(server, client, encode_varint_prefixed(burst.SerializeToString()))
        if mended:
            await until(lambda: server.counters.gossip_received == 60)
        else:
            await trio.sleep(0.1)
            assert server.counters.gossip_received < 60


async def test_frame_full_of_empty_messages_costs_little() -> None:
    async with peers(2) as (server, attacker):
        server.serve("echo", echo)
        await until(lambda: server.gossip.peers)
        flood = rpc_pb2.RPC(publish=[rpc_pb2.Message(topicIDs=[OFFERS]) for _ in range(15_000)])
        begun = time.process_time()
        await send_to_gossip(server, attacker, encode_varint_prefixed(flood.SerializeToString()))
        assert await serves(server, attacker)
        assert server.gossip._pubsub._pending == 0
        assert time.process_time() - begun < 2  # a minute and more without the bound


# -- 3. an exception in a stream handler ends the host


@pytest.mark.slow
@pytest.mark.usefixtures("crash")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("mended", [True, False])
async def test_stream_handler_that_raises_ends_its_stream_alone(monkeypatch: Patch, mended: bool) -> None:
    reached = trio.Event()

    async def broken(wire: Wire) -> None:
        reached.set()
        raise ZeroDivisionError

    async def provoke() -> None:
        async with peers(2) as (server, client):
            server.serve("echo", echo)
            server.serve_streams("/broken/1", broken)
            wire = await client.open_wire(server.source, "/broken/1", b"here")
            await reached.wait()
            await wire.abort()
            assert await serves(server, client)

    if mended:
        await provoke()
        return
    monkeypatch.setattr(host, "guard_streams", lambda handle: handle)
    with pytest.raises(BaseExceptionGroup):
        await provoke()


OPENINGS = {
    "no utf-8": b"\x13/multistream/1.0.0\n\x04\xff\xfe\xfd\n",
    "another protocol": b"\x05http\n",
    "a line without end": b"\xff" * 12,
    "an empty line": b"\x13/multistream/1.0.0\n\x00",
    "no newline": b"\x13/multistream/1.0.0\n\x03abc",
    "half a line": b"\x13/multistr",
    "nothing": b"",
    "a hundred protocols": b"\x13/multistream/1.0.0\n" + b"\x03/a\n" * 100,
    "half a ping": opening("/ipfs/ping/1.0.0", b"")[:-4] + b"123",
    "garbage for identify": opening("/ipfs/id/push/1.0.0", b"")[:-4] + b"\xff" * 50,
}


async def test_hostile_openings_of_streams_end_those_streams_alone() -> None:
    async with peers(2) as (server, attacker):
        server.serve("echo", echo)
        for kind, data in OPENINGS.items():
            stream = await attacker.connections.open_stream(server.source)
            await stream.write(data)
            await trio.sleep(0.01)
            await stream.close()
            assert await serves(server, attacker), kind


@pytest.mark.slow
@pytest.mark.usefixtures("crash")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_without_the_router_such_an_opening_ends_the_program() -> None:
    async def provoke() -> None:
        async with peers(2) as (server, attacker):
            server._host.get_network().set_stream_handler(server._host._swarm_stream_handler)
            stream = await attacker.connections.open_stream(server.source)
            await stream.write(OPENINGS["no utf-8"])
            await trio.sleep(1)

    with pytest.raises(BaseExceptionGroup):
        await provoke()


async def test_a_peer_holds_a_bounded_number_of_streams() -> None:
    handled = 0

    async def count(stream: Any) -> None:
        nonlocal handled
        handled += 1
        await trio.sleep_forever()

    async with peers(2) as (server, attacker):
        server._host.get_network().set_stream_handler(mends.guard_streams(count, limit=8))
        for _ in range(20):
            await attacker.connections.open_stream(server.source)
        await until(lambda: handled >= 8)
        await trio.sleep(0.05)
        assert handled == 8


# -- 4. adaptive gossip slows a small network down


@pytest.mark.parametrize("mended", [True, False])
async def test_heartbeat_stays_at_a_second_in_a_small_network(mended: bool) -> None:
    async with peers(2) as (server, _):
        await until(lambda: server.gossip.peers)
        router = server.gossip._router
        router.adaptive_gossip_enabled = router.adaptive_gossip_enabled or not mended
        for _ in range(3):
            router.last_health_update = router.last_metrics_update = 0
            router._update_network_health()
            router._adapt_gossip_parameters()
        assert (router._interval_s == 1) is mended


# -- 5. the multiplexer


class SlowConnection:
    """A secured connection that takes half of a frame, and the rest when told."""

    is_initiator = True

    def __init__(self) -> None:
        self.written = b""
        self.half = trio.Event()
        self.go_on = trio.Event()

    async def write(self, data: bytes) -> None:
        self.written += data[: len(data) // 2]
        self.half.set()
        await self.go_on.wait()
        self.written += data[len(data) // 2 :]

    async def close(self) -> None:
        self.go_on.set()


def muxer(connection: SlowConnection, mended: bool) -> yamux.Yamux:
    if not mended:
        return yamux.Yamux(connection, ID(b"peer"))
    return mends.MendedYamux(connection, ID(b"peer"), sent=lambda size: None, received=lambda size: None)


@pytest.mark.parametrize("mended", [True, False])
async def test_cancelled_write_leaves_no_half_frame(mended: bool) -> None:
    connection = SlowConnection()
    muxed = muxer(connection, mended)
    frame = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_SYN, 0, 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxed._write_frame, frame)
        await connection.half.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            connection.go_on.set()
    assert (connection.written == frame) is mended


@pytest.mark.parametrize("mended", [True, False])
async def test_cancelled_opening_leaks_no_stream(mended: bool) -> None:
    connection = SlowConnection()
    muxed = muxer(connection, mended)
    opened: list[yamux.YamuxStream] = []

    async def open_stream() -> None:
        opened.append(await muxed.open_stream())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_stream)
        await connection.half.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            connection.go_on.set()
    assert (len(opened) == len(muxed.streams)) is mended


async def test_peer_that_reads_nothing_is_given_up(monkeypatch: Patch, autojump_clock: trio.testing.MockClock) -> None:
    connection = SlowConnection()
    muxed = muxer(connection, True)
    with pytest.raises(MuxedStreamError):
        await muxed._write_frame(bytes(12))
    assert connection.go_on.is_set()  # closed
    assert trio.current_time() == pytest.approx(mends.WRITE_STALL_S, abs=0.1)


@pytest.mark.parametrize("mended", [True, False])
async def test_stream_that_nobody_reads_has_a_bounded_buffer(monkeypatch: Patch, mended: bool) -> None:
    if not mended:
        monkeypatch.setattr(mends, "_Buffers", lambda streams: {})
    async with peers(2) as (server, attacker):
        server.serve("echo", echo)
        reading = trio.Event()

        async def never_read(wire: Wire) -> None:
            await reading.wait()

        server.serve_streams("/flood/1", never_read)
        wire = await attacker.open_wire(server.source, "/flood/1", b"")
        stream = wire.stream.muxed_stream
        for _ in range(200):
            stream.send_window = 2**32  # a peer that does not care
            await wire.send(bytes(60_000))
        (connection,) = server._host.get_network().get_connections()

        def buffered() -> int:
            return sum(len(buffer) for buffer in connection.muxed_conn.stream_buffers.values())

        if mended:
            assert await serves(server, attacker)  # all before it has arrived
            assert buffered() < 4 * 1024 * 1024
        else:
            await until(lambda: buffered() > 10_000_000)
        assert await serves(server, attacker)
        reading.set()


@pytest.mark.parametrize("mended", [True, False])
async def test_giant_frame_closes_the_connection_before_it_is_read(monkeypatch: Patch, mended: bool) -> None:
    if not mended:
        unmend(monkeypatch, mends.MendedYamux, "_read_data_body")
    async with peers(2) as (server, attacker):
        (connection,) = attacker._host.get_network().get_connections()
        head = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, yamux.FLAG_SYN, 901, 16 * 1024 * 1024)
        await connection.muxed_conn._write_frame(head)
        if mended:
            await until(lambda: not server.peers)
        else:
            await trio.sleep(0.1)
            assert server.peers


@pytest.mark.parametrize("mended", [True, False])
async def test_frozen_peer_is_noticed(monkeypatch: Patch, mended: bool) -> None:
    monkeypatch.setattr(mends, "PING_FIRST_S", 0.0)
    monkeypatch.setattr(mends, "PING_PERIOD_S", 0.05)
    monkeypatch.setattr(mends, "PING_ANSWER_S", 0.2)
    if not mended:
        unmend(monkeypatch, mends.MendedYamux, "_measure_rtt_loop")
    async with peer() as server, proxy(server) as between, peer() as client:
        await client.connections.connect(between.source(server))
        between.freeze()
        if mended:
            await until(lambda: not client.peers)
        else:
            await trio.sleep(0.5)
            assert client.peers
        between.thaw()


# -- 6. credit for what was read


@pytest.mark.parametrize("mended", [True, False])
async def test_small_reads_are_not_answered_each(monkeypatch: Patch, mended: bool) -> None:
    if not mended:
        unmend(monkeypatch, mends._Stream, "_auto_tune_and_send_window_update")
    updates = 0
    write = mends.MendedYamux._write_frame

    async def counted(self: mends.MendedYamux, data: bytes) -> None:
        nonlocal updates
        updates += data[1] == yamux.TYPE_WINDOW_UPDATE and not any(data[2:4])  # no flag: it neither opens nor closes
        await write(self, data)

    async with peers(2) as (server, client):
        server.serve("echo", echo)
        assert await serves(server, client)
        monkeypatch.setattr(mends.MendedYamux, "_write_frame", counted)
        for _ in range(10):
            assert await serves(server, client)
        assert (updates == 0) == mended  # a length before a message is read byte by byte
        much = bytes(900_000)  # more than a window: credit comes in time
        assert await client.request(server.source, "echo", much, timeout_s=PATIENCE_S) == much


# -- 7. the end of a connection


async def say_nothing(stream: trio.SocketStream) -> None:
    """Not closed before the other side has noticed: a reset would spare it the reads."""
    await stream.send_eof()
    while await stream.receive_some():
        pass


async def comes_and_goes(server: Libp2pNetwork, client: Libp2pNetwork) -> None:
    async with await trio.open_tcp_stream(*host_and_port(server.addresses[0])) as stream:
        await say_nothing(stream)


async def leaves_without_a_word(server: Libp2pNetwork, client: Libp2pNetwork) -> None:
    await client.connections.connect(server.source)
    (connection,) = client._host.get_network().get_connections()
    await until(lambda: server.peers)
    await connection.muxed_conn.give_up()


async def hangs_up_when_dialled(server: Libp2pNetwork, client: Libp2pNetwork) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        address = f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}"
        with pytest.raises(RemoteError):
            await client.connections.connect(Source(server.peer_id, (address,)))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("mended", [True, False])
@pytest.mark.parametrize("end", [comes_and_goes, leaves_without_a_word, hangs_up_when_dialled])
async def test_a_connection_that_has_ended_is_asked_for_more_once(monkeypatch: Patch, mended: bool, end: Ends) -> None:
    if not mended:
        unmend(monkeypatch, mends.MendedRaw, "read")
    ends: Counter[TrioTCPStream] = Counter()
    read = TrioTCPStream.read

    async def counted(self: TrioTCPStream, n: int | None = None) -> bytes:
        data: bytes = await read(self, n)
        ends[self] += not data
        return data

    monkeypatch.setattr(TrioTCPStream, "read", counted)
    async with peer() as server, peer() as client:
        await end(server, client)
        swarm = server._host.get_network()
        await until(lambda: +ends and not (swarm._half_open or server.peers or client.peers))
        often = max(ends.values())
        assert often == 1 if mended else often >= 100, often


# -- 9. what is left of a stream that is over


@pytest.mark.parametrize("mended", [True, False])
async def test_of_streams_that_their_peer_has_reset_nothing_stays(monkeypatch: Patch, mended: bool) -> None:
    if not mended:
        unmend(monkeypatch, mends._Stream, "reset")
    async with peers(2) as (server, attacker):
        (muxed,) = [each.muxed_conn for each in server._host.get_network().get_connections()]
        await until(lambda: server.gossip.peers)
        for _ in range(20):
            stream = await attacker.connections.open_stream(server.source)
            await stream.write(opening("/none/1", bytes(30_000)))
            await stream.reset()
        if mended:
            await until(lambda: not any(muxed.stream_buffers.values()))
            await until(lambda: len(muxed.streams) < 10)
        else:
            await until(lambda: sum(map(len, muxed.stream_buffers.values())) > 100_000)


@pytest.mark.parametrize("mended", [True, False])
async def test_requests_that_are_over_leave_nothing_in_the_muxers_books(monkeypatch: Patch, mended: bool) -> None:
    if not mended:
        unmend(monkeypatch, mends._Stream, "reset")
    async with peers(2) as (server, client):
        server.serve("echo", echo)
        books = [each.muxed_conn for each in server._host.get_network().get_connections()]
        for _ in range(30):
            assert await serves(server, client)
        await until(lambda: all(len(muxed.streams) < 10 for muxed in books))
        left = max(len(muxed.stream_events) for muxed in books)
        assert left < 10 if mended else left >= 20, left


# -- 10. a signed record with each message


async def until_heard(server: Libp2pNetwork, client: Libp2pNetwork) -> None:
    """Until the server has heard something of the client that was said when each was in the other's mesh: what is said
    before takes other ways, or gets lost."""
    await until(lambda: all(each.gossip._router.mesh.get(OFFERS) for each in (server, client)))
    number = 0
    while not server.counters.gossip_received:
        number += 1
        await client.gossip.publish(b"offer %d" % number)
        await trio.sleep(0.1)


@pytest.mark.parametrize("mended", [True, False])
async def test_messages_carry_no_record_that_is_to_be_verified(monkeypatch: Patch, mended: bool) -> None:
    carried: list[bool] = []
    send = mends.GossipSub.send_rpc

    def noted(self: mends.GossipSub, peer_id: ID, message: rpc_pb2.RPC, priority: bool = False) -> None:
        if message.publish:
            carried.append(message.HasField("senderRecord"))
        send(self, peer_id, message, priority)

    monkeypatch.setattr(mends.GossipSub, "send_rpc", noted)
    if not mended:
        unmend(monkeypatch, mends.MendedGossipSub, "send_rpc")
    async with peers(2) as (server, client):
        await until_heard(server, client)
    assert carried
    assert any(carried) is not mended


@pytest.mark.parametrize("mended", [True, False])
async def test_a_copy_of_what_was_taken_starts_no_task(monkeypatch: Patch, mended: bool) -> None:
    if not mended:
        unmend(monkeypatch, mends.MendedPubsub, "_is_subscribed_to_msg")
    taken: dict[mends.MendedPubsub, rpc_pb2.Message] = {}  # the newest that each has taken
    deliver = mends.MendedPubsub.notify_subscriptions

    def noted(self: mends.MendedPubsub, message: rpc_pb2.Message) -> None:
        taken[self] = message
        deliver(self, message)

    monkeypatch.setattr(mends.MendedPubsub, "notify_subscriptions", noted)
    async with peers(2) as (server, client):
        await until_heard(server, client)
        judged = server.gossip._pubsub
        pending = judged._pending
        assert judged._is_subscribed_to_msg(taken[judged]) is not mended
        assert judged._pending == pending
        other = rpc_pb2.Message()
        other.CopyFrom(taken[judged])
        other.seqno = b"another!"
        assert judged._is_subscribed_to_msg(other)


@pytest.mark.parametrize("mended", [True, False])
async def test_a_hosts_addresses_are_not_gathered_for_each_message(monkeypatch: Patch, mended: bool) -> None:
    monkeypatch.setattr(mends, "ADDRESSES_S", 3600.0)
    if not mended:
        unmend(monkeypatch, mends.MendedHost, "get_addrs")
    async with peers(2) as (_, client):
        client._host.get_addrs()
        gathered = 0
        factory = client._host._addrs_factory

        def counted(found: list[Multiaddr]) -> list[Multiaddr]:
            nonlocal gathered
            gathered += 1
            return list(factory(found))

        monkeypatch.setattr(client._host, "_addrs_factory", counted)
        for number in range(5):
            await client.gossip.publish(b"offer %d" % number)
        assert (gathered == 0) is mended
        assert [str(address) for address in client._host.get_addrs()] == [address_of(client)]


async def test_a_hosts_addresses_are_what_it_listens_on_now(autojump_clock: trio.testing.MockClock) -> None:
    listeners: dict[str, str] = {}
    gathered: list[str] = []

    class Listening(mends.MendedHost):
        def __init__(self) -> None:
            self._told, self._told_of, self._told_until = [], (), 0.0
            self._network = SimpleNamespace(listeners=listeners)

    def gather(self: Listening) -> list[str]:
        gathered.append("")
        return list(listeners)

    found = Listening()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mends.BasicHost, "get_addrs", gather)
        assert found.get_addrs() == []
        listeners["/ip4/127.0.0.1/tcp/1"] = ""
        assert found.get_addrs() == ["/ip4/127.0.0.1/tcp/1"], "at once"
        assert found.get_addrs() == ["/ip4/127.0.0.1/tcp/1"]
        assert len(gathered) == 2
        await trio.sleep(mends.ADDRESSES_S)
        assert found.get_addrs() == ["/ip4/127.0.0.1/tcp/1"]
        assert len(gathered) == 3, "an interface may have come"
