"""Many bytes: over direct sockets, from several sources, going on where a killed transfer was, and only what is not
here already."""

from __future__ import annotations

import random
import signal
import sys
import threading
from pathlib import Path

import msgspec
import pytest
import trio
from blake3 import blake3

from fakes.exchanges import everybody, exchanges, fetch, leftovers
from fakes.peers import TOPIC, peer, peers, proxy, until
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh.ids import blob_id
from tallymesh_node.blobs import BlobExchange, BlobStore, open_blobs, transfer, writer
from tallymesh_node.blobs.disk import CHUNK_BYTES
from tallymesh_node.blobs.serving import Header, protocol_name
from tallymesh_node.blobs.writer import BlobWriter
from tallymesh_node.network.direct import DirectSocket
from tallymesh_node.network.requests import encode_answer
from tallymesh_node.network.wire import Wire

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch
BIG = random.Random(8).randbytes(6 * CHUNK_BYTES + 54_321)
HASHES = [blake3(BIG[at : at + CHUNK_BYTES]).digest() for at in range(0, len(BIG), CHUNK_BYTES)]
NEVER = 1 << 60
BOTH_WAYS = pytest.mark.parametrize("way", ["direct", "stream"])


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: Patch) -> None:
    monkeypatch.setattr(transfer, "PAUSE_S", 0.01)


def choose(monkeypatch: Patch, way: str) -> None:
    monkeypatch.setattr(transfer, "DIRECT_BYTES", 1 if way == "direct" else NEVER)


async def test_many_bytes_go_beside_libp2p_where_the_source_can_be_dialled(tmp_path: Path, monkeypatch: Patch) -> None:
    begun: list[int] = []
    monkeypatch.setattr(writer, "BEGIN_BYTES", 2 * CHUNK_BYTES)
    monkeypatch.setattr(writer, "begin_writing", begun.append)
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(BIG)
        await fetch(taker, blob, networks[0].source)
        assert taker.get(blob) == BIG
        assert networks[1].counters.blob_bytes_received == networks[0].counters.blob_bytes_sent == len(BIG)
        assert networks[1].counters.bytes_received < 2 * CHUNK_BYTES  # multiplexed: the first chunk alone
        assert not leftovers(taker)
        assert len(begun) == 3  # the disk works while more arrives
        await until(lambda: not networks[0]._direct._accepted, 60)


