"""The index's tables, once for both databases. Rows are only ever added, and taken back from a block on.

Amounts are decimal text (SQLite has no integers of 96 bits), so they are added up in Python, exactly. `version` in
`meta` stands for this schema and for the rules of effects.py: an index of another version is made anew.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

from tallymesh_ledger.index.effects import RULES

LAYOUT = 2  # raised when a table, or what quarrels.py says, changes


class Wei(TypeDecorator[int]):
    """An int of any size as decimal text."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


metadata = MetaData()

meta = Table(
    "meta", metadata, Column("name", String, primary_key=True), Column("value", Text, nullable=False)
)  # fmt: skip

# How far the chain was read: one row. A writer takes its turn by changing it from what it found.
cursor = Table(
    "cursor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("time", BigInteger, nullable=False),
)

# Blocks whose hash is kept: those with events, and the newest ends of what was read.
blocks = Table(
    "blocks",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("events", Integer, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("log", Integer, primary_key=True, autoincrement=False),
    Column("tx", LargeBinary, nullable=False),
    Column("contract", String, nullable=False),
    Column("name", String, nullable=False),  # "" where the ABI does not know it
    Column("job", LargeBinary),
    Column("seat", LargeBinary),
    Column("details", Text, nullable=False),  # JSON: bytes as 0x…, numbers as decimal text
    Index("events_job", "job", "block", "log"),
    Index("events_seat", "seat", "block", "log"),
    Index("events_name", "contract", "name", "block", "log"),
)

moves = Table(
    "moves",
    metadata,
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("log", Integer, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("account", LargeBinary, nullable=False),
    Column("purse", String, nullable=False),
    Column("amount", Wei, nullable=False),
    Index("moves_account", "account", "block", "log", "part"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job", LargeBinary, primary_key=True),
    Column("block", BigInteger, nullable=False),
    Column("payer", LargeBinary, nullable=False),
    Column("signer", LargeBinary, nullable=False),
    Column("wages", Wei, nullable=False),
    Column("reserve", Wei, nullable=False),
    Index("jobs_payer", "payer", "block"),
    Index("jobs_block", "block"),
)

seats = Table(
    "seats",
    metadata,
    Column("seat", LargeBinary, primary_key=True),
    Column("block", BigInteger, nullable=False),
    Column("job", LargeBinary, nullable=False),
    Column("worker", LargeBinary, nullable=False),
    Column("price", Wei, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("lock", Wei, nullable=False),
    Column("until", BigInteger, nullable=False),
    Index("seats_job", "job"),
    Index("seats_block", "block"),
)

# Claims, accusations and the Court's cases, by what the contracts call them.
quarrels = Table(
    "quarrels",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("block", BigInteger, nullable=False),
    Column("seat", LargeBinary, nullable=False),
    Index("quarrels_block", "block"),
)

FROM_BLOCKS = ((blocks, blocks.c.number), *((table, table.c.block) for table in (events, moves, jobs, seats, quarrels)))


def version() -> str:
    """Of tables and rules together."""
    rules = "\n".join(f"{key} {rule.moves} {rule.earns}" for key, rule in sorted(RULES.items()))
    return f"{LAYOUT}-{hashlib.sha256(rules.encode()).hexdigest()[:16]}"
