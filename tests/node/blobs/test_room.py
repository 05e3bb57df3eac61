"""Room is made by dropping what nothing needs, and nothing else: whoever needs it, however a node ends meanwhile."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import BlobId, blob_id
from tallymesh_node.blobs import BlobStore, pins
from tallymesh_node.blobs.room import AGAIN_S, BATCH, DISK_SPARE, FRESH_S, LOOK_S, SPARE_PARTS, Freed, Holder, Room

SIZE = 1000
MUCH = 1 << 50


def bytes_of(number: int) -> bytes:
    return number.to_bytes(2, "big") * (SIZE // 2)


class Place:
    """A store of blobs that were all used at another time, and a room with one role."""

    def __init__(self, folder: Path, *, count: int = 10, limit: int | None = None) -> None:
        self.limit = SIZE * count if limit is None else limit
        self.disk_free = MUCH
        self.store = BlobStore(folder, admit=lambda size: self.room.admit(size))
        self.now_s = 1e9
        self.needed: set[bytes] | None = set()
        self.past: set[bytes] | None = set()
        self.lately_s = 0.0
        self.asked = 0
        self.holders = [Holder(name="a role", now=self._now, past=self._past, lately_s=lambda: self.lately_s)]
        self.room = Room(
            self.store,
            limit=lambda: self.limit,
            holders=self.holders,
            disk_free=lambda: self.disk_free,
            clock=lambda: self.now_s,
        )
        self.room.open()
        self.blobs = [self.store.put(bytes_of(number)) for number in range(count)]
        for number, blob in enumerate(self.blobs):
            self.store._used[blob] = self.now_s - 10 * FRESH_S + number

    def _now(self) -> set[bytes] | None:
        return self.needed

    async def _past(self) -> set[bytes] | None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return self.past

    @property
    def here(self) -> list[int]:
        return [number for number, blob in enumerate(self.blobs) if self.store.has(blob)]


async def refused(place: Place, size: int = SIZE) -> str:
    with pytest.raises(LocalError) as error:
        await place.room.make(size)
    assert error.value.code == "no_room"
    assert "tallymesh blob ls" in error.value.remedy
    return error.value.sentence


# -- what goes


async def test_what_was_not_used_for_longest_goes_first_and_no_more_than_it_takes(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.store.touch(place.blobs[0])
    place.store._used[place.blobs[0]] = place.now_s - 2 * FRESH_S  # the oldest, but used since
    await place.room.make(2 * SIZE)
    spare = place.limit // SPARE_PARTS
    assert spare < SIZE
    assert place.here == [0, 4, 5, 6, 7, 8, 9], "two for what comes, and one to have some to spare"
    place.store.writer(blob_id(b"x"), 2 * SIZE).discard()


async def test_where_there_is_room_nothing_goes_and_nobody_is_asked(tmp_path: Path) -> None:
    place = Place(tmp_path, limit=11 * SIZE)
    await place.room.make(SIZE)
    assert (len(place.here), place.asked) == (10, 0)


@pytest.mark.parametrize("why", ["now", "past", "pinned", "fresh", "lately"])
async def test_nothing_that_somebody_needs_goes(tmp_path: Path, why: str) -> None:
    place = Place(tmp_path)
    kept = place.blobs[3]
    if why == "now":
        place.needed = {kept}
    elif why == "past":
        place.past = {kept}
    elif why == "pinned":
        place.store.pin(kept)
    elif why == "fresh":
        place.store._used[kept] = place.now_s - FRESH_S + 1
    else:
        place.lately_s = 100 * FRESH_S
        for blob in place.blobs:
            place.store._used[blob] = place.now_s - 200 * FRESH_S
        place.store._used[kept] = place.now_s - 99 * FRESH_S
    assert await place.room.collect() == Freed(9, 9 * SIZE)
    assert place.here == [3]


@pytest.mark.parametrize("who", ["now", "past", "not open"])
async def test_nothing_goes_while_a_role_cannot_say_what_it_needs(tmp_path: Path, who: str) -> None:
    place = Place(tmp_path)
    if who == "now":
        place.needed = None
    elif who == "past":
        place.past = None
    else:
        place.room = Room(place.store, limit=lambda: place.limit, holders=place.holders, disk_free=lambda: MUCH)
    assert "a role, not known yet" in await refused(place)
    assert await place.room.collect() == Freed()
    assert len(place.here) == 10
    with pytest.raises(CallerError) as error:
        await place.room.remove(place.blobs[0])
    assert error.value.code == "needed"


async def test_what_a_role_begins_to_need_during_a_pass_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    monkeypatch.setattr("tallymesh_node.blobs.room.BATCH", 2)
    plain = place.store.delete

    def delete(blob: BlobId) -> None:
        plain(blob)
        place.needed = set(place.blobs[4:])

    monkeypatch.setattr(place.store, "delete", delete)
    await place.room.collect()
    assert place.here == [4, 5, 6, 7, 8, 9]


async def test_what_a_job_needed_when_a_pass_began_stays_though_it_ends_meanwhile(tmp_path: Path) -> None:
    """Its result is then named by what is over, which was asked before."""
    place = Place(tmp_path)
    place.needed = {place.blobs[5]}

    async def past() -> set[bytes]:
        await trio.lowlevel.checkpoint()
        place.needed = set()
        return set()

    place.room.holders = [Holder(name="jobs", now=place._now, past=past)]
    await place.room.collect()
    assert place.here == [5]


async def test_a_pin_that_is_made_during_a_pass_holds(tmp_path: Path) -> None:
    place = Place(tmp_path)

    async def past() -> set[bytes]:
        await trio.lowlevel.checkpoint()
        place.store.pin(place.blobs[7])
        return set()

    place.room.holders = [Holder(name="jobs", past=past)]
    await place.room.collect()
    assert place.here == [7]


async def test_who_asks_for_more_than_there_can_be_empties_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.needed = {place.blobs[9]}
    await refused(place, 10 * SIZE)
    assert len(place.here) == 10
    await place.room.make(9 * SIZE)
    assert place.here == [9]


async def test_the_disk_counts_as_the_limit_does(tmp_path: Path) -> None:
    place = Place(tmp_path, limit=100 * SIZE)
    place.disk_free = DISK_SPARE + SIZE - 1
    with pytest.raises(LocalError) as error:
        place.store.put(b"x" * SIZE)
    assert error.value.code == "disk_full"
    plain = place.store.delete

    def delete(blob: BlobId) -> None:
        plain(blob)
        place.disk_free += SIZE

    place.store.delete = delete  # type: ignore[method-assign]
    place.needed = set(place.blobs[2:])
    await place.room.make(SIZE)
    assert place.here == [2, 3, 4, 5, 6, 7, 8, 9]
    place.store.put(b"x" * SIZE)


async def test_what_is_arriving_is_not_promised_to_another(tmp_path: Path) -> None:
    place = Place(tmp_path, limit=100 * SIZE)
    place.needed = set(place.blobs)
    place.disk_free = DISK_SPARE + 3 * SIZE
    writer = place.store.writer(blob_id(b"?"), 2 * SIZE)
    assert "arriving" in await refused(place, 2 * SIZE)
    writer.discard()
    await place.room.make(2 * SIZE)


async def test_what_was_kept_of_transfers_goes_before_any_blob(tmp_path: Path) -> None:
    place = Place(tmp_path, limit=20 * SIZE)
    writer = place.store.writer(blob_id(b"?"), 5 * SIZE, resume=True)
    writer.write(0, bytes(4096))
    writer.keep()
    kept = place.store.bytes_kept
    assert kept >= 4096
    size = place.limit - 10 * SIZE
    await place.room.make(size)
    place.store.writer(blob_id(b"x"), size).discard()
    assert (len(place.here), place.store.bytes_kept) == (10, 0)


# -- what is said


async def test_a_refusal_names_what_holds_the_room_and_how_much(tmp_path: Path) -> None:
    place = Place(tmp_path, count=4, limit=4 << 20)
    big = place.store.put(bytes(3 << 20))
    place.store.pin(place.store.put(bytes(1 << 19)))
    place.needed = {big, *place.blobs}
    said = await refused(place, 1 << 20)
    assert said == (
        "There is no room for 1.0 MiB: 0.5 MiB too little, of a limit of 4.0 MiB for blobs and "
        f"{MUCH / 2**20:.1f} MiB free on the disk. What is here is needed: 3.0 MiB (a role); "
        "0.5 MiB (pinned by the owner); 3.5 MiB (came or used within the last 10 minutes)."
    )


async def test_a_refusal_is_repeated_without_reading_all_journals_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    place = Place(tmp_path)
    place.needed = set(place.blobs)
    await refused(place)
    asked = place.asked
    await refused(place, 2 * SIZE)
    assert place.asked == asked
    await trio.sleep(AGAIN_S)
    place.needed = set()
    await place.room.make(SIZE)


# -- the owner


async def test_the_owner_removes_results_but_nothing_that_is_pinned_or_in_use(tmp_path: Path) -> None:
    place = Place(tmp_path)
    running, pinned, result, evidence, free = place.blobs[:5]
    place.needed, place.past = {running}, {evidence}
    place.store.pin(pinned)

    async def results() -> set[bytes]:
        await trio.lowlevel.checkpoint()
        return {result}

    place.room.holders = [*place.holders, Holder(name="results", past=results, firm=False)]
    for blob, code in ((running, "needed"), (pinned, "pinned"), (evidence, "needed"), (blob_id(b"?"), "no_blob")):
        with pytest.raises(CallerError) as error:
            await place.room.remove(blob)
        assert error.value.code == code
    for blob in (result, free):
        await place.room.remove(blob)
        assert not place.store.has(blob)
    assert place.store.has(running)
    assert place.store.has(pinned)
    assert place.store.has(evidence)


def test_pins_survive_a_restart_and_name_what_is_not_here_yet(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    here, later = store.put(b"here"), blob_id(b"later")
    for blob in (here, later):
        store.pin(blob)
    store.pin(here)
    (tmp_path / "pins/readme").write_text("somebody's")
    (tmp_path / "pins" / ("?" * 64)).touch()
    store = BlobStore(tmp_path)
    assert set(store.pins) == {here, later}
    store.pin(here, pinned=False)
    store.pin(here, pinned=False)
    assert set(BlobStore(tmp_path).pins) == {later}
    assert BlobStore(tmp_path).get(here) == b"here"


def test_pins_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "MAX_PINS", 1)
    store = BlobStore(tmp_path)
    store.pin(blob_id(b"one"))
    store.pin(blob_id(b"one"))
    with pytest.raises(CallerError) as error:
        store.pin(blob_id(b"two"))
    assert error.value.code == "too_many_pins"
    assert len(BlobStore(tmp_path).pins) == 1


def test_a_pin_and_its_end_reach_the_folder_before_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path)
    synced: list[tuple[int, list[str]]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, os.listdir(descriptor)))

    monkeypatch.setattr(os, "fsync", fsync)
    blob = blob_id(b"one")
    store.pin(blob)
    store.pin(blob, pinned=False)
    folder = (tmp_path / "pins").stat().st_ino
    assert synced == [(folder, [blob.hex()]), (folder, [])]


def test_a_pin_that_the_disk_refuses_is_none(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    (tmp_path / "pins").rmdir()
    with pytest.raises(LocalError):
        store.pin(blob_id(b"one"))
    assert len(store.pins) == 0


# -- by itself


async def test_a_part_of_the_limit_is_kept_free(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    place = Place(tmp_path, count=32)
    place.needed = set(place.blobs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.room.run)
        await trio.sleep(2 * FRESH_S)
        assert len(place.here) == 32
        place.needed = set()
        await trio.sleep(FRESH_S + LOOK_S)
        assert place.store.bytes_used <= place.limit * (1 - 1 / SPARE_PARTS)
        assert len(place.here) >= 28
        nursery.cancel_scope.cancel()


# -- a restart


def test_what_was_used_last_before_a_restart_goes_last(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    first, second = store.put(b"first"), store.put(b"second")
    store.sync()
    os.utime(store.path(first), (2e9, 1.0))  # as a kernel notes a reading
    again = BlobStore(tmp_path)
    assert again.used_at(first) == 2e9
    assert again.used_at(first) > again.used_at(second) > 1e9


def test_every_use_counts(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blob = store.put(b"data")

    def stream() -> None:
        store.put_stream(blob, 4, [b"data"])

    for use in (lambda: store.path(blob), lambda: store.open(blob).close(), lambda: store.get(blob), stream):
        store._used[blob] = 0.0
        use()
        assert store.used_at(blob) > 0.0
    store._used[blob] = 0.0
    store.put(b"data")
    assert store.used_at(blob) > 0.0
    store._used[blob] = 0.0
    store.came_at(blob)
    assert (store.used_at(blob), store.used_at(blob_id(b"?"))) == (0.0, 0.0)


def test_a_blob_whose_file_somebody_else_removed_is_not_here(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blob = store.put(b"data")
    store._place(blob).unlink()
    with pytest.raises(KeyError):
        store.open(blob)
    assert not store.has(blob)
    assert store.bytes_used == 0
    assert store.put(b"data") == blob
    assert store.get(blob) == b"data"


def killed_at(step: int, work: Callable[[], Any]) -> bool:
    """Run in a process of its own that is killed before its disk operation number `step`; False where it ended."""
    child = os.fork()
    if child == 0:  # nothing of the test's process may go on in here
        try:
            count = 0

            def watch(event: str, _: object) -> None:
                nonlocal count
                if event in ("open", "os.remove", "os.rename", "os.mkdir", "os.chmod"):
                    if count == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count += 1

            sys.addaudithook(watch)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.slow
def test_a_kill_between_any_two_steps_leaves_only_whole_blobs_and_confirmed_pins(tmp_path: Path) -> None:
    """Steps of dropping one blob, storing another and pinning a third; whatever is there afterwards is right."""
    big = random.Random(1).randbytes(1 << 21)  # two chunks: it has a list
    step = 0
    while True:
        folder = tmp_path / str(step)
        store = BlobStore(folder)
        old, other, pinned = store.put(big), store.put(b"other"), store.put(b"pinned")
        store.chunk_hashes(old)
        store.sync()

        def work(store: BlobStore = store, old: BlobId = old, pinned: BlobId = pinned) -> None:
            store.delete(old)
            store.put(b"new")
            store.sync()
            store.pin(pinned)

        killed = killed_at(step, work)
        again = BlobStore(folder)
        assert {other, pinned} <= set(again)
        assert set(again) <= {old, other, pinned, blob_id(b"new")}
        for blob in again:
            assert blob_id(again.get(blob)) == blob
        assert again.bytes_used == sum(again.size(blob) for blob in again)
        assert {path.name for path in (folder / "lists").iterdir()} <= {old.hex()} & {blob.hex() for blob in again}
        assert list((folder / "parts").iterdir()) == []
        if not killed:
            assert set(again) == {other, pinned, blob_id(b"new")}
            assert set(again.pins) == {pinned}
            break
        step += 1
    assert step > 10


# -- whatever happens

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["put", "need", "over", "evidence", "pin", "unpin", "use", "time", "make", "collect", "restart"]
        ),
        st.integers(0, 7),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(EVENTS)
def test_nothing_that_is_needed_ever_goes(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    """And what nothing needs never keeps out what comes."""
    place = Place(tmp_path_factory.mktemp("room"), count=0, limit=4 * SIZE)
    needed: set[bytes] = set()
    past: set[bytes] = set()
    place.needed, place.past = needed, past
    must: set[BlobId] = set()

    def free(blob: BlobId) -> bool:
        idle = place.now_s - place.store.used_at(blob)
        return blob not in needed and blob not in past and blob not in place.store.pins and idle > FRESH_S

    async def one(what: str, number: int) -> None:
        blob = blob_id(bytes_of(number))
        match what:
            case "put":
                if place.room.lacking(SIZE) or place.store.has(blob):
                    return
                place.store.put(bytes_of(number))
                place.store._used[blob] = place.now_s
            case "need":
                needed.add(blob)
            case "over":
                needed.discard(blob)
            case "evidence":
                (past.discard if blob in past else past.add)(blob)
            case "pin" | "unpin":
                place.store.pin(blob, pinned=what == "pin")
            case "use":
                if place.store.has(blob):
                    place.store._used[blob] = place.now_s
            case "time":
                place.now_s += FRESH_S / 3
            case "collect":
                await place.room.collect()
                assert not any(free(each) for each in place.store)
            case "restart":
                used = dict(place.store._used)
                place.store = place.room._store = BlobStore(place.store.folder, admit=place.room.admit)
                place.store._used.update(used)
            case _:
                can = sum(SIZE for each in place.store if free(each)) + place.limit - place.store.bytes_used
                try:
                    await place.room.make(SIZE)
                    assert can >= SIZE
                except LocalError:
                    assert can < SIZE

    async def all_() -> None:
        for what, number in events:
            must.update(each for each in place.store if not free(each))
            await one(what, number)
            for each in list(must):
                assert place.store.has(each), (what, number)
            must.clear()

    trio.run(all_, clock=trio.testing.MockClock(rate=0, autojump_threshold=0))


def test_a_batch_is_bounded() -> None:
    """Nothing else of the node runs while one is dropped: 256 names are read and unlinked in a few milliseconds."""
    assert BATCH <= 256