async def test_source_that_gives_no_direct_socket_is_taken_from_over_its_stream_and_not_asked_again(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    asked: list[str] = []

    async def closed(source: Source) -> DirectSocket:
        asked.append(source.peer_id)
        raise RemoteError("unreachable", "closed", peer=source.peer_id)

    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        monkeypatch.setattr(networks[1], "open_direct", closed)
        for data in (BIG, BIG[::-1]):
            blob = giver.put(data)
            await fetch(taker, blob, networks[0].source)
            assert taker.get(blob) == data
        assert asked == [networks[0].peer_id]


async def test_who_gave_no_direct_socket_is_asked_again_after_a_while_and_few_are_remembered(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    asked: list[str] = []

    async def closed(source: Source) -> DirectSocket:
        asked.append(source.peer_id)
        raise RemoteError("unreachable", "closed", peer=source.peer_id)

    async with peer() as network, exchanges([network], tmp_path) as (mine,):
        monkeypatch.setattr(network, "open_direct", closed)
        monkeypatch.setattr(transfer, "MAX_NO_DIRECT", 2)
        one, two, three = (transfer._Offer(Source(peer_id=name), b"") for name in ("one", "two", "three"))
        for offer in (one, one, two, three, three, one):  # the third makes the first forgotten
            assert await mine._open_direct(offer) is None
        assert asked == ["one", "two", "three", "one"]
        monkeypatch.setattr(transfer, "NO_DIRECT_S", 0.0)
        mine._no_direct.clear()
        for _ in range(2):
            assert await mine._open_direct(two) is None
        assert asked[4:] == ["two", "two"]


async def test_list_that_changes_on_the_direct_socket_is_a_lie(tmp_path: Path, monkeypatch: Patch) -> None:
    lists = [HASHES, [HASHES[0], *[bytes(32)] * 6]]
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(BIG)
        monkeypatch.setattr(giver.store, "chunk_hashes", lambda blob: lists.pop(0))
        with pytest.raises(RemoteError) as error:
            await fetch(taker, blob, networks[0].source)
        assert "changed its list" in error.value.sentence


async def test_ticket_decides_on_a_direct_socket_too(tmp_path: Path) -> None:
    def only_the_first_time(peer_id: str, blob: bytes, ticket: bytes) -> bool:
        asked.append(blob)
        return len(asked) == 1

    asked: list[bytes] = []
    async with peers(2) as networks, exchanges(networks, tmp_path, only_the_first_time) as (giver, taker):
        blob = giver.put(BIG)
        with pytest.raises(RemoteError) as error:
            await fetch(taker, blob, networks[0].source)
        assert "does not give a right" in error.value.sentence
        assert networks[0].counters.blob_bytes_sent == CHUNK_BYTES


@BOTH_WAYS
async def test_cut_sends_at_most_one_chunk_again(tmp_path: Path, monkeypatch: Patch, way: str) -> None:
    choose(monkeypatch, way)
    async with (
        peer() as server,
        proxy(server) as between,
        peer() as client,
        exchanges([server, client], tmp_path) as (giver, taker),
    ):
        blob = giver.put(BIG)
        between.cut_after = len(BIG) // 2
        await fetch(taker, blob, between.source(server))
        assert taker.get(blob) == BIG
        assert between.cuts == 1
        assert client.counters.blob_bytes_received == len(BIG)  # no chunk was taken twice
        assert server.counters.blob_bytes_sent <= len(BIG) + CHUNK_BYTES


@BOTH_WAYS
async def test_transfer_that_was_given_up_goes_on_where_it_was_also_after_a_restart(
    tmp_path: Path, monkeypatch: Patch, way: str
) -> None:
    choose(monkeypatch, way)
    async with peers(2) as networks, trio.open_nursery() as nursery:
        giver = BlobStore(tmp_path / "giver")
        blob = giver.put(BIG)
        BlobExchange(networks[0], giver, everybody, nursery)
        with trio.CancelScope() as given_up:
            token = trio.lowlevel.current_trio_token()
            plain = BlobWriter.write

            def write(writer: BlobWriter, offset: int, data: bytes) -> None:
                plain(writer, offset, data)
                if offset == 3 * CHUNK_BYTES:
                    trio.from_thread.run_sync(given_up.cancel, trio_token=token)

            monkeypatch.setattr(BlobWriter, "write", write)
            async with open_blobs(networks[1], BlobStore(tmp_path / "taker"), everybody) as taker:
                await fetch(taker, blob, networks[0].source)
        monkeypatch.setattr(BlobWriter, "write", plain)
        networks[1]._router._ours.clear()  # a new process
        networks[1]._direct.serve = None
        again = BlobExchange(networks[1], BlobStore(tmp_path / "taker"), everybody, nursery)
        assert again.store.bytes_used >= 4 * CHUNK_BYTES
        await fetch(again, blob, networks[0].source)
        assert again.get(blob) == BIG
        assert networks[0].counters.blob_bytes_sent <= len(BIG) + CHUNK_BYTES
        nursery.cancel_scope.cancel()


TAKER = f"""
import json, os, signal, sys
from pathlib import Path
import trio
from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh_node.blobs import BlobStore, open_blobs
from tallymesh_node.blobs.disk import CHUNK_BYTES
from tallymesh_node.blobs.writer import BlobWriter
from tallymesh_node.network import Verdict, open_network
from tallymesh_node.network.keys import generate

plain = BlobWriter.write
def write(writer, offset, data):
    plain(writer, offset, data)
    if offset == 3 * CHUNK_BYTES:
        os.kill(os.getpid(), signal.SIGKILL)
BlobWriter.write = write

async def main(folder, peer, blob, *addresses):
    accept = lambda *ignored: Verdict.ACCEPT
    async with open_network(generate(), {TOPIC!r}, validator=accept) as network:
        async with open_blobs(network, BlobStore(Path(folder)), lambda *ignored: True) as blobs:
            source = Source(peer_id=peer, addresses=addresses)
            await blobs.fetch(BlobId(bytes.fromhex(blob)), [source], ticket=b"", timeout_s=300)

trio.run(main, *sys.argv[1:])
"""


@pytest.mark.end_to_end
async def test_killed_taker_has_at_most_one_chunk_sent_again(tmp_path: Path) -> None:
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, _):
        blob = giver.put(BIG)
        folder = tmp_path / "killed"
        arguments = [str(folder), networks[0].peer_id, blob.hex(), *networks[0].addresses]
        command = [sys.executable, "-W", "ignore", "-c", TAKER, *arguments]
        done = await trio.run_process(command, check=False, capture_stdout=True)
        assert done.returncode == -signal.SIGKILL
        async with peer() as mine, open_blobs(mine, BlobStore(folder), everybody) as taker:
            await fetch(taker, blob, networks[0].source)
            assert taker.get(blob) == BIG
            assert mine.counters.blob_bytes_received == len(BIG) - 4 * CHUNK_BYTES
        assert networks[0].counters.blob_bytes_sent <= len(BIG) + CHUNK_BYTES


async def test_what_was_kept_and_changed_since_is_fetched_anew(tmp_path: Path) -> None:
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(BIG)
        writer = taker.store.writer(blob, len(BIG), resume=True)
        writer.write(0, BIG[: 2 * CHUNK_BYTES])
        writer.write(CHUNK_BYTES + 7, b"changed")
        writer.keep()
        await fetch(taker, blob, networks[0].source)
        assert taker.get(blob) == BIG
        assert networks[1].counters.blob_bytes_received == len(BIG) - CHUNK_BYTES


# -- beside it


@BOTH_WAYS
async def test_requests_are_answered_while_a_transfer_is_held_up_in_the_middle_of_a_chunk(
    tmp_path: Path, monkeypatch: Patch, way: str
) -> None:
    """Whatever fills or blocks the way of the bytes: nothing else waits for it, in either direction."""
    choose(monkeypatch, way)
    go_on = threading.Event()
    plain = BlobWriter.write

    def write(writer: BlobWriter, offset: int, data: bytes) -> None:
        if offset == 2 * CHUNK_BYTES:
            assert go_on.wait(300)
        plain(writer, offset, data)

    async def echo(caller: str, body: bytes) -> bytes:
        return body

    monkeypatch.setattr(BlobWriter, "write", write)
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker), trio.open_nursery() as nursery:
        for network in networks:
            network.serve("echo", echo)
        blob = giver.put(BIG)
        nursery.start_soon(fetch, taker, blob, networks[0].source)
        counters = networks[1].counters
        await until(lambda: counters.blob_bytes_received == 2 * CHUNK_BYTES, 120)
        for number in range(50):
            body = bytes([number]) * 300
            assert await networks[1].request(networks[0].source, "echo", body, timeout_s=120) == body
            assert await networks[0].request(networks[1].source, "echo", body, timeout_s=120) == body
        assert counters.blob_bytes_received == 2 * CHUNK_BYTES, "not one chunk has gone on meanwhile"
        assert not taker.has(blob)
        go_on.set()
        await until(lambda: taker.has(blob), 120)
        assert taker.get(blob) == BIG


