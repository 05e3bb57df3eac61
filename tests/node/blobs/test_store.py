"""Blobs on disk: whole or not at all, whenever the process was killed, whatever the disk does."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import BlobId, blob_id
from tallymesh_node.blobs import BlobStore, store
from tallymesh_node.blobs.store import CHUNK_BYTES, limit


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
    original = store._hash_file

    def spy(path: Path) -> bytes:
        hashed.append(path.name)
        return original(path)

    monkeypatch.setattr(store, "_hash_file", spy)
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


def test_sync_waits_for_another_that_is_under_way(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs.put(b"abcd")
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    original = os.fsync

    def slow(descriptor: int) -> None:
        begun.set()
        assert go_on.wait(5)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    first = threading.Thread(target=blobs.sync)
    second = threading.Thread(target=lambda: (blobs.sync(), done.set()))
    first.start()
    assert begun.wait(5)
    second.start()
    assert not done.wait(0.05)  # nothing is left to do, but it is not done
    go_on.set()
    first.join(5)
    second.join(5)
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
