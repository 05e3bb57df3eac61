"""One suite for the journal in SQLite and the one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from fakes.journal import MemoryJournal
from tallymesh_node.interfaces import Entry, Journal
from tallymesh_node.store import Database, SqlJournal


class Journals:
    """Makes a journal, and the same one again as a new process would find it."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self.kind, self.folder, self.stack = kind, folder, stack
        self.memory = MemoryJournal()
        self.database: Database | None = None

    def open(self) -> Journal:
        if self.kind == "memory":
            return self.memory.copy()
        self.database = self.stack.enter_context(Database(self.folder))
        return SqlJournal(self.database)

    def again(self, journal: Journal) -> Journal:
        if isinstance(journal, MemoryJournal):
            return journal.copy()
        assert self.database is not None
        self.stack.pop_all().close()
        return self.open()


@pytest.fixture(params=["memory", "sql"])
def journals(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journals]:
    with ExitStack() as stack:
        yield (made := Journals(request.param, tmp_path, stack))
        made.stack.close()


async def test_an_unknown_scope_is_empty(journals: Journals) -> None:
    journal = journals.open()
    assert list(journal.read("nothing")) == []
    assert list(journal.scopes("")) == []
    await journal.drop("nothing")


async def test_lines_come_back_in_order_and_by_scope(journals: Journals) -> None:
    journal = journals.open()
    first = await journal.append("a/1", ("x", b"1"))
    last = await journal.append("a/2", ("y", b""), ("z", bytes(range(256))))
    assert last == first + 2
    assert list(journal.read("a/1")) == [Entry(first, "x", b"1")]
    assert list(journal.read("a/2")) == [Entry(first + 1, "y", b""), Entry(last, "z", bytes(range(256)))]
    assert list(journal.read("a/2", after=first + 1)) == [Entry(last, "z", bytes(range(256)))]


async def test_scopes_are_listed_by_prefix(journals: Journals) -> None:
    journal = journals.open()
    for scope in ("worker/b", "worker/a", "auditor/a", "worker", "workers"):
        await journal.append(scope, ("x", b""))
    assert list(journal.scopes("worker/")) == ["worker/a", "worker/b"]
    assert len(journal.scopes("")) == 5


async def test_a_prefix_is_not_a_pattern(journals: Journals) -> None:
    journal = journals.open()
    await journal.append("abc", ("x", b""))
    assert list(journal.scopes("a%")) == []
    assert list(journal.scopes("a_c")) == []


async def test_a_dropped_scope_is_gone_and_its_numbers_are_not_given_again(journals: Journals) -> None:
    journal = journals.open()
    await journal.append("a", ("x", b"1"))
    last = await journal.append("b", ("x", b"1"))
    await journal.drop("b")
    journal = journals.again(journal) if journals.kind == "sql" else journal
    assert list(journal.scopes("")) == ["a"]
    assert await journal.append("b", ("x", b"2")) > last


async def test_a_new_process_finds_everything(journals: Journals) -> None:
    journal = journals.open()
    numbers = [await journal.append("a", ("k", b"%d" % i)) for i in range(20)]
    journal = journals.again(journal)
    assert [entry.sequence for entry in journal.read("a")] == numbers
    assert [entry.body for entry in journal.read("a")] == [b"%d" % i for i in range(20)]


async def test_concurrent_appends_are_all_kept_whole(journals: Journals) -> None:
    journal = journals.open()

    async def writer(name: int) -> None:
        for i in range(10):
            await journal.append("a", ("first", b"%d/%d" % (name, i)), ("second", b"%d/%d" % (name, i)))

    async with trio.open_nursery() as nursery:
        for name in range(20):
            nursery.start_soon(writer, name)
    lines = list(journal.read("a"))
    assert len(lines) == 400
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        assert (first.kind, second.kind, first.body) == ("first", "second", second.body)
    for name in range(20):
        mine = [int(e.body.split(b"/")[1]) for e in lines[::2] if e.body.startswith(b"%d/" % name)]
        assert mine == list(range(10))