# -- what is here already


async def test_only_the_chunks_that_no_blob_has_are_fetched(tmp_path: Path) -> None:
    other = BIG[: 2 * CHUNK_BYTES] + bytes(CHUNK_BYTES) + BIG[3 * CHUNK_BYTES :]
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(BIG)
        taker.put(BIG[5 * CHUNK_BYTES : 6 * CHUNK_BYTES])  # a blob that is a chunk of it
        await fetch(taker, giver.put(other), networks[0].source)
        before, sent = networks[1].counters.blob_bytes_received, networks[0].counters.blob_bytes_sent
        await fetch(taker, blob, networks[0].source)
        assert taker.get(blob) == BIG
        assert networks[1].counters.blob_bytes_received - before == CHUNK_BYTES
        assert networks[0].counters.blob_bytes_sent - sent == 2 * CHUNK_BYTES  # the first comes with the list
        assert networks[1].counters.blob_bytes_found == len(BIG) - CHUNK_BYTES + CHUNK_BYTES


async def test_chunk_of_another_blob_that_the_disk_changed_is_fetched(tmp_path: Path) -> None:
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        first = taker.put(BIG + b"more")
        taker.store.chunk_hashes(first)
        path = taker.store.path(first)
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(2 * CHUNK_BYTES)
            file.write(b"changed")
        blob = giver.put(BIG)
        await fetch(taker, blob, networks[0].source)
        assert taker.get(blob) == BIG


