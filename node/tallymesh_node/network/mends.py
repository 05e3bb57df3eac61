"""py-libp2p 0.8.1, mended from outside. docs/decisions/libp2p-mends.md says what to send upstream; each mend has a
test that fails without it. This module knows libp2p's insides and nothing of Tallymesh.

1. `MendedSwarm`: an inbound connection gives its slot back when it closes, not when the whole swarm stops; handshakes
   that somebody holds open keep nobody out. It does not dial peers of its own accord either.
2. `MendedPubsub`, `MendedGossipSub`: what one peer sends ends at most that peer's stream.
3. `guard_streams`: an exception in a stream handler ends that stream; a peer's open streams are bounded.
4. Adaptive gossip is off (`gossipsub`), else a 1 s heartbeat grows to 60 s in small networks.
5. `MendedYamux`: a cancelled write cannot tear the connection, frames and the buffers of unread streams are bounded, a
   frozen peer is noticed by pings of the muxer; who is heard of is not asked.
6. `_Stream`: credit goes back in halves of a window, not after each read.
7. `MendedRaw`: a connection that has ended is asked for more once, not 100 times; `MendedTCP` dials such ones.
8. A small request costs half: locks that are free cost no turn (quick.py), and of streams that open and close nobody is
   told who does nothing then.
9. `_Stream`: of a stream that is over nothing stays.
10. `MendedGossipSub`: messages carry no signed list of the sender's addresses, which nobody here reads; `MendedHost`
   does not gather them for it.
"""

from __future__ import annotations

import logging
import math
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.abc import IMuxedConn, INetStream, IRawConnection, ISecureConn
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.exceptions import MuxerUpgradeFailure
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from tallymesh_node import beats
from tallymesh_node.network.places import Block, block_of, most_crowded
from tallymesh_node.network.quick import quicken_muxed, quicken_muxer, quicken_socket, quicken_stream

log = logging.getLogger(__name__)

MAX_STREAMS_PER_PEER = 96  # inbound at once: 32 requests, 4 blobs, gossip, identify and ping, and what lingers
MAX_HALF_OPEN = 64  # inbound connections whose handshake is not over, a fifth of all slots: it takes 10 ms nearby
MAX_PENDING = 256  # gossip messages between their frame and their judgement; an honest frame has a few
MAX_IHAVE_IDS = 500  # ids in one IHAVE; a mesh of 10,000 peers gossips about 500 offers a second
MAX_FRAME_BYTES = 256 * 1024  # of yamux; implementations send 16 or 64 KiB, the original reads 16 MiB before it looks
READ_BYTES = 32 * 1024  # of a connection at once, where less was asked for: some messages of requests and of gossip
CLOSE_S = 2.0  # closing must not wait for a peer that no longer reads
WRITE_STALL_S = 5.0  # a peer that takes no byte for this long is gone
PING_FIRST_S = 0.5  # let the connection establish
PING_PERIOD_S = 4.0  # of silence; with a beat and PING_ANSWER_S either side notices a frozen peer within 10 s
PING_ANSWER_S = 5.0
ADDRESSES_S = 10.0  # that a host's own addresses are good for
_PONG = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_ACK, 0, 0)[:4]


def shielded(seconds: float) -> trio.CancelScope:
    """A scope for what must be finished or given up within `seconds`, also while being cancelled: mostly closing."""
    return trio.CancelScope(shield=True, deadline=trio.current_time() + seconds)


class _NoConnector(AutoConnector):  # type: ignore[misc]
    """The original dials whomever the peer store knows until half of the allowed connections are open."""

    async def maybe_connect(self) -> None: ...


