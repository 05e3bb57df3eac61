"""Noise against real nodes: each kind is an endless function against one port, at a bounded pace, so that it costs this
machine less than the node that it is made against. `pace` makes all of it slower or faster. Some seconds of it are a
test, and `scripts/noise` makes it for hours."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import psutil
import trio
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from hostile.inputs import NASTY
from tallymesh.errors import TallymeshError
from tallymesh.exchange import Source
from tallymesh_node.local_network import NodeProcess
from tallymesh_node.network import Verdict, open_network
from tallymesh_node.network.keys import generate, parse_peer_id
from tallymesh_node.network.mends import MendedTCP

HELD = 40  # silent or slow connections held at a time, of each kind
HOLD_S = 20.0  # each; libp2p gives a handshake 10 s, the HTTP door a minute
CROWD_PER_S = 10.0  # whole handshakes, each under a key of its own; a node closes those that answer no ping after 10 s
FLOOD_PER_S = 20.0  # connections opened and closed
ASKS_PER_S = 20.0  # forged requests of one stranger
OFFERS_PER_S = 20.0
STRANGER_S = 30.0  # then it comes back with another key
NAMES = ("lease", "assign", "receipt", "tally", "audit", "claim_unit", "court_unit", "where", "carry", "dialback", "no")

Noise = Callable[[random.Random, Counter[str]], Awaitable[None]]


async def _connect(port: int) -> trio.SocketStream:
    with trio.fail_after(10):
        return await trio.open_tcp_stream("127.0.0.1", port)


def holding(port: int, first: bytes, drop: bytes, name: str, pace: float) -> Noise:
    """Connections that say `first`, then `drop` byte by byte, a byte a second, and end after a while."""

    async def one(counts: Counter[str]) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError):
            async with await _connect(port) as line:
                counts[name] += 1
                await line.send_all(first)
                with trio.move_on_after(HOLD_S):
                    for at in range(10**6):
                        if drop:
                            await line.send_all(drop[at % len(drop) : at % len(drop) + 1])
                        await trio.sleep(1)

    async def noise(dice: random.Random, counts: Counter[str]) -> None:
        async with trio.open_nursery() as nursery:
            slots = trio.CapacityLimiter(HELD)

            async def held() -> None:
                async with slots:
                    await one(counts)

            while True:
                if slots.statistics().tasks_waiting == 0:
                    nursery.start_soon(held)
                await trio.sleep(dice.uniform(0.05, 0.3) / pace)

    return noise


def flood(port: int, name: str, heads: tuple[bytes, ...], pace: float) -> Noise:
    """Connections that say something wrong, or nothing, and go at once."""

    async def noise(dice: random.Random, counts: Counter[str]) -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError, trio.TooSlowError):
                async with await _connect(port) as line:
                    counts[name] += 1
                    kind = dice.randrange(4)
                    if kind == 0:
                        await line.send_all(dice.randbytes(dice.randrange(1, 4000)))
                    elif kind == 1:
                        await line.send_all(dice.choice(heads) + dice.choice(NASTY))
                    elif kind == 2:
                        await line.send_all(dice.choice(heads))
                        with trio.move_on_after(0.2):
                            await line.receive_some(4096)
            await trio.sleep(1 / FLOOD_PER_S / pace)

    return noise


def crowd(target: Source, name: str, pace: float) -> Noise:
    """Connections whose handshake is done as it should be, each under a key that nobody knows; then they hold their
    place and say nothing."""
    peer_id = parse_peer_id(target.peer_id)
    address = Multiaddr(f"{target.addresses[0]}/p2p/{target.peer_id}")

    async def one(counts: Counter[str]) -> None:
        security = NoiseTransport(generate().pair, noise_privkey=new_x25519_key_pair().private_key)
        upgrader = TransportUpgrader({NOISE: security}, {TProtocol(YAMUX): Yamux})
        with suppress(BaseLibp2pError, OSError, EOFError, ValueError), trio.move_on_after(HOLD_S):
            raw = await MendedTCP().dial(address)
            try:
                secure = await upgrader.upgrade_security(raw, True, peer_id)
                await MultiselectClient().select_one_of([TProtocol(YAMUX)], MultiselectCommunicator(secure))
                counts[name] += 1
                while await secure.read(4096):  # until it is closed
                    pass
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                    await raw.close()

    async def noise(dice: random.Random, counts: Counter[str]) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(one, counts)
                await trio.sleep(1 / CROWD_PER_S / pace)

    return noise


def stranger(topic: str, target: Source, names: tuple[str, ...], pace: float) -> Noise:
    """A real peer of libp2p under a new key each time: forged offers on the topic, nonsense in requests, and streams
    that are opened and left."""

    async def one(dice: random.Random, counts: Counter[str]) -> None:
        accept = lambda author, data, neighbour: Verdict.ACCEPT  # noqa: E731 - its own validator, which lets all pass
        bootstrap = [f"{address}/p2p/{target.peer_id}" for address in target.addresses]
        async with open_network(generate(), topic, bootstrap=bootstrap, validator=accept) as peer:

            async def ask() -> None:
                while True:
                    with suppress(TallymeshError):
                        counts["requests"] += 1
                        await peer.request(target, dice.choice(names), dice.choice(NASTY), timeout_s=5)
                    await trio.sleep(1 / ASKS_PER_S / pace)

            async def offer() -> None:
                while True:
                    with suppress(TallymeshError):
                        counts["offers"] += 1
                        await peer.gossip.publish(dice.choice(NASTY) + dice.randbytes(8))
                    await trio.sleep(1 / OFFERS_PER_S / pace)

            async def leave_open() -> None:
                while True:
                    with suppress(TallymeshError):
                        counts["streams"] += 1
                        wire = await peer.open_wire(target, f"/{topic}/request/1", b"half")
                        await trio.sleep(dice.uniform(0.1, 3))
                        await wire.abort()
                    await trio.sleep(0.2 / pace)

            with trio.move_on_after(STRANGER_S):
                async with trio.open_nursery() as nursery:
                    for work in (ask, offer, leave_open):
                        nursery.start_soon(work)

    async def noise(dice: random.Random, counts: Counter[str]) -> None:
        while True:
            counts["strangers"] += 1
            with suppress(TallymeshError):
                await one(dice, counts)
            await trio.sleep(0.5)

    return noise


def figures(node: NodeProcess) -> dict[str, float]:
    """Memory, descriptors, tasks of a node's own process."""
    url, token = node.api or ("", "")
    process = psutil.Process(node.pid)
    metrics = httpx.get(
        url + "/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
    ).text
    tasks = next(line for line in metrics.splitlines() if line.startswith("tallymesh_tasks "))
    return {
        "memory_mib": process.memory_info().rss / 2**20,
        "files": float(process.num_fds()),
        "tasks": float(tasks.split()[1]),
        "cpu_s": sum(process.cpu_times()[:2]),
    }


