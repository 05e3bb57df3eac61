"""One SQLite file that holds all of an embedded chain: py-evm's key-value pairs, and an index of transactions and logs.

A file rather than a dictionary, so that a chain that mines a block every second for days does not grow in memory. Every
block is one SQL transaction: killed at any moment, the file holds whole blocks. This module does not know what a block
means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eth.db.backends.base import BaseDB

CACHE_ENTRIES = 20_000  # hot trie nodes and code kept in memory: about 10 MB
CACHE_VALUE_BYTES = 64 * 1024  # nothing larger is kept (contract code has at most 24 KiB)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transactions (
    hash BLOB PRIMARY KEY, block INTEGER NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL, receipt TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS transactions_block ON transactions (block, position);
CREATE TABLE IF NOT EXISTS logs (
    block INTEGER NOT NULL, position INTEGER NOT NULL, address BLOB NOT NULL,
    topic0 BLOB, topic1 BLOB, topic2 BLOB, topic3 BLOB, body TEXT NOT NULL, PRIMARY KEY (block, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS logs_address ON logs (address, topic0, block);
"""


class Store(BaseDB):  # type: ignore[misc]
    """py-evm's database interface, and the two indexes beside it."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None)
        # WAL and NORMAL survive kill -9; what is not to be kept needs neither journal nor sync
        self._sql.execute(f"PRAGMA journal_mode = {'WAL' if durable else 'OFF'}")
        self._sql.execute(f"PRAGMA synchronous = {'NORMAL' if durable else 'OFF'}")
        if not durable:
            self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._sql.executescript(_SCHEMA)
        self._cache: dict[bytes, bytes] = {}
        self._pending: dict[bytes, bytes | None] = {}

    def close(self) -> None:
        self._sql.close()

    # ---- py-evm's interface: writes wait for `block`, so that each block is one transaction

    def __getitem__(self, key: bytes) -> bytes:
        if key in self._pending:
            waiting = self._pending[key]
            if waiting is None:
                raise KeyError(key)
            return waiting
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        row = self._sql.execute("SELECT value FROM pairs WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        value: bytes = row[0]
        self._remember(key, value)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._pending[key] = bytes(value)

    def __delitem__(self, key: bytes) -> None:
        self._pending[key] = None

    def _exists(self, key: bytes) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    def _remember(self, key: bytes, value: bytes) -> None:
        if len(value) > CACHE_VALUE_BYTES:
            return
        if len(self._cache) >= CACHE_ENTRIES:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = value

    @contextmanager
    def block(self) -> Iterator[None]:
        """All writes inside are on disk together, or none are."""
        self._sql.execute("BEGIN")
        try:
            yield
            for key, value in self._pending.items():
                if value is None:
                    self._sql.execute("DELETE FROM pairs WHERE key = ?", (key,))
                    self._cache.pop(key, None)
                else:
                    self._sql.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?)", (key, value))
                    self._cache.pop(key, None)
                    self._remember(key, value)
        except BaseException:
            self._sql.execute("ROLLBACK")
            self._cache.clear()
            raise
        else:
            self._sql.execute("COMMIT")
        finally:
            self._pending.clear()

    # ---- the index

    def add_transaction(self, hash_: bytes, block: int, position: int, body: str, receipt: str) -> None:
        self._sql.execute("INSERT INTO transactions VALUES (?, ?, ?, ?, ?)", (hash_, block, position, body, receipt))

    def add_log(self, block: int, position: int, address: bytes, topics: Sequence[bytes], body: str) -> None:
        four = [*topics, None, None, None, None][:4]
        self._sql.execute("INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (block, position, address, *four, body))

    def transaction(self, hash_: bytes) -> tuple[int, str, str] | None:
        """(block number, body, receipt), both as JSON."""
        row = self._sql.execute("SELECT block, body, receipt FROM transactions WHERE hash = ?", (hash_,)).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def transactions_in(self, block: int) -> list[tuple[bytes, str, str]]:
        """(hash, body, receipt) in order."""
        sql = "SELECT hash, body, receipt FROM transactions WHERE block = ? ORDER BY position"
        return self._sql.execute(sql, (block,)).fetchall()

    def logs(
        self, start: int, end: int, addresses: Sequence[bytes], topics: Sequence[Sequence[bytes]], limit: int
    ) -> list[str]:
        """JSON of the matching logs of blocks `start` … `end`, in order, at most `limit`. An empty list matches all."""
        where, values = ["block BETWEEN ? AND ?"], [start, end]
        columns = [("address", addresses), *((f"topic{i}", wanted) for i, wanted in enumerate(topics))]
        for column, wanted in columns:
            if wanted:
                where.append(f"{column} IN ({','.join('?' * len(wanted))})")
                values.extend(wanted)  # type: ignore[arg-type]
        sql = f"SELECT body FROM logs WHERE {' AND '.join(where)} ORDER BY block, position LIMIT ?"  # noqa: S608
        return [row[0] for row in self._sql.execute(sql, (*values, limit))]

    def forget_above(self, block: int) -> None:
        """Drop the index of all blocks above `block`: the chain was wound back."""
        self._sql.execute("DELETE FROM transactions WHERE block > ?", (block,))
        self._sql.execute("DELETE FROM logs WHERE block > ?", (block,))
