"""Real libp2p hosts on loopback, several in one process, for tests of the network and of what stands on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from libp2p.network.connection import swarm_connection
from libp2p.stream_muxer.yamux import yamux

from tallymesh.exchange import Source
from tallymesh_node.network import Libp2pNetwork, PeerKey, Verdict, connections, mends, open_network
from tallymesh_node.network.keys import generate

TOPIC = "tallymesh/test/1/abcdef01"
PATIENCE_S = 120.0  # for what takes milliseconds


def accept_all(author: str, data: bytes, neighbour: str) -> Verdict:
    return Verdict.ACCEPT


def address_of(network: Libp2pNetwork) -> str:
    return f"{network.addresses[0]}/p2p/{network.peer_id}"


async def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait for what another task will bring about. The deadline ends a hang; no loaded machine should meet it."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - any condition, not one event
            await trio.sleep(0.01)


class _Impatient:
    """trio, with the pauses in which libp2p waits for nothing left out."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(0 if seconds == 0.1 else seconds)


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (yamux, swarm_connection):
        monkeypatch.setattr(module, "trio", _Impatient())


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses in libp2p, and no deadline of a host that a loaded machine could miss."""
    hasten(monkeypatch)
    monkeypatch.setattr(connections, "DIAL_S", PATIENCE_S)
    monkeypatch.setattr(mends, "PING_ANSWER_S", PATIENCE_S)


async def echo(peer_id: str, body: bytes) -> bytes:
    return body


@asynccontextmanager
async def peer(*bootstrap: str, key: PeerKey | None = None, **options: Any) -> AsyncIterator[Libp2pNetwork]:
    settings: dict[str, Any] = {"validator": accept_all, **options}
    async with open_network(key or generate(), TOPIC, bootstrap=bootstrap, **settings) as network:
        yield network


@asynccontextmanager
async def peers(count: int, **options: Any) -> AsyncIterator[Sequence[Libp2pNetwork]]:
    """`count` hosts; all but the first know the first as their bootstrap peer and have joined."""
    found: list[Libp2pNetwork] = []
    end = trio.Event()

    async def run(*bootstrap: str, task_status: trio.TaskStatus[None]) -> None:
        async with peer(*bootstrap, **options) as network:
            found.append(network)
            task_status.started()
            await end.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        for _ in range(count - 1):
            await nursery.start(run, address_of(found[0]))
        with trio.fail_after(120):
            for network in found[1:]:
                await network.connections.wait_joined()
        yield found
        end.set()


class Proxy:
    """A TCP forwarder in front of a host: what a network does to a connection. It counts what the host sends."""

    def __init__(self) -> None:
        self.port = 0
        self.sent = 0  # bytes from the host to its callers
        self.cut_after: int | None = None  # break all connections when so many more bytes were sent
        self.cuts = 0
        self._flowing = trio.Event()
        self._flowing.set()
        self._open: set[trio.SocketStream] = set()

    def source(self, network: Libp2pNetwork) -> Source:
        return Source(peer_id=network.peer_id, addresses=(f"/ip4/127.0.0.1/tcp/{self.port}",))

    def freeze(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._flowing = trio.Event()

    def thaw(self) -> None:
        self._flowing.set()

    async def cut(self) -> None:
        self.cuts += 1
        for stream in list(self._open):
            await stream.aclose()

    async def run(self, target: Libp2pNetwork, *, task_status: trio.TaskStatus[None]) -> None:
        to = int(target.addresses[0].rsplit("/", 1)[1])

        async def pump(source: trio.SocketStream, sink: trio.SocketStream, *, counted: bool) -> None:
            try:
                while data := await source.receive_some(65_536):
                    await self._flowing.wait()
                    await sink.send_all(data)
                    if not counted:
                        continue
                    self.sent += len(data)
                    if self.cut_after is not None:
                        self.cut_after -= len(data)
                        if self.cut_after <= 0:
                            self.cut_after = None
                            await self.cut()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            await source.aclose()
            await sink.aclose()

        async def handle(inbound: trio.SocketStream) -> None:
            outbound = await trio.open_tcp_stream("127.0.0.1", to)
            self._open |= {inbound, outbound}
            async with inbound, outbound, trio.open_nursery() as nursery:
                nursery.start_soon(lambda: pump(inbound, outbound, counted=False))
                nursery.start_soon(lambda: pump(outbound, inbound, counted=True))
            self._open -= {inbound, outbound}

        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
            listeners = await nursery.start(serve)
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()


@asynccontextmanager
async def proxy(target: Libp2pNetwork) -> AsyncIterator[Proxy]:
    async with trio.open_nursery() as nursery:
        made = Proxy()
        await nursery.start(made.run, target)
        yield made
        nursery.cancel_scope.cancel()
