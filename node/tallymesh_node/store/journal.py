"""The journal: what this node signed, promised or learned, line by line, durable before anybody hears of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, bindparam, text

from tallymesh_node.interfaces import Entry
from tallymesh_node.store.database import Database

_INSERT = text("INSERT INTO journal (sequence, scope, kind, body) VALUES (:sequence, :scope, :kind, :body)")
_READ = text("SELECT sequence, kind, body FROM journal WHERE scope = :scope AND sequence > :after ORDER BY sequence")
_SCOPES = text("SELECT DISTINCT scope FROM journal WHERE scope >= :first AND scope < :last ORDER BY scope")
_HEAD = text("UPDATE journal_head SET sequence = :sequence").bindparams(bindparam("sequence"))
_DROP = text("DELETE FROM journal WHERE scope = :scope")


class SqlJournal:
    """`Journal` in the node's database (see interfaces.py for the contract). Sequence numbers rise over all scopes and
    are never given twice, not even after a scope was dropped."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.noted: Callable[[int], None] | None = None  # hears of each append once it is durable (store.life)
        self._newest = 0

    async def append(self, scope: str, *lines: tuple[str, bytes]) -> int:
        assert lines, "an empty append means nothing"

        def work(connection: Connection) -> int:
            head: int = connection.execute(text("SELECT sequence FROM journal_head")).scalar_one()
            rows = [
                {"sequence": head + index, "scope": scope, "kind": kind, "body": body}
                for index, (kind, body) in enumerate(lines, 1)
            ]
            connection.execute(_INSERT, rows)
            connection.execute(_HEAD, {"sequence": head + len(rows)})
            return head + len(rows)

        sequence = await self._database.write(work)
        if self.noted is not None:
            self._newest = max(self._newest, sequence)  # appends that share a commit come back in any order
            self.noted(self._newest)
        return sequence

    def head(self) -> int:
        """The last sequence number that was given."""

        def work(connection: Connection) -> int:
            head: int = connection.execute(text("SELECT sequence FROM journal_head")).scalar_one()
            return head

        return self._database.read(work)

    def read(self, scope: str, after: int = 0) -> Sequence[Entry]:
        def work(connection: Connection) -> list[Entry]:
            rows = connection.execute(_READ, {"scope": scope, "after": after})
            return [Entry(sequence, kind, body) for sequence, kind, body in rows]

        return self._database.read(work)

    def scopes(self, prefix: str) -> Sequence[str]:
        def work(connection: Connection) -> list[str]:
            # U+10FFFF sorts after every character of a scope: the range is the prefix, and the index serves it
            rows = connection.execute(_SCOPES, {"first": prefix, "last": prefix + "\U0010ffff"})
            return [scope for (scope,) in rows]

        return self._database.read(work)

    async def drop(self, scope: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(_DROP, {"scope": scope})

        await self._database.write(work)