def ports(node: NodeProcess) -> tuple[int, int, Source]:
    view = node.get("/v1/node")
    api = node.api
    assert api is not None
    http = urlsplit(api[0]).port
    assert http is not None
    listen = int(view["addresses"][0].split("/tcp/")[1].split("/")[0])
    return listen, http, Source(view["peer_id"], tuple(view["addresses"]))


def make(topic: str, target: NodeProcess, payer: NodeProcess, pace: float) -> list[Noise]:
    """All kinds against the target's libp2p port and API, and the payer's API."""
    listen, http, source = ports(target)
    _, payer_http, _ = ports(payer)
    hello = b"\x13/multistream/1.0.0\n"
    head = b"GET /v1/node HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    made: list[Noise] = [
        holding(listen, b"", b"", "libp2p silent", pace),
        holding(listen, hello, b"\x07/noise\n", "libp2p slow", pace),
        flood(listen, "libp2p flood", (hello, hello + b"\x07/noise\n"), pace),
        crowd(source, "libp2p crowd", pace),
        stranger(topic, source, NAMES, pace),
    ]
    for port in (http, payer_http):
        made += [
            holding(port, b"", b"", "http silent", pace),
            holding(port, head, b"X: y\r\n", "http slow", pace),
            flood(
                port,
                "http flood",
                (head, head + b"\r\n", b"POST /v1/blobs HTTP/1.1\r\nContent-Length: 9\r\n\r\n"),
                pace,
            ),
        ]
    return made
