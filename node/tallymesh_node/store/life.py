"""Whether the node's memory is the one that it wrote last, or an older one that was put back from a backup.

A worker that forgot what it signed could be given another unit for a position that it has a receipt for, sign a second
leaf, and lose its stake by its own two words. So it has to notice. Two files beside the journal tell it:

- `life` is made once. The journal holds its inode and the time at which the file system last changed it, which copying,
  unpacking and synchronising cannot set: in a folder that was put back it is another one.
- `journal.head` holds how far the journal had come: a journal that was put back alone is behind it.

What neither shows is a whole disk put back as it was, by a snapshot. But such a node seems to have been off for long,
and one that was off for long has nothing to lose: its payers gave it up. So it leaves the seats of before in either
case; a snapshot of less than `AWAY_S` ago its owner has to tell (`touch` on the file `life` before the node starts). A
folder that was moved to another disk reads as put back, which costs nothing but open seats.
This module does not know what follows: see `worker.service` and `worker.doors`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from tallymesh.errors import LocalError
from tallymesh_node.interfaces import Entry, Journal
from tallymesh_node.store.journal import SqlJournal

log = logging.getLogger("tallymesh.store")

SCOPE = "life"  # of the journal
MARK, RESTORED, AWAY = "mark", "restored", "away"  # kinds of its lines
AWAY_S = 600.0  # off for so long: payers give a worker up after seconds, and no reboot takes as much
BEAT_S = 30.0  # between two signs of life in `journal.head`
LIFE, HEAD = "life", "journal.head"  # files


class Seen(NamedTuple):
    """Which file `life` is."""

    inode: int
    changed_ns: int


class Restored(NamedTuple):
    """The newest time that this memory was put back: what was written before this line may be old."""

    sequence: int
    at: float  # Unix time


class Life:
    """`begin` once, before anything is signed; `note` after every line, before anybody hears of it."""

    def __init__(self, folder: Path) -> None:
        self._life, self._head = folder / LIFE, folder / HEAD
        self._file = -1

    async def begin(self, journal: SqlJournal, now: float) -> Restored | None:
        """What `newest` says from now on. LocalError `disk` where that cannot be written down."""
        marks = [entry for entry in journal.read(SCOPE) if entry.kind == MARK]
        written = msgspec.msgpack.decode(marks[-1].body, type=Seen) if marks else None
        behind = self._noted() > journal.head()
        try:
            if written is None and not self._life.exists() and not behind:
                await self._mark(journal, ())
            elif written is None or written != self._seen() or behind or not self._head.exists():
                log.warning("this node's folder was put back from a backup, or moved: it leaves every seat")
                self._life.unlink(missing_ok=True)
                await self._mark(journal, ((RESTORED, msgspec.msgpack.encode(now)),))
            elif now - self._beaten() > AWAY_S:
                log.info("this node was off for long: it leaves the seats of then")
                await journal.append(SCOPE, (AWAY, msgspec.msgpack.encode(now)))
            self._file = os.open(self._head, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LocalError("disk", f"The files that guard against old backups cannot be written: {error}.") from None
        self.note(journal.head())
        self.beat(now)
        return newest(journal)

    def note(self, sequence: int) -> None:
        """The journal has come so far. Not synchronised: what a power cut takes of it is seconds, a backup is older."""
        self._put(0, sequence)

    def beat(self, now: float) -> None:
        """The node lives at this Unix time. Every BEAT_S, while it runs."""
        self._put(8, int(now))

    def _put(self, offset: int, number: int) -> None:
        """A disk that refuses it has refused the journal, too, or will; the node goes on when it has room again. What
        stays behind is on the safe side: an older head hides no backup that the journal itself does not show."""
        try:
            os.pwrite(self._file, number.to_bytes(8, "big"), offset)
        except OSError as error:
            log.error("%s cannot be written: %s", self._head, error)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def _mark(self, journal: Journal, before: Iterable[tuple[str, bytes]]) -> None:
        with self._life.open("xb") as file:
            file.write(b"The node tells by this file whether its folder was put back from a backup.\n")
            os.fsync(file.fileno())
        await journal.append(SCOPE, *before, (MARK, msgspec.msgpack.encode(self._seen())))

    def _seen(self) -> Seen | None:
        try:
            facts = self._life.stat()
        except FileNotFoundError:
            return None
        return Seen(facts.st_ino, facts.st_ctime_ns)

    def _noted(self) -> int:
        try:
            return int.from_bytes(self._head.read_bytes()[:8], "big")
        except FileNotFoundError:
            return 0

    def _beaten(self) -> float:
        """When the node lived last; never, where a version that did not say so wrote the file."""
        told = self._head.read_bytes()[8:16] if self._head.exists() else b""
        return int.from_bytes(told, "big") if told else math.inf


def newest(journal: Journal, *, away: bool = False) -> Restored | None:
    """When this memory was put back the last time; None where it never was. `away`: or may have been, because the node
    was off for long."""
    kinds = (RESTORED, AWAY) if away else (RESTORED,)
    lines: list[Entry] = [entry for entry in journal.read(SCOPE) if entry.kind in kinds]
    return Restored(lines[-1].sequence, msgspec.msgpack.decode(lines[-1].body, type=float)) if lines else None
