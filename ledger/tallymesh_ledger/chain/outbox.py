"""Signed transactions that are not final yet, on disk before they are sent.

After a restart the same bytes can be sent again, which no chain takes twice, and a call that is still on its way is
found by its intent instead of being made once more. This module does not know a chain.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio

from tallymesh.errors import LocalError

LOCK_S = 10.0  # for another process of the same account to finish its statement


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One signed envelope. Several of one nonce replace each other; `intent` names what they are for."""

    account: bytes
    chain_id: int
    nonce: int
    hash: bytes
    raw: bytes
    intent: bytes
    at: float  # Unix time of the first envelope of this nonce


class Outbox(Protocol):
    """What `keep` was given is on disk when it returns. Raises LocalError `disk`."""

    async def load(self, account: bytes, chain_id: int) -> list[Sent]:
        """In the order in which they were signed."""

    async def keep(self, sent: Sent) -> None:
        """Once more is the same as once."""

    async def drop(self, hashes: Sequence[bytes]) -> None:
        """The envelopes of a nonce: one of them is final, or none can ever be."""


class MemoryOutbox:
    """For programs that live as long as their transactions: nothing outlasts the process."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Sent] = {}

    async def load(self, account: bytes, chain_id: int) -> list[Sent]:
        return [each for each in self._kept.values() if (each.account, each.chain_id) == (account, chain_id)]

    async def keep(self, sent: Sent) -> None:
        self._kept.setdefault(sent.hash, sent)

    async def drop(self, hashes: Sequence[bytes]) -> None:
        for hash_ in hashes:
            self._kept.pop(hash_, None)


class FileOutbox:
    """One SQLite file; several processes of one machine may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = trio.Lock()  # one statement at a time uses the connection, each in a thread: a sync may take long
        self._sql: sqlite3.Connection | None = None

    def close(self) -> None:
        if self._sql is not None:
            self._sql.close()
            self._sql = None

    async def load(self, account: bytes, chain_id: int) -> list[Sent]:
        rows = await self._run(
            "SELECT nonce, hash, raw, intent, at FROM sent WHERE account = ? AND chain_id = ? ORDER BY rowid",
            (account, str(chain_id)),
        )
        return [
            Sent(account=account, chain_id=chain_id, nonce=nonce, hash=hash_, raw=raw, intent=intent, at=at)
            for nonce, hash_, raw, intent, at in rows
        ]

    async def keep(self, sent: Sent) -> None:
        await self._run(
            "INSERT OR IGNORE INTO sent (account, chain_id, nonce, hash, raw, intent, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (sent.account, str(sent.chain_id), sent.nonce, sent.hash, sent.raw, sent.intent, sent.at),
        )

    async def drop(self, hashes: Sequence[bytes]) -> None:
        marks = ",".join("?" * len(hashes))
        await self._run(f"DELETE FROM sent WHERE hash IN ({marks})", tuple(hashes))  # noqa: S608 - only marks

    async def _run(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        async with self._turn:
            return await trio.to_thread.run_sync(self._execute, statement, values)

    def _execute(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            if self._sql is None:
                self._sql = self._open()
            return self._sql.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise LocalError(
                "disk",
                f"{self._path}, which holds the transactions on their way, cannot be used: {error}.",
                remedy="Free some space, or make the folder writable; nothing is sent before.",
            ) from None

    def _open(self) -> sqlite3.Connection:
        # the empty file first, so that the database never exists with more rights than its owner's
        os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))
        sql = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=LOCK_S)
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("PRAGMA synchronous = FULL")  # what is sent must not outlive its record, a power cut included
        sql.execute(
            "CREATE TABLE IF NOT EXISTS sent (account BLOB NOT NULL, chain_id TEXT NOT NULL, nonce INTEGER NOT NULL,"
            " hash BLOB NOT NULL UNIQUE, raw BLOB NOT NULL, intent BLOB NOT NULL, at REAL NOT NULL)"
        )
        return sql
