"""Two hosts in two processes: requests, gossip and blobs across a real socket, and a peer that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fakes.peers import PATIENCE_S, peer, until
from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh_node.blobs import BlobStore, open_blobs
from tallymesh_node.network import mends

BLOB_MIB = 64
CHILD = """
import json, os, sys
from pathlib import Path
import trio
from fakes.peers import TOPIC, accept_all
from tallymesh_node.blobs import BlobStore, open_blobs
from tallymesh_node.network import open_network
from tallymesh_node.network.keys import generate

async def echo(peer, body):
    return body

async def main():
    async with open_network(generate(), TOPIC, validator=accept_all) as network:
        network.serve("echo", echo)
        async with open_blobs(network, BlobStore(Path(sys.argv[1])), lambda peer, blob, ticket: True) as blobs:
            blob = blobs.put(os.urandom(int(sys.argv[2])))
            print(json.dumps({"peer": network.peer_id, "addresses": network.addresses, "blob": blob.hex()}), flush=True)
            await network.gossip.wait_for_peer()
            while True:  # as offers are: what is said before both know each other's topics reaches nobody
                await network.gossip.publish(b"an offer of another process")
                await trio.sleep(1)

trio.run(main)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[Source, BlobId, subprocess.Popen[str]]]:
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "theirs"), str(BLOB_MIB * 1024 * 1024)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    source = Source(peer_id=said["peer"], addresses=tuple(said["addresses"]))
    try:
        yield source, BlobId(bytes.fromhex(said["blob"])), process
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        process.stdout.close()


@pytest.mark.end_to_end
async def test_requests_gossip_and_blobs_cross_processes_and_a_killed_peer_is_noticed(
    tmp_path: Path,
    other: tuple[Source, BlobId, subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, blob, process = other
    async with peer() as mine, open_blobs(mine, BlobStore(tmp_path / "mine"), accept_nobody) as blobs:
        await mine.connections.connect(source)
        with trio.fail_after(PATIENCE_S):
            assert await mine.gossip.receive() == (source.peer_id, b"an offer of another process")

        seconds = []
        for _ in range(500):
            begun = time.perf_counter()
            assert await mine.request(source, "echo", b"x" * 300, timeout_s=PATIENCE_S) == b"x" * 300
            seconds.append(time.perf_counter() - begun)
        seconds.sort()

        begun = time.perf_counter()
        await blobs.fetch(blob, [source], ticket=b"", timeout_s=PATIENCE_S)
        took = time.perf_counter() - begun
        assert blobs.store.size(blob) == BLOB_MIB * 1024 * 1024
        with capsys.disabled():
            print(
                f"\nrequest p50 {seconds[250] * 1e3:.2f} ms, p99 {seconds[494] * 1e3:.2f} ms; "
                f"blob {BLOB_MIB / took:.0f} MiB/s"
            )

        # By the end of its connection alone: nobody asks it any more whether it lives.
        monkeypatch.setattr(mends, "PING_PERIOD_S", 10 * PATIENCE_S)
        monkeypatch.setattr(mends, "PING_ANSWER_S", 10 * PATIENCE_S)
        process.send_signal(signal.SIGKILL)
        await until(lambda: not mine.peers)


def accept_nobody(peer_id: str, blob: BlobId, ticket: bytes) -> bool:
    return False
