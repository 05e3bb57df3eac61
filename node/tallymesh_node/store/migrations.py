"""The schema as numbered steps. A step that was ever released is never changed: what follows is a new step.

Types and statements are those that SQLite and PostgreSQL share. Only where the number is kept differs; SQLite has a
place for it in the file's header.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from tallymesh.errors import LocalError

BLOB = "BLOB"  # PostgreSQL calls it BYTEA; a later backend by URL replaces the word

STEPS: tuple[tuple[str, ...], ...] = (
    (
        # 1: the journal, the highest sequence number ever given (so that none is given twice), and the settings
        "CREATE TABLE journal (sequence BIGINT PRIMARY KEY, scope TEXT NOT NULL, kind TEXT NOT NULL,"
        f" body {BLOB} NOT NULL)",
        "CREATE INDEX journal_scope ON journal (scope, sequence)",
        "CREATE TABLE journal_head (sequence BIGINT NOT NULL)",
        "INSERT INTO journal_head (sequence) VALUES (0)",
        f"CREATE TABLE settings (name TEXT PRIMARY KEY, value {BLOB} NOT NULL)",
    ),
)


def migrate(connection: Connection) -> None:
    """Bring the schema to the newest step, within the caller's transaction."""
    found: int = connection.execute(text("PRAGMA user_version")).scalar_one()
    if found > len(STEPS):
        raise LocalError(
            "newer_state",
            f"The node's state was written by a newer version (schema {found}, this one knows {len(STEPS)}).",
            remedy="Install that version again, or give this one a folder of its own by TALLYMESH_HOME.",
        )
    for step in STEPS[found:]:
        for statement in step:
            connection.execute(text(statement))
    connection.execute(text(f"PRAGMA user_version = {len(STEPS)}"))
