"""What is particular to the SQLite file: shared commits, refusals of the disk, one node a folder, settings, kill -9."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection, text

from tallymesh.errors import LocalError
from tallymesh_node.store import Database, FolderLock, Settings, SqlJournal, database, lock, migrations


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path) as opened:
        yield opened


async def test_concurrent_appends_share_commits(store: Database) -> None:
    journal = SqlJournal(store)
    before = store.commits
    async with trio.open_nursery() as nursery:
        for i in range(200):
            nursery.start_soon(journal.append, "a", ("k", b"%d" % i))
    assert len(journal.read("a")) == 200
    assert store.commits - before < 100


async def test_every_commit_is_fsynced(store: Database) -> None:
    def work(connection: Connection) -> tuple[str, int]:
        mode = connection.execute(text("PRAGMA journal_mode")).scalar_one()
        return mode, connection.execute(text("PRAGMA synchronous")).scalar_one()

    assert await store.write(work) == ("wal", 2)  # 2 is FULL


async def test_a_full_disk_is_a_local_error_and_stores_nothing(store: Database) -> None:
    journal = SqlJournal(store)
    await journal.append("a", ("k", b"kept"))
    await store.write(lambda c: c.execute(text("PRAGMA max_page_count = 1")).scalar_one())
    with pytest.raises(LocalError) as caught:
        await journal.append("a", ("k", b"x"), ("k", bytes(1 << 20)))
    assert caught.value.code == "disk"
    assert "full" in caught.value.sentence
    assert store.refused is caught.value, "for the owner, who may not read the log"
    await store.write(lambda c: c.execute(text("PRAGMA max_page_count = 1000000")).scalar_one())
    assert store.refused is None
    assert [entry.body for entry in journal.read("a")] == [b"kept"]
    await journal.append("a", ("k", b"after"))  # and it goes on by itself


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_taken_away_takes_no_more_lines(store: Database, replaced: bool) -> None:
    """SQLite would go on with the open file, which is gone for good with the process: signed, and not on disk."""
    journal = SqlJournal(store)
    await journal.append("a", ("k", b"kept"))
    store.path.rename(store.path.with_name("elsewhere"))
    if replaced:
        store.path.touch()
    with pytest.raises(LocalError) as caught:
        await journal.append("a", ("k", b"lost"))
    assert caught.value.code == "disk"
    assert "removed or replaced" in caught.value.sentence
    with pytest.raises(LocalError):
        journal.read("a")
    assert store.path.exists() == replaced, "a look makes no new file"
    store.path.with_name("elsewhere").rename(store.path)
    await journal.append("a", ("k", b"after"))  # it was put back: it goes on by itself
    assert [entry.body for entry in journal.read("a")] == [b"kept", b"after"]


async def test_a_read_only_file_is_a_local_error(store: Database) -> None:
    await store.write(lambda c: c.execute(text("PRAGMA query_only = ON")).close())
    with pytest.raises(LocalError) as caught:
        await SqlJournal(store).append("a", ("k", b"x"))
    assert caught.value.code == "disk"
    assert "read-only" in caught.value.sentence


async def test_a_file_held_by_another_process_is_a_local_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    with Database(tmp_path) as store:
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LocalError) as caught:
            await SqlJournal(store).append("a", ("k", b"x"))
        assert caught.value.code == "locked"
        other.execute("ROLLBACK")
        other.close()
        await SqlJournal(store).append("a", ("k", b"x"))


def test_a_damaged_file_is_a_local_error(tmp_path: Path) -> None:
    (tmp_path / database.FILE).write_bytes(b"this is not a database, but long enough to look like one" * 100)
    with pytest.raises(LocalError) as caught, Database(tmp_path):
        pass
    assert caught.value.code == "disk"


def test_a_folder_that_cannot_be_made_is_a_local_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError) as caught, Database(tmp_path / "file"):
        pass
    assert caught.value.code == "disk"


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with Database(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / database.FILE)
    connection.execute(f"PRAGMA user_version = {len(migrations.STEPS) + 1}")
    connection.close()
    with pytest.raises(LocalError) as caught, Database(tmp_path):
        pass
    assert caught.value.code == "newer_state"


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (*migrations.STEPS, ("CREATE TABLE later (x TEXT)", "INSERT INTO missing VALUES (1)"))
    with Database(tmp_path):
        pass
    monkeypatch.setattr(migrations, "STEPS", steps)
    with pytest.raises(Exception, match="missing"), Database(tmp_path):
        pass
    monkeypatch.undo()
    with Database(tmp_path) as store:
        tables = store.read(lambda c: set(c.execute(text("SELECT name FROM sqlite_master")).scalars()))
    assert "later" not in tables


async def test_one_bad_write_does_not_take_the_others_with_it(store: Database) -> None:
    journal = SqlJournal(store)
    outcomes: list[str] = []

    def bad(connection: Connection) -> None:
        raise RuntimeError("a bug")

    async def write_bad() -> None:
        with pytest.raises(RuntimeError, match="a bug"):
            await store.write(bad)
        outcomes.append("bad")

    async def write_good(i: int) -> None:
        await journal.append("a", ("k", b"%d" % i))
        outcomes.append("good")

    async with trio.open_nursery() as nursery:
        for i in range(10):
            nursery.start_soon(write_good, i)
            nursery.start_soon(write_bad)
    assert sorted(entry.body for entry in journal.read("a")) == [b"%d" % i for i in range(10)]
    assert outcomes.count("bad") == outcomes.count("good") == 10


async def test_a_writer_that_is_cancelled_leaves_the_others_alone(store: Database) -> None:
    journal = SqlJournal(store)
    async with trio.open_nursery() as nursery:
        for i in range(50):
            nursery.start_soon(journal.append, "a", ("k", b"%d" % i))
        with trio.move_on_after(0):
            await journal.append("b", ("k", b""))
    assert len(journal.read("a")) == 50


def test_a_second_node_in_a_folder_is_refused(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "home"):
        with pytest.raises(LocalError) as caught, FolderLock(tmp_path / "home"):
            pass
        assert caught.value.code == "locked"
        assert str(os.getpid()) in caught.value.sentence
    with FolderLock(tmp_path / "home"):
        pass


def test_a_node_that_starts_while_somebody_asks_who_works_there_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FolderLock(tmp_path):
        pass
    asking = os.open(tmp_path / lock.NAME, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_EX)
    looks = []
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: looks.append(seconds) or fcntl.flock(asking, fcntl.LOCK_UN))
    with FolderLock(tmp_path):
        assert looks == [lock.LOOK_S]
        assert lock.holder(tmp_path) == os.getpid()
    os.close(asking)


async def test_settings_are_kept_and_numbers_given_once(tmp_path: Path) -> None:
    with Database(tmp_path) as store:
        settings = Settings(store)
        assert settings.get("canary") is None
        await settings.set("canary", b"one")
        await settings.set("canary", b"two")
        assert [await settings.next_number("offer") for _ in range(3)] == [1, 2, 3]
    with Database(tmp_path) as store:
        settings = Settings(store)
        assert settings.get("canary") == b"two"
        assert await settings.next_number("offer") == 4
        await settings.remove("canary")
        assert settings.get("canary") is None


CHILD = """
import sys, trio
from pathlib import Path
from tallymesh_node.store import Database, SqlJournal

async def main():
    with Database(Path(sys.argv[1])) as store:
        journal = SqlJournal(store)
        async def write(name):
            for i in range(100_000):
                await journal.append(f"s/{name}", ("a", b"%d" % i), ("b", b"%d" % i))
                sys.stdout.write(f"{name} {i}\\n"); sys.stdout.flush()
        async with trio.open_nursery() as nursery:
            for name in range(4):
                nursery.start_soon(write, name)
trio.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 7, 40, 200])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, lines: int) -> None:
    acknowledged: dict[str, int] = {}
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for count, line in enumerate(child.stdout):
            if count == lines:
                child.send_signal(signal.SIGKILL)
            if line.endswith("\n"):  # what came through the pipe after the kill was acknowledged as well
                name, number = line.split()
                acknowledged[name] = int(number)
    assert child.returncode == -signal.SIGKILL
    with Database(tmp_path) as store:
        journal = SqlJournal(store)
        for name, number in acknowledged.items():
            found = [(entry.kind, entry.body) for entry in journal.read(f"s/{name}")]
            assert len(found) % 2 == 0  # both lines of an append, or none
            assert found[: 2 * number + 2] == [(k, b"%d" % i) for i in range(number + 1) for k in ("a", "b")]
