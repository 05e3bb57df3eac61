"""One SQLite file, written by one thread that puts concurrent writes into one commit.

An fsync costs as much for a hundred lines as for one: while one commit is on its way to the disk, further writes
gather and share the next. Reads go through a connection of their own and never wait for the writer (WAL). This module
does not know what is written.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import outcome
import trio
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, StaticPool

from tallymesh.errors import LocalError
from tallymesh_node.store.errors import DAMAGED, RESTORE, mapped
from tallymesh_node.store.migrations import migrate

log = logging.getLogger(__name__)

FILE = "state.sqlite"
BUSY_S = 5.0  # another process (a backup, a person's sqlite3) may hold the file this long before we give up
MAX_WAITING = 1024  # writes that may wait for the writer; further ones wait for a place: bounds memory, not work
MAX_BATCH = 256  # writes in one commit: bounds how long the first of them waits

T = TypeVar("T")
Write = Callable[[Connection], T]


class _Request(Generic[T]):
    """One write and who waits for it."""

    __slots__ = ("done", "result", "token", "write")

    def __init__(self, write: Write[T]) -> None:
        self.write = write
        self.token = trio.lowlevel.current_trio_token()
        self.done = trio.Event()
        self.result: outcome.Outcome[T] | None = None

    def answer(self, result: outcome.Outcome[T]) -> None:
        self.result = result
        with contextlib.suppress(trio.RunFinishedError):  # the program is ending and nobody waits any more
            self.token.run_sync_soon(self.done.set)


class Database:
    """Open while it is entered; `write` is durable when it returns."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._waiting: queue.SimpleQueue[_Request[Any] | None] = queue.SimpleQueue()
        self._places = trio.Semaphore(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self.commits = 0
        self.refused: LocalError | None = None  # why the newest write could not be stored; None once one could

    def __repr__(self) -> str:
        return f"<Database {self.path} commits={self.commits}>"

    def __enter__(self) -> Database:
        with mapped():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The writer's connection lives as long as its engine and is used by the writer's thread alone, once open.
            killed = self.path.with_name(f"{FILE}-wal").exists()  # an end in good order leaves none
            self._writer = _engine(self.path, StaticPool)
            self._reader = _engine(self.path, NullPool)
            with self._writer.begin() as connection:
                if killed:
                    _check(connection)
                migrate(connection)
            self._opened = _identity(self.path)
        self._thread = threading.Thread(target=self._work, name="tallymesh-store", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._waiting.put(None)
        self._thread.join()
        self._thread = None
        self._writer.dispose()
        self._reader.dispose()

    async def write(self, work: Write[T]) -> T:
        """Run `work` in the writer's thread, inside a transaction that it may share with others; its result once
        committed. LocalError where the disk refuses: then nothing of it is stored."""
        assert self._thread is not None, "the database is not open"
        async with self._places:
            request = _Request(work)
            self._waiting.put(request)
            await request.done.wait()
        assert request.result is not None
        return request.result.unwrap()

    def read(self, work: Write[T]) -> T:
        """Run `work` on a read connection in the caller's thread: for start-up and single rows."""
        self._check_place()
        with mapped(), self._reader.connect() as connection:
            return work(connection)

    def _check_place(self) -> None:
        """A file that somebody deleted takes every write, and loses them all when the node ends."""
        if _identity(self.path) != self._opened:
            raise LocalError(
                "disk",
                f"The node's state file {self.path} was removed or replaced while the node ran.",
                remedy="Nothing more is signed. Put the file back from a backup, if there is one, and start the node.",
            )

    # The writer's thread.

    def _work(self) -> None:
        while True:
            request = self._waiting.get()
            if request is None:
                return
            batch = [request]
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    self._commit(batch)
                    return
                batch.append(more)
            self._commit(batch)

    def _commit(self, batch: list[_Request[Any]]) -> None:
        results = outcome.capture(self._together, batch)
        if isinstance(results, outcome.Value):
            self.refused = None
            for request, value in zip(batch, results.value, strict=True):
                request.answer(outcome.Value(value))
        elif len(batch) == 1:
            self.refused = results.error if isinstance(results.error, LocalError) else self.refused
            batch[0].answer(results)
        else:  # one bad write must not take the others with it
            for request in batch:
                self._commit([request])

    def _together(self, batch: list[_Request[Any]]) -> list[Any]:
        self._check_place()
        with mapped(), self._writer.begin() as connection:
            values = [request.write(connection) for request in batch]
        self.commits += 1
        return values


def _check(connection: Connection) -> None:
    """After a power cut: a page that is torn is found now, and not in the middle of a job. About a second for each
    hundred megabytes, so not at every start."""
    found: str = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        log.error("the state file is damaged: %s", found)
        raise LocalError("disk", DAMAGED, remedy=RESTORE)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file lies there now."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _engine(path: Path, pool: type[StaticPool] | type[NullPool]) -> Engine:
    arguments = {"check_same_thread": False, "timeout": BUSY_S, "isolation_level": None}
    engine = create_engine(f"sqlite:///{path}", poolclass=pool, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # every commit is fsynced: what we sign must survive a power cut
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # The driver's own transactions would commit before DDL; with isolation_level None they are ours.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if pool is StaticPool else "BEGIN")

    return engine
