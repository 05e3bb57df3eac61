"""The database driver's exceptions as ours: whose fault it is and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from tallymesh.errors import LocalError

DAMAGED = "The node's state file is damaged."
RESTORE = "Restore it from a backup, or remove it and start anew."

# What SQLite says, in the order in which it is looked for, and what it means for the owner of the machine.
_MEANINGS: tuple[tuple[str, str, str], ...] = (
    ("disk is full", "The disk that holds the node's state is full.", "Free some space; the node goes on by itself."),
    ("readonly", "The node's state cannot be written: it is read-only.", "Make its folder writable for this user."),
    ("unable to open", "The node's state file cannot be opened.", "Check that its folder exists and is writable."),
    ("disk i/o error", "The disk that holds the node's state fails.", "Check the disk before starting the node again."),
    ("malformed", DAMAGED, RESTORE),
    ("not a database", DAMAGED, RESTORE),
)


@contextmanager
def mapped() -> Iterator[None]:
    """Errors of the database become LocalError: `locked` where another process holds it, else `disk`. A mistake of
    ours in a statement stays what it is: a bug."""
    try:
        yield
    except DBAPIError as error:
        text = str(error.orig).lower()
        if "locked" in text:
            raise LocalError(
                "locked",
                "Another process holds the node's state file.",
                remedy="Stop the other process that uses this folder.",
            ) from error
        for phrase, sentence, remedy in _MEANINGS:
            if phrase in text:
                raise LocalError("disk", sentence, remedy=remedy) from error
        raise
    except OSError as error:
        raise LocalError("disk", f"The node's state cannot be written: {error}.") from error
