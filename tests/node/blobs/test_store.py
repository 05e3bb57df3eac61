"""Blobs on disk: whole or not at all, whenever the process was killed, whatever the disk does."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import BlobId, blob_id
from tallymesh_node.blobs import BlobStore, disk, durable, kept, pins, store, writer
from tallymesh_node.blobs.disk import CHUNK_BYTES
from tallymesh_node.blobs.store import limit

PATIENCE_S = 120.0  # for what takes milliseconds


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(CHUNK_BYTES + 1)], ids=len)
def test_what_is_put_can_be_had(blobs: BlobStore, data: bytes) -> None:
    name = blobs.put(data)
    assert name == blob_id(data)
    assert blobs.has(name)
    assert blobs.get(name) == blobs.path(name).read_bytes() == data
    assert blobs.size(name) == len(data)
    with blobs.open(name) as file:
        assert file.read() == data
    assert list(blobs) == [name]
    assert blobs.put(data) == name
    assert blobs.bytes_used == len(data)


def test_only_the_owner_can_read_and_nobody_writes(blobs: BlobStore) -> None:
    path = blobs.path(blobs.put(b"private"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)} == {0o700}


def test_what_is_not_here_is_a_key_error(blobs: BlobStore) -> None:
    absent = blob_id(b"absent")
    assert not blobs.has(absent)
    for ask in (blobs.get, blobs.path, blobs.size, blobs.open):
        with pytest.raises(KeyError):
            ask(absent)


def test_blobs_survive_a_restart(tmp_path: Path) -> None:
    names = {BlobStore(tmp_path).put(bytes([number])) for number in range(5)}
    again = BlobStore(tmp_path)
    assert set(again) == names
    assert again.bytes_used == 5


def test_blob_is_not_visible_before_it_is_whole(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    data = os.urandom(1000)
    writer = blobs.writer(blob_id(data), len(data))
    writer.write(0, data[:999])
    assert not blobs.has(blob_id(data))
    assert not writer.finish()
    assert not list(blobs)
    writer.write(999, data[999:])
    assert writer.finish()
    assert blobs.get(blob_id(data)) == data


@pytest.mark.slow
def test_leftovers_of_a_killed_process_are_removed_at_start(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from tallymesh.ids import blob_id
from tallymesh_node.blobs import BlobStore
store = BlobStore(Path({str(tmp_path)!r}))
store.put(b"whole")
writer = store.writer(blob_id(b"half"), 4)
writer.write(0, b"ha")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(list((tmp_path / "parts").iterdir())) == 1
    assert list(BlobStore(tmp_path)) == [blob_id(b"whole")]
    assert files(tmp_path) == [blob_id(b"whole").hex()]


def test_chunk_that_turned_out_wrong_can_be_written_again(blobs: BlobStore) -> None:
    writer = blobs.writer(blob_id(b"abcd"), 4)
    writer.write(0, b"ab")
    writer.write(2, b"XX")
    assert not writer.finish()
    writer.write(2, b"cd")
    assert writer.finish()
    assert blobs.get(blob_id(b"abcd")) == b"abcd"


def test_chunks_may_come_out_of_order(blobs: BlobStore) -> None:
    writer = blobs.writer(blob_id(b"abcd"), 4)
    writer.write(2, b"cd")
    writer.write(0, b"ab")
    assert writer.finish()


def test_discarded_writer_leaves_nothing(tmp_path: Path) -> None:
    writer = BlobStore(tmp_path).writer(blob_id(b"abcd"), 4)
    writer.write(0, b"ab")
    writer.discard()
    assert files(tmp_path) == []


@pytest.mark.parametrize("pieces", [[], [b"ab"], [b"abXd"], [b"abcd", b"e"], [b"abc", b"de"]])
def test_stream_that_is_not_the_blob_is_refused(tmp_path: Path, pieces: list[bytes]) -> None:
    blobs = BlobStore(tmp_path)
    with pytest.raises(CallerError) as error:
        blobs.put_stream(blob_id(b"abcd"), 4, pieces)
    assert error.value.code == "wrong_blob"
    assert files(tmp_path) == []


def test_stream_that_is_the_blob_is_stored(blobs: BlobStore) -> None:
    blobs.put_stream(blob_id(b"abcd"), 4, iter([b"a", b"", b"bcd"]))
    assert blobs.get(blob_id(b"abcd")) == b"abcd"


def test_blob_that_the_disk_changed_is_not_given_out(blobs: BlobStore) -> None:
    name = blobs.put(b"abcd")
    path = blobs.path(name)
    path.chmod(0o600)
    path.write_bytes(b"abXd")
    with pytest.raises(LocalError) as error:
        blobs.get(name)
    assert error.value.code == "corrupt_blob"
    assert not blobs.has(name)
    assert blobs.bytes_used == 0


def test_blob_that_a_power_cut_tore_is_dropped_at_start(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    blobs.put(b"before")
    blobs.sync()
    path = blobs.path(blobs.put(b"abcd"))
    path.chmod(0o600)
    path.write_bytes(b"")  # the rename reached the disk, the data did not
    assert list(BlobStore(tmp_path)) == [blob_id(b"before")]


def test_what_was_synced_is_not_read_again_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = BlobStore(tmp_path)
    blobs.put(b"synced")
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds; what is equal is read, to be sure
    blobs.sync()
    blobs.put(b"not yet")
    hashed: list[str] = []
    original = store.hash_of

    def spy(path: Path) -> bytes:
        hashed.append(path.name)
        return original(path)

    monkeypatch.setattr(store, "hash_of", spy)
    assert len(BlobStore(tmp_path)) == 2
    assert hashed == [blob_id(b"not yet").hex()]


def test_sync_reaches_the_file_and_its_folders(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name = blobs.put(b"abcd")
    synced: list[str] = []
    original = os.fsync

    def spy(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    blobs.sync()
    path = blobs.path(name)
    assert {str(path), str(path.parent), str(path.parent.parent), str(path.parent.parent.parent)} <= set(synced)
    synced.clear()
    blobs.sync()
    assert not synced


def test_many_are_written_at_once_before_each_is_asked_for(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's journal is committed for each file that waits: five thousand items of a map took 19 s."""
    monkeypatch.setattr(durable, "MANY", 3)
    done: list[str] = []
    monkeypatch.setattr(durable, "begin_writing_all", lambda folder: done.append("all"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("one"))
    blobs.put(b"1")
    blobs.put(b"2")
    blobs.sync()
    assert "all" not in done
    done.clear()
    for item in (b"3", b"4", b"5"):
        blobs.put(item)
    blobs.sync()
    assert done[0] == "all"
    assert done.count("one") > 3


def test_sync_that_failed_is_tried_again(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs.put(b"abcd")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(LocalError) as error:
            blobs.sync()
        assert error.value.code == "disk"
        with pytest.raises(LocalError):
            blobs.sync()
    blobs.sync()


def test_a_disk_too_full_to_tell_the_time_leaves_what_came_to_be_synced(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next sync would find nothing to do, and what is signed after it would rest on bytes in memory."""
    path = blobs.path(blobs.put(b"abcd"))

    def fail(place: Path, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", fail)
        with pytest.raises(LocalError, match="full"):
            blobs.sync()
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    blobs.sync()
    assert str(path) in synced


def test_what_a_disk_once_failed_to_keep_is_read_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fsync after one that failed finds nothing more to write, and says that all is well."""
    blobs = BlobStore(tmp_path)
    name = blobs.put(b"abcd")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(LocalError):
            blobs.sync()
    time.sleep(0.02)  # as above: what is as old as the marker is read, to be sure
    blobs.sync()
    monkeypatch.setattr(store, "hash_of", lambda path: b"torn")  # a power cut; the file is as old as it was
    assert list(BlobStore(tmp_path)) == []
    assert not blobs.path(name).exists()


class Forgetful:
    """A disk as Linux shows it: a write that failed is told to the fsync of the moment, and to no later one, which
    finds nothing left to write. `kept` is what a power cut would leave of a file, or of a folder's entries."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.failing = 0  # of the next ones
        self.refused: list[Path] = []
        self.held: list[int] = []  # so that no new file gets the number of one that is gone
        self._kept: dict[tuple[int, int], object] = {}
        self._clean: dict[tuple[int, int], object] = {}  # what the system takes for written, and is not
        self._changes: Counter[Path] = Counter()
        patch.setattr(os, "fsync", self.fsync)
        for module in (durable, pins):
            patch.setattr(module, "change", self.change)

    def change(self, folder: Path) -> None:
        disk.change(folder)
        self._changes[folder] += 1

    def fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        inode, now = self._inode(path), self._content(path)
        self.held.append(os.dup(descriptor))
        if self.failing:
            self.failing -= 1
            self.refused.append(path)
            self._clean[inode] = now
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if inode not in self._clean or self._clean[inode] != now:
            self._kept[inode] = now
            self._clean.pop(inode, None)

    def kept(self, path: Path) -> bool:
        return self._kept.get(self._inode(path)) == self._content(path)

    def _inode(self, path: Path) -> tuple[int, int]:
        found = path.stat()
        return found.st_dev, found.st_ino

    def _content(self, path: Path) -> object:
        return (sorted(os.listdir(path)), self._changes[path]) if path.is_dir() else path.read_bytes()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forgetful]:
    found = Forgetful(monkeypatch)
    yield found
    for descriptor in found.held:
        os.close(descriptor)


def places(blobs: BlobStore, name: BlobId) -> list[Path]:
    path = blobs.path(name)
    return [path, path.parent, path.parent.parent, path.parent.parent.parent]


@pytest.mark.parametrize("failing", range(1, 5))
def test_what_the_disk_failed_to_write_is_written_anew_before_it_is_believed(
    blobs: BlobStore, device: Forgetful, failing: int
) -> None:
    """Once to four times in a row: the file alone, or its folders, too."""
    name = blobs.put(b"abcd")
    for _ in range(failing):
        device.failing = 1
        with pytest.raises(LocalError):
            blobs.sync()
    blobs.sync()
    assert [str(each) for each in places(blobs, name) if not device.kept(each)] == []
    assert blobs.get(name) == b"abcd"
    assert stat.S_IMODE(blobs.path(name).stat().st_mode) == 0o400
    assert not list((blobs.folder / "parts").iterdir())


@pytest.mark.parametrize("which", range(4))
def test_the_same_for_each_folder_above_it(
    blobs: BlobStore, device: Forgetful, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    name = blobs.put(b"abcd")
    place = places(blobs, name)[which]
    forgetful = device.fsync

    def fail_there(descriptor: int) -> None:
        device.failing = int(os.readlink(f"/proc/self/fd/{descriptor}") == str(place) and not device.refused)
        forgetful(descriptor)

    monkeypatch.setattr(os, "fsync", fail_there)
    with pytest.raises(LocalError):
        blobs.sync()
    assert device.refused == [place]
    blobs.sync()
    assert [str(each) for each in places(blobs, name) if not device.kept(each)] == []


def test_what_neither_disk_nor_memory_has_is_thrown_away_and_nobody_signs_about_it(
    tmp_path: Path, device: Forgetful
) -> None:
    now = 0.0
    blobs = BlobStore(tmp_path, clock=lambda: now)
    name, other = blobs.put(b"abcd"), blobs.put(b"efgh")
    device.failing = 1
    with pytest.raises(LocalError):
        blobs.sync()
    (lost,) = device.refused
    os.chmod(lost, 0o600)
    lost.write_bytes(b"junk")  # the system dropped the page, and reads what was there before
    os.chmod(lost, 0o400)
    for _ in range(2):  # whoever put it asks, and cannot be told from others
        with pytest.raises(LocalError, match="thrown away"):
            blobs.sync()
    data = {name: b"abcd", other: b"efgh"}
    (gone,) = [each for each in data if not blobs.has(each)]
    assert lost.name == gone.hex()
    assert blobs.put(data[gone]) == gone
    blobs.sync()
    assert blobs.get(gone) == data[gone]
    assert device.kept(blobs.path(gone))
    # Nobody brings it again: others go on after a while.
    device.failing, third = 1, blobs.put(b"ijkl")
    with pytest.raises(LocalError):
        blobs.sync()
    os.chmod(blobs.path(third), 0o600)
    blobs.path(third).write_bytes(b"junk")
    with pytest.raises(LocalError, match="thrown away"):
        blobs.sync()
    now = durable.LOST_S
    blobs.sync()


def test_a_pin_that_the_disk_failed_to_write_is_written_anew(blobs: BlobStore, device: Forgetful) -> None:
    name = blobs.put(b"abcd")
    for pinned in (True, False):
        device.failing = 1
        with pytest.raises(LocalError):
            blobs.pin(name, pinned=pinned)
        blobs.pin(name, pinned=pinned)
        assert device.kept(blobs.folder / "pins")
        assert (name in blobs.pins) is pinned


def test_sync_waits_for_another_that_is_under_way(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs.put(b"abcd")
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    original = os.fsync

    def slow(descriptor: int) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    first = threading.Thread(target=blobs.sync)
    second = threading.Thread(target=lambda: (blobs.sync(), done.set()))
    first.start()
    assert begun.wait(PATIENCE_S)
    second.start()
    assert not done.wait(0.05)  # nothing is left to do, but it is not done
    go_on.set()
    first.join(PATIENCE_S)
    second.join(PATIENCE_S)
    assert done.is_set()


def test_deleted_blob_is_gone_and_deleting_again_is_harmless(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    name = blobs.put(b"abcd")
    with blobs.open(name) as file:
        blobs.delete(name)
        blobs.delete(name)
        assert file.read() == b"abcd"
    assert not blobs.has(name)
    assert blobs.bytes_used == 0
    blobs.sync()
    assert not list(BlobStore(tmp_path))


def test_owners_limit_is_kept(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, admit=lambda size: limit(lambda: blobs.bytes_used, 10)(size))
    blobs.put(b"12345678")
    with pytest.raises(LocalError) as error:
        blobs.put(b"123")
    assert error.value.code == "disk_limit"
    blobs.put(b"12")


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EIO, "disk")]
)
def test_what_the_disk_says_is_a_local_error(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(LocalError) as error:
        blobs.put(b"abcd")
    assert error.value.code == code
    assert not list(blobs)


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    stranger = tmp_path / "ab" / "cd" / ("z" * 64)
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"x")
    assert not list(BlobStore(tmp_path))
    assert stranger.exists()
    assert BlobId(bytes(32)) not in list(BlobStore(tmp_path))


# -- what arrived of a blob before its transfer ended


DATA = bytes(range(256)) * 16


def part(blobs: BlobStore, data: bytes, written: int) -> None:
    """A transfer of `data` that ended early."""
    writer = blobs.writer(blob_id(data), len(data), resume=True)
    writer.write(0, data[:written])
    writer.keep()


def test_what_was_kept_is_there_for_the_next_writer_also_after_a_restart(tmp_path: Path) -> None:
    part(BlobStore(tmp_path), DATA, 1000)
    again = BlobStore(tmp_path)
    assert again.has_part(blob_id(DATA))
    assert 1000 <= again.bytes_used <= len(DATA)
    assert not list(again)
    writer = again.writer(blob_id(DATA), len(DATA), resume=True)
    assert writer.read(0, 1000) == DATA[:1000]
    writer.write(1000, DATA[1000:])
    assert writer.finish()
    assert again.get(blob_id(DATA)) == DATA
    assert again.bytes_used == len(DATA)
    assert not again.has_part(blob_id(DATA))


def test_what_was_kept_is_not_used_for_a_blob_said_to_be_smaller(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    part(blobs, DATA, 1000)
    writer = blobs.writer(blob_id(DATA), 10, resume=True)
    assert writer.read(0, 1000) == b""
    writer.discard()
    assert files(tmp_path) == []


def test_disk_begins_on_what_arrives_each_time_much_of_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all of it waits for the fsync at the end, which then takes as long as the disk needs for the whole."""
    monkeypatch.setattr(writer, "BEGIN_BYTES", 2000)
    begun: list[int] = []
    monkeypatch.setattr(writer, "begin_writing", begun.append)
    blobs = BlobStore(tmp_path)
    arriving = blobs.writer(blob_id(DATA), len(DATA))
    told = []
    for at in range(0, len(DATA), 1024):
        arriving.write(at, DATA[at : at + 1024])
        arriving.begin_writing()
        told.append(len(begun))
    assert told == [0, 1, 1, 2]
    assert set(begun) == {arriving._file.fileno()}
    arriving.discard()


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
def test_kernel_knows_the_call_that_begins_to_write(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(DATA)
        assert disk._sync_file_range(file.fileno(), 0, 0, disk._WRITE) == 0
        disk.begin_writing(file.fileno())


def test_two_writers_of_one_blob_do_not_share_a_file(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    one, two = (blobs.writer(blob_id(DATA), len(DATA), resume=True) for _ in range(2))
    two.write(0, DATA[:10])
    one.write(0, DATA)
    assert one.finish()
    assert blobs.get(blob_id(DATA)) == DATA
    two.discard()
    assert blobs.get(blob_id(DATA)) == DATA


def test_blobs_that_are_arriving_count_as_whole_for_the_limit(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, admit=lambda size: limit(lambda: blobs.bytes_used, 1000)(size))
    first = blobs.writer(blob_id(b"1"), 600)
    with pytest.raises(LocalError) as error:
        blobs.writer(blob_id(b"2"), 600)
    assert error.value.code == "disk_limit"
    first.discard()
    blobs.writer(blob_id(b"2"), 600).discard()
    assert blobs.bytes_used == 0


def test_what_was_kept_makes_room_for_what_comes_the_oldest_first(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, admit=lambda size: limit(lambda: blobs.bytes_used, 3 * 4096)(size))
    old, new = DATA, DATA[::-1]
    for data in (old, new):
        part(blobs, data, len(data))
    assert blobs.bytes_used == 2 * 4096  # what the disk gave them
    blobs.writer(blob_id(b"more"), 2 * 4096).discard()
    assert not blobs.has_part(blob_id(old))
    assert blobs.has_part(blob_id(new))
    with pytest.raises(LocalError):
        blobs.writer(blob_id(b"too much"), 4 * 4096)


def test_only_the_newest_are_kept_and_none_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT", 2)
    blobs = BlobStore(tmp_path)
    datas = [DATA + bytes([number]) for number in range(3)]
    for data in datas:
        part(blobs, data, 100)
    assert [blobs.has_part(blob_id(data)) for data in datas] == [False, True, True]
    blobs.drop_kept(time.time() - 1000)
    assert blobs.has_part(blob_id(datas[2]))
    blobs.drop_kept(time.time() + 1000)
    assert files(tmp_path) == []


# -- chunks


def test_list_of_chunks_is_kept_and_made_anew_where_it_was_torn(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    data = os.urandom(2 * CHUNK_BYTES + 5)
    name = blobs.put(data)
    hashes = [blob_id(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
    path = tmp_path / "lists" / name.hex()
    for _ in range(2):
        assert blobs.chunk_hashes(name) == hashes
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    blobs.delete(name)
    assert not path.exists()


def test_chunk_is_found_in_any_blob_and_never_one_that_went(tmp_path: Path) -> None:
    first = BlobStore(tmp_path)
    data = os.urandom(2 * CHUNK_BYTES)
    name, small = first.put(data), first.put(b"small")
    first.chunk_hashes(name)
    blobs = BlobStore(tmp_path)
    second = blob_id(data[CHUNK_BYTES:])
    assert blobs.chunk(second, CHUNK_BYTES) == data[CHUNK_BYTES:]
    assert blobs.chunk(small, 5) == b"small"
    assert blobs.chunk(blob_id(b"absent"), 6) is None
    blobs.delete(name)
    assert blobs.chunk(second, CHUNK_BYTES) is None


def test_lists_of_blobs_that_are_not_here_are_removed_at_start(tmp_path: Path) -> None:
    BlobStore(tmp_path).lists.put(blob_id(b"gone"), [bytes(32)] * 2)
    BlobStore(tmp_path)
    assert files(tmp_path) == []
