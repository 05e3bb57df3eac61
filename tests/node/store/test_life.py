"""A folder that was put back from a backup is noticed, whichever part of it was; one that was only stopped is not."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from tallymesh_node.store import Database, Life, SqlJournal
from tallymesh_node.store.life import AWAY_S, HEAD, LIFE, newest

DATABASE = "state.sqlite"


async def lives(home: Path, *, lines: int, now: float = 1000.0) -> bool:
    """One run of a node that writes so many lines; whether it took its folder for an old one."""
    with Database(home) as database, closing(Life(home)) as life:
        journal = SqlJournal(database)
        before = newest(journal)
        found = await life.begin(journal, now)
        journal.noted = life.note
        for number in range(lines):
            await journal.append("worker/x", ("receipt", b"%d" % number))
        assert found == newest(journal)
        return found != before


async def test_a_folder_that_was_only_stopped_is_the_same_life(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert not await lives(home, lines=3)
    assert not await lives(home, lines=0)
    assert not await lives(home, lines=5)


@pytest.mark.parametrize("how", ["copied", "unpacked"])
async def test_a_whole_folder_that_was_put_back_is_noticed_once(tmp_path: Path, how: str) -> None:
    home = tmp_path / "home"
    await lives(home, lines=3)
    if how == "copied":
        shutil.copytree(home, tmp_path / "backup", copy_function=shutil.copy2)
    else:
        shutil.make_archive(str(tmp_path / "backup"), "tar", home)
    await lives(home, lines=3)
    shutil.rmtree(home)
    if how == "copied":
        shutil.copytree(tmp_path / "backup", home, copy_function=shutil.copy2)
    else:
        shutil.unpack_archive(tmp_path / "backup.tar", home)
    assert await lives(home, lines=1, now=2000.0)
    assert not await lives(home, lines=1, now=2060.0), "told once; what was written since is its own"


async def test_a_journal_that_was_put_back_alone_is_noticed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await lives(home, lines=3)
    shutil.copy2(home / DATABASE, tmp_path / DATABASE)
    await lives(home, lines=3)
    shutil.copy2(tmp_path / DATABASE, home / DATABASE)
    assert await lives(home, lines=0)


@pytest.mark.parametrize("lost", [DATABASE, LIFE, HEAD])
async def test_whatever_of_its_memory_is_gone_is_noticed(tmp_path: Path, lost: str) -> None:
    home = tmp_path / "home"
    await lives(home, lines=3)
    (home / lost).unlink()
    assert await lives(home, lines=3)
    assert not await lives(home, lines=0)


async def test_an_owner_that_put_a_whole_disk_back_can_say_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await lives(home, lines=3)
    (home / LIFE).touch()
    assert await lives(home, lines=0)


async def test_a_crash_while_it_was_written_down_tells_it_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await lives(home, lines=3)
    (home / LIFE).unlink()
    (home / LIFE).touch()  # the new file is there, the journal does not know it
    assert await lives(home, lines=0)


async def test_a_folder_of_a_version_that_kept_no_such_files_is_taken_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Database(home) as database:
        await SqlJournal(database).append("worker/x", ("receipt", b""))
    assert not await lives(home, lines=1)
    assert not await lives(home, lines=1)


async def seats_of_before_are_left(home: Path, *, now: float) -> bool:
    """One run at that time; whether what was written before it may have been forgotten in part."""
    with Database(home) as database, closing(Life(home)) as life:
        journal = SqlJournal(database)
        before = newest(journal, away=True)
        await life.begin(journal, now)
        journal.noted = life.note
        await journal.append("worker/x", ("receipt", b""))
        life.beat(now + 100)
        return newest(journal, away=True) != before


async def test_after_a_day_off_the_seats_of_then_are_left_for_it_may_be_a_snapshot(tmp_path: Path) -> None:
    """A disk that was put back whole has the same files, inode for inode: only the time tells."""
    home = tmp_path / "home"
    assert not await seats_of_before_are_left(home, now=1_000.0)
    assert not await seats_of_before_are_left(home, now=1_100.0 + AWAY_S), "a reboot"
    assert await seats_of_before_are_left(home, now=1_300.0 + AWAY_S + 24 * 3600)
    with Database(home) as database:
        assert newest(SqlJournal(database)) is None, "leases are taken at once: nobody put anything back"


async def test_a_folder_without_signs_of_life_is_not_taken_for_one_that_was_off(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await seats_of_before_are_left(home, now=1_000.0)
    (home / HEAD).write_bytes((home / HEAD).read_bytes()[:8])  # as an older version left it
    assert not await seats_of_before_are_left(home, now=1e9)
