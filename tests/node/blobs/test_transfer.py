"""Blobs between hosts: whole, verified, resumed, from whoever is honest, to whoever may have them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from blake3 import blake3

from fakes.exchanges import TICKET, everybody, exchanges, fetch, leftovers
from fakes.peers import peer, peers, proxy, until
from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import Source
from tallymesh.ids import BlobId, blob_id
from tallymesh_node.blobs import BlobStore, open_blobs, serving, transfer
from tallymesh_node.blobs.disk import CHUNK_BYTES
from tallymesh_node.blobs.room import Room
from tallymesh_node.blobs.serving import Header, Question, protocol_name
from tallymesh_node.blobs.store import limit
from tallymesh_node.network import Libp2pNetwork
from tallymesh_node.network.keys import generate
from tallymesh_node.network.requests import encode_answer, encode_refusal
from tallymesh_node.network.wire import Wire, expect_protocol

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


Patch = pytest.MonkeyPatch
BIG = random.Random(7).randbytes(3 * CHUNK_BYTES + 12_345)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: Patch) -> None:
    monkeypatch.setattr(transfer, "PAUSE_S", 0.01)


@pytest.mark.parametrize(
    "data", [b"", b"x", BIG[:CHUNK_BYTES], BIG[: CHUNK_BYTES + 1], BIG], ids=lambda data: str(len(data))
)
async def test_blob_arrives_whole(tmp_path: Path, data: bytes) -> None:
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(data)
        await fetch(taker, blob, networks[0].source)
        assert taker.get(blob) == data
        assert networks[1].counters.blob_bytes_received == networks[0].counters.blob_bytes_sent == len(data)
        await taker.sync()
        assert not leftovers(taker)


async def test_blob_that_is_here_is_not_fetched(tmp_path: Path) -> None:
    async with peer() as network, exchanges([network], tmp_path) as (mine,):
        await fetch(mine, mine.put(b"here"))


async def test_fetching_what_nobody_has_says_each_sources_reason(tmp_path: Path) -> None:
    nobody = Source(peer_id=generate().peer_id, addresses=("/ip4/127.0.0.1/tcp/1",))
    async with peers(2) as networks, exchanges(networks, tmp_path) as (_, taker):
        with pytest.raises(RemoteError) as error:
            await fetch(taker, blob_id(b"absent"), networks[0].source, nobody)
        assert error.value.code == "not_found"
        assert "not here" in error.value.sentence
        assert "cannot be reached" in error.value.sentence
        assert not leftovers(taker)


async def test_peer_does_not_ask_itself(tmp_path: Path) -> None:
    async with peer() as network, exchanges([network], tmp_path) as (mine,):
        with pytest.raises(RemoteError) as error:
            await fetch(mine, blob_id(b"absent"), network.source)
        assert "No source" in error.value.sentence


def test_sources_are_few_and_each_is_asked_once() -> None:
    """Whoever orders a job names them: a list of thousands, or one name again and again, is no more work."""
    mine = transfer._Transfer(blob_id(b"x"), "me")
    for _ in range(2):
        mine.add([Source(f"peer-{number}") for number in range(5)], b"")
    assert [offer.source.peer_id for offer in mine.offers] == [f"peer-{number}" for number in range(5)]
    mine.add([Source(f"other-{number}") for number in range(1000)], b"")
    assert len(mine.offers) == transfer.MAX_SOURCES


async def test_no_source_at_all_is_not_found(tmp_path: Path) -> None:
    async with peer() as network, exchanges([network], tmp_path) as (mine,):
        with pytest.raises(RemoteError) as error:
            await fetch(mine, blob_id(b"absent"))
        assert error.value.code == "not_found"


async def test_ticket_decides_and_who_has_none_does_not_learn_whether_the_blob_is_here(tmp_path: Path) -> None:
    asked: list[tuple[str, BlobId, bytes]] = []

    def only_tickets(peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        asked.append((peer_id, blob, ticket))
        return ticket == TICKET

    async with peers(2) as networks, exchanges(networks, tmp_path, only_tickets) as (giver, taker):
        here, absent = giver.put(b"here"), blob_id(b"absent")
        sentences = set()
        for blob in (here, absent):
            with pytest.raises(RemoteError) as error:
                await taker.fetch(blob, [networks[0].source], ticket=b"forged", timeout_s=5)
            sentences.add(error.value.sentence.replace(blob.hex()[:8], ""))
        assert len(sentences) == 1
        assert "does not give a right" in sentences.pop()
        await fetch(taker, here, networks[0].source)
        assert asked[-1] == (networks[1].peer_id, here, TICKET)


async def test_authorize_hook_that_raises_gives_nothing_away(tmp_path: Path) -> None:
    def broken(peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        raise ZeroDivisionError

    async with peers(2) as networks, exchanges(networks, tmp_path, broken) as (giver, taker):
        with pytest.raises(RemoteError) as error:
            await fetch(taker, giver.put(b"here"), networks[0].source)
        assert "does not give a right" in error.value.sentence


async def test_concurrent_fetches_share_one_transfer(tmp_path: Path) -> None:
    asked = 0

    def count(peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        nonlocal asked
        asked += 1
        return True

    async with peers(2) as networks, exchanges(networks, tmp_path, count) as (giver, taker):
        blob = giver.put(BIG)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(fetch, taker, blob, networks[0].source)
        assert taker.get(blob) == BIG
        assert asked == 1
        assert networks[1].counters.blob_bytes_received == len(BIG)


async def test_transfer_goes_on_when_one_of_those_who_wait_leaves(tmp_path: Path) -> None:
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(BIG)
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as impatient:
                nursery.start_soon(fetch, taker, blob, networks[0].source)
                impatient.cancel()
                await fetch(taker, blob, networks[0].source)
        assert taker.has(blob)


async def test_transfer_that_nobody_waits_for_ends_and_leaves_nothing(tmp_path: Path) -> None:
    async with (
        peer() as server,
        proxy(server) as between,
        peer() as client,
        exchanges([server, client], tmp_path) as (giver, taker),
    ):
        blob = giver.put(BIG)
        await client.connections.connect(between.source(server))
        between.freeze()
        with pytest.raises(RemoteError) as error:
            await fetch(taker, blob, server.source, timeout_s=0.1)
        assert error.value.code == "timeout"
        await until(lambda: not taker._transfers and not leftovers(taker))
        between.thaw()
        await fetch(taker, blob, server.source)


async def test_source_without_an_answer_is_left_for_another(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(transfer, "ANSWER_S", 0.5)

    async def silent(wire: Wire) -> None:
        await trio.sleep_forever()

    async with liar(silent) as (dead, networks), exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(b"here")
        await fetch(taker, blob, dead, networks[0].source)


# -- cuts


async def test_transfer_goes_on_after_a_cut_where_it_was(tmp_path: Path) -> None:
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
        assert between.sent < len(BIG) + CHUNK_BYTES + 64 * 1024  # and at most one sent twice


async def test_source_that_always_breaks_is_given_up(tmp_path: Path) -> None:
    tries = 0

    async def breaks(wire: Wire) -> None:
        nonlocal tries
        tries += 1
        raise RemoteError("unreachable", "gone")

    async with liar(breaks) as (source, networks), exchanges(networks, tmp_path) as (_, taker):
        with pytest.raises(RemoteError) as error:
            await fetch(taker, blob_id(b"absent"), source)
        assert error.value.code == "not_found"
        assert tries == transfer.ATTEMPTS


# -- liars


@asynccontextmanager
async def liar(answer: Callable[[Wire], object]) -> AsyncIterator[tuple[Source, Sequence[Libp2pNetwork]]]:
    """A source that answers with `answer`, and two honest networks beside it."""

    async def handler(wire: Wire) -> None:
        await wire.read_frame(10_000)
        await answer(wire)  # type: ignore[misc]

    async with peers(3) as (network, *others):
        network.serve_streams(protocol_name(network.topic), handler)
        yield network.source, others


def lies(size: int, chunks: Sequence[bytes], body: bytes) -> Callable[[Wire], object]:
    async def answer(wire: Wire) -> None:
        await wire.send_frame(encode_answer(msgspec.msgpack.encode(Header(size, list(chunks)))))
        await wire.send(body)

    return answer


def chunk_hashes(data: bytes) -> list[bytes]:
    return [blake3(data[at : at + CHUNK_BYTES]).digest() for at in range(0, len(data), CHUNK_BYTES)]


WRONG = bytes(len(BIG))


async def test_liar_about_the_bytes_costs_one_chunk_and_another_source_is_used(tmp_path: Path) -> None:
    async with (
        liar(lies(len(BIG), chunk_hashes(BIG), WRONG)) as (source, networks),
        exchanges(networks, tmp_path) as (giver, taker),
    ):
        blob = giver.put(BIG)
        await fetch(taker, blob, source, networks[0].source)
        assert taker.get(blob) == BIG
        assert networks[1].counters.blob_bytes_received == len(BIG)  # nothing of the liar's was kept


async def test_liar_about_a_later_chunk_costs_that_chunk_alone(tmp_path: Path) -> None:
    half = BIG[: 2 * CHUNK_BYTES] + WRONG[2 * CHUNK_BYTES :]
    async with (
        liar(lies(len(BIG), chunk_hashes(BIG), half)) as (source, networks),
        exchanges(networks, tmp_path) as (giver, taker),
    ):
        blob = giver.put(BIG)
        await fetch(taker, blob, source, networks[0].source)
        assert networks[0].counters.blob_bytes_sent == len(BIG) - 2 * CHUNK_BYTES


async def test_liar_about_the_list_is_found_out_by_the_whole_and_what_was_right_is_kept(tmp_path: Path) -> None:
    half = BIG[:CHUNK_BYTES] + WRONG[CHUNK_BYTES:]
    asked = 0

    async def answer(wire: Wire) -> None:
        nonlocal asked
        asked += 1
        await lies(len(BIG), chunk_hashes(half), half)(wire)  # type: ignore[misc]

    async with liar(answer) as (source, networks), exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(BIG)
        await fetch(taker, blob, source, networks[0].source)
        assert taker.get(blob) == BIG
        assert asked == 1
        assert networks[0].counters.blob_bytes_sent <= len(BIG) + CHUNK_BYTES


async def test_liar_about_the_size_is_found_out(tmp_path: Path) -> None:
    long = BIG + WRONG
    async with (
        liar(lies(len(long), chunk_hashes(long), long)) as (source, networks),
        exchanges(networks, tmp_path) as (giver, taker),
    ):
        blob = giver.put(BIG)
        await fetch(taker, blob, source, networks[0].source)
        assert taker.get(blob) == BIG


async def test_liars_alone_give_nothing(tmp_path: Path) -> None:
    async with (
        liar(lies(len(WRONG), chunk_hashes(WRONG), WRONG)) as (source, networks),
        exchanges(networks, tmp_path) as (_, taker),
    ):
        with pytest.raises(RemoteError) as error:
            await fetch(taker, blob_id(BIG), source)
        assert error.value.code == "not_found"
        assert "not this blob" in error.value.sentence
        assert not leftovers(taker)
        assert not list(taker.store)


def raw(data: bytes) -> Callable[[Wire], object]:
    async def answer(wire: Wire) -> None:
        await wire.send(data)

    return answer


def frame(data: bytes) -> Callable[[Wire], object]:
    async def answer(wire: Wire) -> None:
        await wire.send_frame(data)

    return answer


BAD_HEADERS = {
    "no frame": raw(b"\xff" * 100),
    "a frame of 4 GiB": raw(b"\xff\xff\xff\xff" + bytes(100)),
    "no msgpack": frame(b"\xc1"),
    "no answer": frame(b"\x90"),
    "a refusal": frame(encode_refusal("not_found", "x" * 10_000)),
    "no header": frame(encode_answer(b"\xc1")),
    "a negative size": lies(-1, [], b""),
    "a size of 1 EiB": lies(2**60, [bytes(32)], b""),
    "too few hashes": lies(CHUNK_BYTES * 2, [bytes(32)], b""),
    "too many hashes": lies(4, [bytes(32)] * 2, b""),
    "short hashes": lies(CHUNK_BYTES * 2, [b"1", b"2"], b""),
    "another blob of one chunk": lies(4, chunk_hashes(b"evil"), b"evil"),
    "an empty blob": lies(0, [], b""),
    "nothing": raw(b""),
}


@pytest.mark.parametrize("kind", BAD_HEADERS)
async def test_source_that_talks_nonsense_is_left_for_another(tmp_path: Path, kind: str) -> None:
    async with liar(BAD_HEADERS[kind]) as (source, networks), exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(b"here")
        await fetch(taker, blob, source, networks[0].source)
        assert taker.get(blob) == b"here"


# -- the serving side


async def test_hostile_questions_are_refused_and_the_host_goes_on(tmp_path: Path) -> None:
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        blob = giver.put(b"here")
        protocol = protocol_name(networks[0].topic)
        questions = [
            b"",
            b"\xc1",
            b"\x93" * 200,
            msgspec.msgpack.encode(Question(b"short", 0, b"")),
            msgspec.msgpack.encode(Question(blob, -2, b"")),
            msgspec.msgpack.encode([blob, 0, b"", b"more"]),
            msgspec.msgpack.encode(Question(blob, 0, bytes(100_000))),
        ]
        for question in questions:
            wire = await networks[1].open_wire(networks[0].source, protocol, question)
            await expect_protocol(wire, protocol)
            assert b"refused" in await wire.read_frame(2000)
            await wire.abort()
        await fetch(taker, blob, networks[0].source)


@pytest.mark.parametrize("ask", [b"\x01", b"\xff", b"\xc1", b"", b"\xcf" + b"\xff" * 8], ids=lambda ask: ask.hex())
async def test_ask_for_a_chunk_that_there_is_not_ends_the_stream(tmp_path: Path, ask: bytes) -> None:
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, _):
        blob = giver.put(b"here")
        protocol = protocol_name(networks[0].topic)
        question = msgspec.msgpack.encode(Question(blob, 2**40, b""))
        wire = await networks[1].open_wire(networks[0].source, protocol, question)
        await expect_protocol(wire, protocol)
        await wire.read_frame(2000)
        await wire.send_frame(b"\x00")
        assert await wire.read_exactly(4) == b"here"
        await wire.send_frame(ask)
        with trio.fail_after(60), pytest.raises(RemoteError):
            await wire.read_exactly(1)
        await wire.abort()


@pytest.mark.parametrize(
    ("size", "chunks"),
    [
        (CHUNK_BYTES + 1, [bytes(32)]),
        (CHUNK_BYTES + 1, [bytes(32)] * 3),
        (-CHUNK_BYTES, []),
        (serving.MAX_BLOB_BYTES + 1, [bytes(32)] * (serving.MAX_BLOB_BYTES // CHUNK_BYTES + 1)),
        (CHUNK_BYTES + 1, [bytes(32), bytes(31)]),
        (5, [bytes(32)]),
        (0, []),
    ],
    ids=["short list", "long list", "negative", "too large", "hash of 31 bytes", "other hash", "empty"],
)
def test_what_a_source_says_of_a_blob_must_fit_together(size: int, chunks: list[bytes]) -> None:
    header = Header(size, chunks)
    with pytest.raises(RemoteError) as error:
        serving.decode_header(encode_answer(msgspec.msgpack.encode(header)), blob_id(b"other"), "a peer")
    assert error.value.code == ("wrong_bytes" if 0 <= size <= CHUNK_BYTES else "bad_message")


@pytest.mark.parametrize("index", [-1, 3, 1 << 62])
def test_only_chunks_that_there_are_can_be_asked_for(index: int) -> None:
    """Any other number would count as bytes that were sent, negative ones too."""
    assert serving.decode_ask(msgspec.msgpack.encode(2), 3, "a peer") == 2
    with pytest.raises(RemoteError) as error:
        serving.decode_ask(msgspec.msgpack.encode(index), 3, "a peer")
    assert (error.value.code, error.value.peer) == ("bad_message", "a peer")


async def test_half_open_peer_is_cut_and_gives_its_place_back(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(serving, "SENDING_PER_PEER", 1)
    monkeypatch.setattr(serving, "READ_S", 0.1)
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        protocol = protocol_name(networks[0].topic)
        wire = await networks[1].open_wire(networks[0].source, protocol, b"")
        await wire.send(b"\x00\x00")
        blob = giver.put(b"here")
        await fetch(taker, blob, networks[0].source)
        await wire.abort()


async def test_peer_that_takes_too_much_at_once_waits_and_is_told_busy(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(serving, "SENDING_PER_PEER", 1)
    monkeypatch.setattr(serving, "QUEUE_S", 0.05)
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        big, small = giver.put(BIG), giver.put(b"small")
        protocol = protocol_name(networks[0].topic)
        question = msgspec.msgpack.encode(Question(big, 0, b""))
        slow = await networks[1].open_wire(networks[0].source, protocol, question)
        await expect_protocol(slow, protocol)
        await slow.read_frame(2000)  # it holds the only place, and reads no more
        with pytest.raises(RemoteError) as error:
            await fetch(taker, small, networks[0].source)
        assert "Too many blobs" in error.value.sentence
        await slow.abort()
        await fetch(taker, small, networks[0].source)


async def test_full_disk_is_this_machines_fault(tmp_path: Path) -> None:
    async with peers(2) as (server, client), open_blobs(server, BlobStore(tmp_path / "1"), everybody) as giver:
        store = BlobStore(tmp_path / "2", admit=lambda size: limit(lambda: 0, 1000)(size))
        async with open_blobs(client, store, everybody) as taker:
            with pytest.raises(LocalError) as error:
                await fetch(taker, giver.put(BIG), server.source)
            assert error.value.code == "disk_limit"
            await fetch(taker, giver.put(b"small"), server.source)


async def test_who_lies_about_the_size_is_left_though_there_is_no_room_for_that_much(tmp_path: Path) -> None:
    hashes = [bytes(32)] * 64
    async with (
        liar(lies(64 * CHUNK_BYTES, hashes, b"")) as (source, networks),
        exchanges(networks, tmp_path) as (giver, taker),
    ):
        taker.store._admit = limit(lambda: taker.store.bytes_used, len(BIG))
        blob = blob_id(BIG)
        with pytest.raises(RemoteError) as error:  # the other one has nothing, and it is not our disk's fault
            await fetch(taker, blob, source, networks[0].source)
        assert "limit of" in error.value.sentence
        giver.put(BIG)
        await fetch(taker, blob, source, networks[0].source)
        assert taker.get(blob) == BIG


async def test_what_comes_takes_the_room_of_what_nothing_needs_and_no_other(tmp_path: Path) -> None:
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        store = taker.store
        room = Room(store, limit=lambda: len(BIG) + 1000, disk_free=lambda: 1 << 50)
        room.open()
        store._admit, taker.make_room = room.admit, room.make
        old = store.put(bytes(2000))
        store._used[old] = 0.0
        blob = giver.put(BIG)
        await fetch(taker, blob, networks[0].source)
        assert list(store) == [blob]
        store._used[blob] = 0.0
        store.pin(blob)
        with pytest.raises(LocalError) as error:
            await fetch(taker, giver.put(BIG[::-1]), networks[0].source)
        assert (error.value.code, "pinned by the owner" in error.value.sentence) == ("no_room", True)
        assert list(store) == [blob]


async def test_who_is_asked_whether_a_blob_is_here_is_asked_because_it_is_of_use(tmp_path: Path) -> None:
    """It was found here, so nobody fetches it: it must not go before it is read."""
    async with peer() as network, exchanges([network], tmp_path) as (mine,):
        blob = mine.put(b"input")
        mine.store._used[blob] = 0.0
        assert mine.has(blob)
        assert mine.store.used_at(blob) > 0.0
