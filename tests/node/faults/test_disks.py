"""Disks that are full, read-only or torn: real files and SQLite, and the payer on a journal that refuses."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import trio

from fakes.payer_scene import PayerNode, Scene, honest_result, paid_units, result_of
from tallymesh.errors import LocalError
from tallymesh_node.payer import service
from tallymesh_node.store import Database, Life, SqlJournal, database
from tallymesh_node.store.errors import DAMAGED, RESTORE

LINES = 40
BODY = bytes(range(256)) * 8  # so that lines fill pages of their own


async def killed(folder: Path) -> list[bytes]:
    """What a node that was killed leaves: its file and its log, copied while they are open. The lines it holds."""
    live = folder / "live"
    with Database(live) as store:
        journal = SqlJournal(store)
        for number in range(LINES):
            await journal.append("a", ("k", b"%d " % number + BODY))
        for name in (database.FILE, f"{database.FILE}-wal"):
            shutil.copy(live / name, folder / name)
    return [b"%d " % number + BODY for number in range(LINES)]


def lines(folder: Path) -> list[bytes]:
    with Database(folder) as store:
        return [entry.body for entry in SqlJournal(store).read("a")]


@pytest.mark.slow
async def test_a_log_that_is_torn_anywhere_gives_whole_lines_from_the_first_on(tmp_path: Path) -> None:
    """A power cut in the middle of a write: what was acknowledged before is there, and nothing half."""
    written = await killed(tmp_path)
    log = tmp_path / f"{database.FILE}-wal"
    whole = log.read_bytes()
    found: set[int] = set()
    for number, cut in enumerate(range(0, len(whole), len(whole) // 12)):
        folder = tmp_path / f"cut {number}"
        folder.mkdir()
        shutil.copy(tmp_path / database.FILE, folder / database.FILE)
        (folder / log.name).write_bytes(whole[:cut])
        there = lines(folder)
        assert there == written[: len(there)]
        found.add(len(there))
    assert len(found) > 5, "it was cut in the middle of what it held"


@pytest.mark.slow
async def test_a_page_that_is_torn_is_found_when_a_node_that_was_killed_starts(tmp_path: Path) -> None:
    await killed(tmp_path)
    with Database(tmp_path):
        pass  # the log goes into the file
    whole = (tmp_path / database.FILE).read_bytes()
    log = tmp_path / f"{database.FILE}-wal"
    assert not log.exists()
    refused: list[LocalError] = []
    for page in range(1, len(whole) // 4096):
        torn = bytearray(whole)
        torn[page * 4096 : page * 4096 + 512] = bytes(512)
        (tmp_path / database.FILE).write_bytes(torn)
        log.write_bytes(b"")  # as of a node that did not end in good order
        try:
            with Database(tmp_path):
                pass
        except LocalError as error:
            refused.append(error)
        log.unlink(missing_ok=True)
    assert {(error.code, error.sentence, error.remedy) for error in refused} == {("disk", DAMAGED, RESTORE)}
    assert len(refused) > len(whole) // 4096 // 2, "overflow pages hold bytes of lines alone, whose signatures tell"


async def test_a_disk_that_turns_read_only_ends_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does so after an error: files that are open for writing refuse from then on."""
    with Database(tmp_path) as store:
        journal = SqlJournal(store)
        life = Life(tmp_path)
        await life.begin(journal, 1_800_000_000.0)
        journal.noted = life.note

        def refuse(file: int, data: bytes, offset: int) -> int:
            raise OSError(errno.EROFS, "Read-only file system")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refuse)
            life.beat(1_800_000_030.0)
            await journal.append("a", ("k", b"it got through"))
        await journal.append("a", ("k", b"and goes on"))
        life.close()
        assert [entry.body for entry in journal.read("a")] == [b"it got through", b"and goes on"]


async def test_a_disk_that_is_full_when_a_job_is_over_ends_no_node(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(3)
    full = True
    check = payer.journal.on_append

    def refuse(scope: str, kind: str, body: bytes) -> None:
        if full and scope == service.INDEX:
            raise LocalError("disk", "The disk that holds the node's state is full.")
        assert check is not None
        check(scope, kind, body)

    payer.journal.on_append = refuse
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=8)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        await trio.sleep(120)
        assert payer.service.job(job).status == "done"
        full = False
        await payer.wait_empty(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert sum(paid_units(scene, peer) for peer in peers) == 8
        payer.crash()
        await payer.start(nursery)
        assert payer.service.job(job).status == "done"
