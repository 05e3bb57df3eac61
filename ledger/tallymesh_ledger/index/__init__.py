"""An index of the contracts' events in SQLite or PostgreSQL: who has what, where it came from, and what proves it.

All of it follows from the chain and can be thrown away: `rebuild` makes the same index again, on either database.
"""

from __future__ import annotations

from tallymesh_ledger.index.catch_up import Follower, Progress
from tallymesh_ledger.index.database import Database
from tallymesh_ledger.index.effects import Purse
from tallymesh_ledger.index.queries import Earned, Entry, Head, JobSeen, Queries, SeatSeen, Settled

__all__ = [
    "Database",
    "Earned",
    "Entry",
    "Follower",
    "Head",
    "JobSeen",
    "Progress",
    "Purse",
    "Queries",
    "SeatSeen",
    "Settled",
]