# -- several sources


async def stalls(network: object, blob: bytes, size: int, hashes: list[bytes], end: trio.Event) -> Source:
    """A source that says what it has, and gives nothing."""

    async def answer(wire: Wire) -> None:
        await wire.read_frame(10_000)
        await wire.send_frame(encode_answer(msgspec.msgpack.encode(Header(size, hashes))))
        await end.wait()

    network.serve_streams(protocol_name(network.topic), answer)  # type: ignore[attr-defined]
    return network.source  # type: ignore[attr-defined, no-any-return]


@BOTH_WAYS
async def test_sources_that_give_do_not_wait_for_one_that_stalls(tmp_path: Path, monkeypatch: Patch, way: str) -> None:
    choose(monkeypatch, way)
    monkeypatch.setattr(transfer, "PARALLEL_BYTES", 1)
    end = trio.Event()
    async with peers(4) as (slow, *networks), exchanges(networks, tmp_path) as (one, two, taker):
        blob = one.put(BIG)
        two.put(BIG)
        sources = [await stalls(slow, blob, len(BIG), HASHES, end), networks[0].source, networks[1].source]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, taker, blob, *sources)
            counters = networks[2].counters
            await until(lambda: counters.blob_bytes_received == len(BIG) - CHUNK_BYTES, 120)
            assert not taker.has(blob)
            end.set()
        assert taker.get(blob) == BIG
        assert counters.blob_bytes_received == len(BIG)


async def test_no_more_sources_are_taken_from_at_once_than_one_blob_may_have(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(transfer, "PARALLEL_BYTES", 1)
    monkeypatch.setattr(transfer, "PARALLEL", 2)
    end = trio.Event()
    async with peers(4) as (one, two, three, mine), exchanges([mine], tmp_path) as (taker,):
        blob = blob_id(BIG)
        sources = [await stalls(network, blob, len(BIG), HASHES, end) for network in (one, two, three)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, taker, blob, *sources)
            await until(lambda: any(t.tasks > 1 for t in taker._transfers.values()), 120)  # all begin at one moment
            (found,) = taker._transfers.values()
            assert found.tasks == 2
            nursery.cancel_scope.cancel()


async def test_list_that_another_source_contradicts_is_judged_by_the_whole(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(transfer, "PARALLEL_BYTES", 1)
    false = [HASHES[0], *[blake3(bytes(CHUNK_BYTES)).digest()] * 5, HASHES[6]]
    end = trio.Event()
    async with peers(3) as (liar, *networks), exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(BIG)
        source = await stalls(liar, blob, len(BIG), false, end)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, taker, blob, source, networks[0].source)
            await until(lambda: any(o.aside for t in taker._transfers.values() for o in t.offers), 120)
            end.set()  # the liar ends its stream, each time that it is asked
        assert taker.get(blob) == BIG
