"""Bar 10: milliseconds of a request and its answer between two nodes, each a process of its own.

A stream of the network that nodes use (libp2p, Noise, yamux) for each request, 300 bytes each way, over a connection
that is open. Beside it the CPU of both sides, requests side by side, and a bare TCP socket between two processes of the
same kind: what the machine and trio take of it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import trio
from bench import Result

from benches import probes
from tallymesh.exchange import Source
from tallymesh_node.network import Verdict, open_network
from tallymesh_node.network.keys import generate

TOPIC = "tallymesh/bench/1/abcdef01"
BODY = bytes(300)
FIRST = 50  # not counted: they fill caches
SIDE_BY_SIDE = 16
REQUEST_S = 60.0


async def main() -> None:
    """The other process: answers until its standard input ends."""

    async def echo(peer: str, body: bytes) -> bytes:
        return body

    async def bare(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async with open_network(generate(), TOPIC, validator=accept) as network, trio.open_nursery() as nursery:
        network.serve("echo", echo)
        (listener,) = await nursery.start(partial(trio.serve_tcp, bare, 0, host="127.0.0.1"))
        said = {
            "peer": network.peer_id,
            "addresses": list(network.addresses),
            "port": listener.socket.getsockname()[1],
        }
        print(json.dumps(said), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


def accept(author: str, data: bytes, neighbour: str) -> Verdict:
    return Verdict.ACCEPT


def run(folder: Path, *, quick: bool) -> Result:
    with _other() as (process, said):
        return trio.run(_measure, psutil.Process(process.pid), said, 500 if quick else 5000)


@contextmanager
def _other() -> Any:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benches.rpc"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


async def _measure(other: psutil.Process, said: dict[str, Any], requests: int) -> Result:
    source = Source(peer_id=said["peer"], addresses=tuple(said["addresses"]))
    async with open_network(generate(), TOPIC, validator=accept) as network:

        async def ask() -> None:
            answer = await network.request(source, "echo", BODY, timeout_s=REQUEST_S)
            assert answer == BODY

        await _each(ask, FIRST)
        mine = psutil.Process()
        cpu = probes.cpu_s(mine), probes.cpu_s(other)
        took = await _each(ask, requests)
        spent = probes.cpu_s(mine) - cpu[0], probes.cpu_s(other) - cpu[1]
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(SIDE_BY_SIDE):
                nursery.start_soon(_each, ask, requests // SIDE_BY_SIDE)
        rate = requests // SIDE_BY_SIDE * SIDE_BY_SIDE / (time.perf_counter() - began)
    bare = await _bare(said["port"], requests)
    return Result(
        1000 * statistics.median(took),
        "ms",
        5.0,
        details={
            "p99_ms": 1000 * probes.quantile(took, 0.99),
            "quickest_ms": 1000 * min(took),
            "asker_cpu_ms": 1000 * spent[0] / requests,
            "answerer_cpu_ms": 1000 * spent[1] / requests,
            "side_by_side": SIDE_BY_SIDE,
            "side_by_side_per_s": rate,
            "bare_tcp_p50_ms": 1000 * statistics.median(bare),
            "requests": requests,
        },
    )


async def _bare(port: int, requests: int) -> list[float]:
    stream = await trio.open_tcp_stream("127.0.0.1", port)

    async def ask() -> None:
        await stream.send_all(BODY)
        got = 0
        while got < len(BODY):
            got += len(await stream.receive_some())

    async with stream:
        await _each(ask, FIRST)
        return await _each(ask, requests)


async def _each(ask: Callable[[], Awaitable[None]], requests: int) -> list[float]:
    seconds = []
    for _ in range(requests):
        began = time.perf_counter()
        await ask()
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    trio.run(main)
