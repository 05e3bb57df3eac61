"""A few values that the node keeps beside its journal: the offer's sequence number, the canary's cached result."""

from __future__ import annotations

from sqlalchemy import Connection, text

from tallymesh_node.store.database import Database

_GET = text("SELECT value FROM settings WHERE name = :name")
_SET = text(
    "INSERT INTO settings (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_REMOVE = text("DELETE FROM settings WHERE name = :name")


class Settings:
    """Bytes by name. The names are constants of those who use them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> bytes | None:
        return self._database.read(lambda connection: _get(connection, name))

    async def set(self, name: str, value: bytes) -> None:
        def work(connection: Connection) -> None:
            connection.execute(_SET, {"name": name, "value": value})

        await self._database.write(work)

    async def remove(self, name: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(_REMOVE, {"name": name})

        await self._database.write(work)

    async def next_number(self, name: str) -> int:
        """1, 2, 3, …: each number once for ever, also over crashes."""

        def work(connection: Connection) -> int:
            number = int(_get(connection, name) or b"0") + 1
            connection.execute(_SET, {"name": name, "value": b"%d" % number})
            return number

        return await self._database.write(work)


def _get(connection: Connection, name: str) -> bytes | None:
    value: bytes | None = connection.execute(_GET, {"name": name}).scalar_one_or_none()
    return value
