"""One side of `bench transfer`, a process of its own: `give FOLDER WAY MIB` or `take FOLDER WAY WHERE`. Two blobs: one
alone, for speed and CPU; one beside small requests, for what these take meanwhile."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

import trio

from benches.probes import MEBIBYTE, quantile
from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh_node.blobs import BlobExchange, BlobStore, open_blobs, transfer
from tallymesh_node.network import Libp2pNetwork, Verdict, open_network
from tallymesh_node.network.keys import generate

TOPIC = "tallymesh/bench/1/00000000"
REQUESTS_BEFORE = 200
PATIENCE_S = 600.0
PAUSE_S = 0.005  # between two requests while the bytes move


async def give(network: Libp2pNetwork, blobs: BlobExchange, size_mib: int) -> None:
    names = [blobs.put(os.urandom(size_mib * MEBIBYTE)).hex() for _ in range(2)]
    await blobs.sync()
    where = {"peer": network.peer_id, "addresses": list(network.addresses), "blobs": names, "mib": size_mib}
    before = time.process_time()
    print(json.dumps(where), flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)  # the first one is there
    print(json.dumps({"giver_cpu_s": time.process_time() - before}), flush=True)
    await trio.to_thread.run_sync(sys.stdin.read)


async def take(network: Libp2pNetwork, blobs: BlobExchange, said: str) -> None:
    where = json.loads(said)
    source = Source(peer_id=where["peer"], addresses=tuple(where["addresses"]))
    first, second = (BlobId(bytes.fromhex(name)) for name in where["blobs"])
    idle: list[float] = []
    meanwhile: list[float] = []
    await network.connections.connect(source)
    cpu, began = time.process_time(), time.perf_counter()
    await blobs.fetch(first, [source], ticket=b"", timeout_s=PATIENCE_S)
    fetched = time.perf_counter() - began
    await blobs.sync()
    took = time.perf_counter() - began
    cpu = time.process_time() - cpu
    print(json.dumps({"mib_per_s": where["mib"] / took, "fetched_mib_per_s": where["mib"] / fetched}), flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)
    for _ in range(REQUESTS_BEFORE):
        idle.append(await _request_s(network, source))

    async def ask() -> None:
        while True:
            meanwhile.append(await _request_s(network, source))
            await trio.sleep(PAUSE_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await blobs.fetch(second, [source], ticket=b"", timeout_s=PATIENCE_S)
        nursery.cancel_scope.cancel()
    meanwhile = meanwhile or idle
    print(
        json.dumps(
            {
                "taker_cpu_s": cpu,
                "request_idle_p50_ms": 1000 * statistics.median(idle),
                "request_p50_ms": 1000 * statistics.median(meanwhile),
                "request_p99_ms": 1000 * quantile(meanwhile, 0.99),
            }
        )
    )


async def _request_s(network: Libp2pNetwork, source: Source) -> float:
    began = time.perf_counter()
    await network.request(source, "echo", b"x" * 300, timeout_s=60)
    return time.perf_counter() - began


async def echo(peer: str, body: bytes) -> bytes:
    return body


async def main(side: str, folder: str, way: str, what: str) -> None:
    def accept(author: str, data: bytes, neighbour: str) -> Verdict:
        return Verdict.ACCEPT

    if way == "stream":
        transfer.DIRECT_BYTES = 1 << 60
    async with open_network(generate(), TOPIC, validator=accept) as network:
        network.serve("echo", echo)
        async with open_blobs(network, BlobStore(Path(folder)), lambda peer, blob, ticket: True) as blobs:
            await (give(network, blobs, int(what)) if side == "give" else take(network, blobs, what))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
