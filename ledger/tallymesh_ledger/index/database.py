"""Where an index is kept: a file (SQLite) or a server (PostgreSQL), by URL, behind the same few methods.

This is the only module that knows which of the two it is. Queries and tables are the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from tallymesh.errors import CallerError, LocalError
from tallymesh_ledger.index import schema

BUSY_S = 30.0  # another process may be writing a page of the same index: it takes a second or two
CONNECT_S = 10  # for a server that does not answer
_LOCK = 0x7A11_9E54  # any number that others do not use: PostgreSQL's name for "somebody writes an index"


class Database:
    """`url`: `postgresql://user@host/name`, `sqlite:///file`, or the path of a file. Open while it is entered.

    `write` is one transaction, all or nothing; `read` sees one state of the index however many statements it takes.
    Any number of processes may use one index at once.
    """

    def __init__(self, url: str) -> None:
        self.url = _url(url)
        self._engine: Engine | None = None

    def __repr__(self) -> str:
        return f"<Database {self.url.render_as_string()}>"

    @property
    def shown(self) -> str:
        """For people: the path, or the URL without its password."""
        return str(self.url.database) if self._file else self.url.render_as_string()

    @property
    def _file(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def __enter__(self) -> Self:
        with self._mapped():
            self._engine = _sqlite(self.url) if self._file else _postgresql(self.url)
        try:
            with self.write() as connection:
                schema.metadata.create_all(connection)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is alone: others wait for its end. LocalError where the database refuses."""
        assert self._engine is not None, "the index is not open"
        options: dict[str, Any] = {"tallymesh_write": True}
        with self._mapped(), self._engine.connect().execution_options(**options) as connection, connection.begin():
            if not self._file:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        assert self._engine is not None, "the index is not open"
        options: dict[str, Any] = {} if self._file else {"isolation_level": "REPEATABLE READ"}
        with self._mapped(), self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def clear(self) -> None:
        """Drop all tables and make them anew."""
        with self.write() as connection:
            schema.metadata.drop_all(connection)
            schema.metadata.create_all(connection)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """The drivers' errors as ours. A mistake of ours in a statement stays what it is."""
        try:
            yield
        except DBAPIError as error:
            name = type(error).__name__
            if name not in ("OperationalError", "DatabaseError", "InterfaceError"):
                raise
            said = str(error.orig).strip().splitlines()[0][:200] if str(error.orig).strip() else name
            raise LocalError(
                "index",
                f"The index in {self.shown} cannot be used: {said}.",
                remedy="Make its folder writable, or name another place with --index."
                if self._file
                else "Check that the server runs and that the URL, user and password are right.",
            ) from error
        except OSError as error:
            raise LocalError("index", f"The index in {self.shown} cannot be used: {error}.") from error


def _url(text_: str) -> URL:
    given = text_ if "://" in text_ else f"sqlite:///{Path(text_).expanduser().absolute()}"
    try:
        url = make_url(given)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        backend = ""
    if backend == "postgres":  # how many tools still write it
        backend, url = "postgresql", url.set(drivername="postgresql")
    if backend not in ("sqlite", "postgresql") or (backend == "sqlite" and url.database in (None, "", ":memory:")):
        raise CallerError(
            "bad_index_url",
            "An index is kept in SQLite or PostgreSQL.",
            remedy="Write a path, sqlite:///file, or postgresql://user@host/name.",
        )
    return url if backend == "sqlite" else url.set(drivername="postgresql+psycopg")


def _sqlite(url: URL) -> Engine:
    assert url.database
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    arguments = {"check_same_thread": False, "timeout": BUSY_S, "isolation_level": None}
    engine = create_engine(url, poolclass=NullPool, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost pages, which the chain still has
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # the driver's own transactions would commit before DDL; with isolation_level None they are ours
        writes = connection.get_execution_options().get("tallymesh_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    try:
        return create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_S})
    except ImportError:
        raise LocalError(
            "no_driver",
            "PostgreSQL's driver is not installed.",
            remedy="pip install 'tallymesh[postgresql]'",
        ) from None