class MendedRaw(RawConnection):  # type: ignore[misc]
    """Mend 7. The original's `read_exactly` takes the end of a connection for a pause and reads on 100 times: whoever
    comes and goes costs 2 ms of a core, and 10 after a handshake. No reader of ours wants to see an end as no bytes.

    Mend 8, too: what has arrived is read at once; the original asks the kernel for a length, and then for the rest, and
    in the choice of a protocol for each byte."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ahead = b""  # was read, and nobody has asked for it yet

    async def read(self, n: int | None = None) -> bytes:
        if not self.ahead and n != 0:
            self.ahead = await super().read(None if n is None else max(n, READ_BYTES))
            if not self.ahead:
                raise ConnectionClosedError("the connection has ended", transport="tcp")
        end = len(self.ahead) if n is None else n
        data, self.ahead = self.ahead[:end], self.ahead[end:]
        return data


class MendedTCP(TCP):  # type: ignore[misc]
    """Mend 7, of what we dial."""

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        raw = await super().dial(maddr)
        return MendedRaw(raw.stream, raw.is_initiator)


class MendedSwarm(Swarm):  # type: ignore[misc]
    """Mend 1. The original waits for the end of the whole swarm while it holds the connection's inbound slot."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.auto_connector = _NoConnector(self)
        self._half_open: dict[RawConnection, tuple[trio.CancelScope, Block]] = {}  # the longest waiting first

    async def _do_handle_inbound_connection(
        self, read_write_closer: ReadWriteCloser, maddr: Multiaddr, failure_event: Any
    ) -> None:
        remote = self._build_remote_multiaddr(read_write_closer)
        raw = MendedRaw(read_write_closer, False)
        try:
            if remote is None or await self.connection_gate.is_allowed(remote):
                muxed = await self._shake_hands(raw, maddr)
                if muxed is not None:
                    await muxed.event_closed.wait()
        except TakenOver:
            pass  # its new owner has a descriptor of its own
        except Exception as error:  # any failure of a stranger's handshake
            log.debug("inbound connection from %s failed: %r", remote, error)
        finally:
            with shielded(CLOSE_S):
                await raw.close()

    async def _shake_hands(self, raw: RawConnection, maddr: Multiaddr) -> IMuxedConn | None:
        """None where too many others came meanwhile. The original lets whoever says nothing hold a slot for 10 s: 30
        silent connections a second kept everybody out. Here the longest waiting one of the most crowded address goes;
        an honest one is done long before it is that."""
        remote = raw.get_remote_address()
        with trio.CancelScope() as scope:
            self._half_open[raw] = scope, block_of(remote[0] if remote else "")
            while len(self._half_open) > MAX_HALF_OPEN:
                blocks = [block for _, block in self._half_open.values()]
                crowded = most_crowded(blocks, among=set(blocks), few=1)
                first = next(each for each, (_, block) in self._half_open.items() if block in crowded)
                self._half_open.pop(first)[0].cancel()
            try:
                return await self.upgrade_inbound_raw_conn(raw, maddr)
            finally:
                self._half_open.pop(raw, None)
        return None

    async def notify_opened_stream(self, stream: INetStream) -> None:
        quicken_stream(stream)
        await super().notify_opened_stream(stream)

    async def _notify(self, method: str, *args: Any) -> None:
        """The original starts a task for each listener and event. None of a host's listeners does anything when a
        stream opens or closes, and there are five, on both sides, for each request."""
        if method not in ("opened_stream", "closed_stream"):
            await super()._notify(method, *args)


class MendedPubsub(Pubsub):  # type: ignore[misc]
    """Mend 2, the reading half. `admit` judges a message before its signature is checked, `deliver` takes the valid
    ones at once (the original queues 32 and drops the rest)."""

    def __init__(
        self,
        *args: Any,
        admit: Callable[[ID, rpc_pb2.Message], bool],
        deliver: Callable[[rpc_pb2.Message], None],
        misbehaved: Callable[[ID], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._admit = admit
        self._deliver = deliver
        self._misbehaved = misbehaved
        self._pending = 0  # messages that were read and wait for their task

    def _is_subscribed_to_msg(self, msg: rpc_pb2.Message) -> bool:
        # Asked for each message just before its task is started. Starting one costs a walk over all tasks: a frame of
        # 1 MiB full of empty messages would stand still for minutes.
        # And of each message as many copies come as there are neighbours.
        wanted = self._pending < MAX_PENDING and super()._is_subscribed_to_msg(msg) and not self._is_msg_seen(msg)
        self._pending += wanted
        return wanted

    async def stream_handler(self, stream: INetStream) -> None:
        peer_id = stream.muxed_conn.peer_id
        try:
            await super().stream_handler(stream)
        except Exception as error:  # bad protobuf, bad record, control for topics that do not exist
            log.info("gossip stream of %s ended: %r", peer_id, error)
            self._misbehaved(peer_id)
            await stream.reset()
            if self.manager.is_running:
                self._handle_dead_peer(peer_id)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        self._pending -= msg_forwarder != self.my_id
        try:
            if self._admit(msg_forwarder, msg):
                await super().push_msg(msg_forwarder, msg)
        except Exception as error:  # a key or an author that cannot be parsed
            log.info("gossip message forwarded by %s dropped: %r", msg_forwarder, error)
            self._misbehaved(msg_forwarder)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        self._deliver(publish_message)


class MendedGossipSub(GossipSub):  # type: ignore[misc]
    """Mend 2, the routing half: control messages about topics that we did not join are dropped before they are
    looked up (KeyError) or remembered (memory), peers recommended by a PRUNE are not dialled, errors stay here."""

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        known = self.pubsub.topic_ids
        control = rpc.control
        fields: tuple[Any, ...] = (control.ihave, control.graft, control.prune)
        for field in fields:
            for index in reversed(range(len(field))):
                if field[index].topicID not in known:
                    del field[index]
        for ihave in control.ihave:
            del ihave.messageIDs[MAX_IHAVE_IDS:]
        for prune in control.prune:
            del prune.peers[:]
        await super().handle_rpc(rpc, sender_peer_id)

    @property
    def heartbeat_interval(self) -> float:
        """The original sleeps for so long: to the beat, as whatever else looks after something in this node."""
        return beats.left(self._interval_s)

    @heartbeat_interval.setter
    def heartbeat_interval(self, seconds: int) -> None:
        self._interval_s = seconds

    async def heartbeat(self) -> None:
        while True:
            try:
                await super().heartbeat()
            except Exception:
                log.exception("gossip heartbeat failed; it goes on")
                await trio.sleep(self.heartbeat_interval)

    def send_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, priority: bool = False) -> None:
        """Mend 10. With each message the original sends its signed record, which the other side verifies each time."""
        rpc.ClearField("senderRecord")
        super().send_rpc(peer_id, rpc, priority)

    async def on_peer_subscribed(self, peer_id: ID, topic: str) -> None:
        try:
            await super().on_peer_subscribed(peer_id, topic)
        except Exception as error:
            log.info("gossip: %s could not be grafted: %r", peer_id, error)

    async def flush_pending_messages(self, peer_id: ID) -> None:
        try:
            await super().flush_pending_messages(peer_id)
        except Exception as error:
            log.info("gossip: nothing sent to %s: %r", peer_id, error)


class MendedHost(BasicHost):  # type: ignore[misc]
    """Mend 10, too: with each message its addresses are asked for, to see whether the record is still right. Where a
    node can be dialled changes seldom, and offers do not go by this."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._told: list[Multiaddr] = []
        self._told_of: tuple[str, ...] = ()
        self._told_until = -math.inf
        super().__init__(*args, **kwargs)  # asks for them

    def get_addrs(self) -> list[Multiaddr]:
        listeners, now = tuple(self._network.listeners), trio.current_time()
        if listeners != self._told_of or now >= self._told_until:
            self._told, self._told_of, self._told_until = super().get_addrs(), listeners, now + ADDRESSES_S
        return list(self._told)


def gossipsub(*, heartbeat_s: int = 1, degree: int = 6, degree_low: int = 4, degree_high: int = 8) -> MendedGossipSub:
    """A router with mend 4 and the settings that were tried: adaptive gossip off; the spam protection off, which counts
    the forwarder and drops in silence (a limit by author stands in gossip.py)."""
    return MendedGossipSub(
        protocols=[PROTOCOL_ID_V11],
        degree=degree,
        degree_low=degree_low,
        degree_high=degree_high,
        heartbeat_interval=heartbeat_s,
        prune_back_off=10,  # s; 60 is for public networks, where it stops peers from cycling through the mesh
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
    )


def guard_streams(handle: StreamHandlerFn, *, limit: int = MAX_STREAMS_PER_PEER) -> StreamHandlerFn:
    """Mend 3: `handle` (negotiation and the protocol's handler) in a wrapper that no stream of a peer gets through."""
    open_streams: Counter[ID] = Counter()

    async def guarded(stream: INetStream) -> None:
        peer_id = stream.muxed_conn.peer_id
        if open_streams[peer_id] >= limit:
            log.info("%s has %d open streams; one more is refused", peer_id, limit)
            await stream.reset()
            return
        open_streams[peer_id] += 1
        try:
            await handle(stream)
        except Exception as error:
            log.info("a stream of %s failed: %r", peer_id, error)
            await stream.reset()
        finally:
            open_streams[peer_id] -= 1
            if not open_streams[peer_id]:
                del open_streams[peer_id]

    return guarded


class _Buffer(bytearray):
    """Unread bytes of one stream. The original warns of a peer that ignores its window, and keeps everything."""

    stream: yamux.YamuxStream

    def extend(self, data: Any) -> None:
        # Twice the window plus one frame: what the window's own bookkeeping may leave outstanding, with room to spare.
        if len(self) + len(data) > 2 * self.stream.target_recv_window + yamux.DEFAULT_WINDOW_SIZE:
            self.clear()
            raise MuxedStreamError("the peer ignores the stream's window")
        super().extend(data)


class _Stream(yamux.YamuxStream):  # type: ignore[misc]
    """Mend 6. The original answers each read of less than half a window with a frame of its own: one for each byte of a
    length, both ways, encrypted. What is held back here is less than half, so the peer never waits for it."""

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        async with self.window_lock:
            buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
            if self.target_recv_window - (self.recv_window + buffered) < self._grow_threshold():
                return
            increment = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
        await self.send_window_update(increment)

    async def reset(self) -> None:
        """Mend 9. The original does nothing where the peer was first. What nobody has read then stays for a minute, a
        window of 256 KiB each, of as many streams as the peer cares to begin; and the event that a reader makes when
        its stream's end wakes it stays for as long as the connection lives."""
        await super().reset()
        self.conn.stream_buffers.get(self.stream_id, bytearray()).clear()
        await self.conn._finalize_stream(self, fully_closed=True)


class _Buffers(dict[int, bytearray]):
    def __init__(self, streams: dict[int, yamux.YamuxStream]) -> None:
        super().__init__()
        self._streams = streams

    def __setitem__(self, stream_id: int, buffer: bytearray) -> None:
        bounded = _Buffer(buffer)
        bounded.stream = self._streams[stream_id]
        bounded.stream.__class__ = _Stream  # libp2p makes them where no class can be named
        quicken_muxed(bounded.stream)
        super().__setitem__(stream_id, bounded)


class MendedYamux(yamux.Yamux):  # type: ignore[misc]
    """Mend 5. Counts the bytes on the wire besides: `sent` and `received` are called with each frame's size."""

    def __init__(self, *args: Any, sent: Callable[[int], None], received: Callable[[int], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stream_buffers = _Buffers(self.streams)
        quicken_muxer(self)
        self._sent = sent
        self._received = received
        self._heard_at = trio.current_time()  # a sign of life: bytes, a ping, or the answer to one
        self._came = 0  # bytes since our last ping

    async def _write_frame(self, data: bytes) -> None:
        if data.startswith(_PONG):
            self._heard_at = trio.current_time()
        async with self._write_lock:
            # Half a frame on the wire would break every other stream: once begun, a frame is written, or the
            # connection is given up.
            with shielded(WRITE_STALL_S) as scope:
                await self.secured_conn.write(data)
            if scope.cancelled_caught:
                await self.give_up()
                raise MuxedStreamError("the peer reads nothing")
            self._sent(len(data))
        await trio.lowlevel.checkpoint_if_cancelled()  # writing gave up the turn

    async def _read_data_body(self, length: int) -> bytes:
        if length > MAX_FRAME_BYTES:
            log.info("%s announces a frame of %d bytes; its connection is closed", self.peer_id, length)
            raise trio.TooSlowError  # the one error at which the original closes the connection
        self._received(length + yamux.HEADER_SIZE)
        self._heard_at = trio.current_time()
        self._came += length
        body: bytes = await super()._read_data_body(length)
        return body

    async def open_stream(self) -> yamux.YamuxStream:
        if self.stream_backlog_semaphore.value == 0:
            raise MuxedStreamError("256 streams to this peer are open already")
        # The original leaks the stream and its slot when it is cancelled while it announces the stream.
        with trio.CancelScope(shield=True):
            return await super().open_stream()

    async def _measure_rtt_loop(self) -> None:
        """The original's pings, and the consequence that it does not draw: no answer, no connection. Who is heard of is
        not asked, unless much comes, for credit grows by the measured round trip. Who has dialled asks a beat before
        the other side would, so that one of them is enough."""
        await trio.sleep(PING_FIRST_S)
        patience_s = PING_PERIOD_S if self.is_initiator_value else PING_PERIOD_S + beats.BEAT_S
        while not self.event_shutting_down.is_set():
            silent_s = trio.current_time() - self._heard_at
            if not self._ping_id or silent_s > PING_PERIOD_S - beats.BEAT_S or self._came >= yamux.DEFAULT_WINDOW_SIZE:
                self._came = 0
                if not await self._answers():
                    return
            with trio.move_on_after(beats.left(self._heard_at + patience_s - trio.current_time())):
                await self.event_shutting_down.wait()

    async def _answers(self) -> bool:
        """Whether the peer answers a ping; else its connection is given up."""
        self._ping_id += 1
        self._ping_event = trio.Event()
        frame = struct.pack(
            yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_SYN, 0, self._ping_id & 0xFFFFFFFF
        )
        try:
            await self._write_frame(frame)
        except Exception:  # the connection is going down; whoever reads it says so
            return False
        self._ping_sent_time = trio.current_time()
        with trio.move_on_after(PING_ANSWER_S) as scope:
            await self._ping_event.wait()
            self._heard_at = trio.current_time()
        if scope.cancelled_caught:
            log.info("%s answers no ping; its connection is closed", self.peer_id)
            await self.give_up()
        return not scope.cancelled_caught

    async def give_up(self) -> None:
        """Close the socket under the muxer; its reader notices and cleans up as after a lost connection."""
        with shielded(CLOSE_S):
            await self.secured_conn.close()


class TakenOver(Exception):
    """An inbound connection became something else than a multiplexed one: the swarm lets go of it."""


class _Direct:
    """What the choice of a multiplexer makes of a connection whose dialler wants the socket for itself."""

    def __init__(self, conn: ISecureConn, peer_id: ID) -> None: ...


class MendedUpgrader(TransportUpgrader):  # type: ignore[misc]
    """Makes `MendedYamux`: the original's multiplexer choice has its own class wired in. Inbound connections that ask
    for `direct` in the place of a multiplexer go to `take_over` (direct.py)."""

    def __init__(
        self,
        *args: Any,
        sent: Callable[[int], None],
        received: Callable[[int], None],
        direct: TProtocol,
        take_over: Callable[[ISecureConn, ID], Awaitable[None]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._count = {"sent": sent, "received": received}
        self._take_over = take_over
        self.muxer_multistream.add_transport(direct, _Direct)

    async def upgrade_security(
        self, raw_conn: IRawConnection, is_initiator: bool, peer_id: ID | None = None
    ) -> ISecureConn:
        quicken_socket(raw_conn)
        return await super().upgrade_security(raw_conn, is_initiator, peer_id)

    async def upgrade_connection(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        plain = await super().upgrade_connection(conn, peer_id)  # negotiates; the object is not started yet
        if isinstance(plain, _Direct):
            if conn.is_initiator:  # we dialled for a multiplexer, and the other side has none
                raise MuxerUpgradeFailure("no multiplexer in common")
            await self._take_over(conn, peer_id)
            raise TakenOver
        mended = MendedYamux(conn, peer_id, is_initiator=plain.is_initiator, **self._count)
        return self.muxer_multistream._annotate_connection(mended, conn, yamux.PROTOCOL_ID)
