"""What happened in a job, for people: a bounded list with rising numbers, written down in batches.

Events follow from the book or pass by (logs, metrics); nothing depends on them. So they are not fsynced one by one: a
crash may lose the last half second of them, and numbers go on after a gap, so that no reader takes a new event for an
old one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import trio

from tallymesh.api import EventView
from tallymesh.errors import LocalError
from tallymesh_node.interfaces import Journal

SCOPE = "payer-events/"
MAX_EVENTS = 20_000  # kept in memory and shown
MAX_WRITTEN = 2 * MAX_EVENTS  # lines in the journal; then those that are not shown any more are taken out of it
MAX_UNWRITTEN = 2_000  # more than this in half a second and the oldest are not written down
WRITE_S = 0.5
LAST_S = 1.0  # for the last batch, when the driver ends
GAP = 100_000  # numbers skipped after a restart

_decoder = msgspec.json.Decoder(EventView)


class EventLog:
    def __init__(self, journal: Journal, job: str, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._scope = SCOPE + job
        self._clock = clock
        self._events: deque[EventView] = deque(maxlen=MAX_EVENTS)
        self._unwritten: deque[EventView] = deque(maxlen=MAX_UNWRITTEN)
        self._next = 1
        self._written = 0
        self._dropped = 0
        self._changed = trio.Event()

    def load(self) -> None:
        for entry in self._journal.read(self._scope):
            self._keep(_decoder.decode(entry.body))
            self._written += 1
        if self._events:
            self._next = self._events[-1].sequence + GAP
            self._dropped = max(self._dropped, self._events[0].sequence - 1)  # the journal keeps no more either

    @property
    def kept(self) -> tuple[int, int]:
        """Sequences: of the newest event that is no longer kept, and of the newest of all; 0 where there is none."""
        return self._dropped, self._events[-1].sequence if self._events else 0

    def add(self, kind: str, **data: Any) -> None:
        event = EventView(sequence=self._next, at=self._clock(), kind=kind, data=data)
        self._next += 1
        self._keep(event)
        self._unwritten.append(event)
        self._changed.set()
        self._changed = trio.Event()

    def _keep(self, event: EventView) -> None:
        if len(self._events) == self._events.maxlen:
            self._dropped = self._events[0].sequence
        self._events.append(event)

    def after(self, sequence: int) -> list[EventView]:
        if not self._events or self._events[-1].sequence <= sequence:
            return []
        found: list[EventView] = []
        for event in reversed(self._events):
            if event.sequence <= sequence:
                break
            found.append(event)
        return found[::-1]

    async def wait_after(self, sequence: int) -> list[EventView]:
        while not (found := self.after(sequence)):
            await self._changed.wait()
        return found

    async def write(self) -> None:
        """Everything so far, in one append."""
        batch = list(self._unwritten)
        self._unwritten.clear()
        if self._written + len(batch) > MAX_WRITTEN:
            # Whoever is quick to print must not fill the disk. A crash between the two loses what people read only.
            batch = list(self._events)
            await self._journal.drop(self._scope)
            self._written = 0
        if batch:
            await self._journal.append(self._scope, *[("event", msgspec.json.encode(event)) for event in batch])
            self._written += len(batch)

    async def run(self) -> None:
        """Write at once (after a crash with nothing written down numbers would begin anew), then from time to time, and
        once more at the end."""
        try:
            while True:
                await self.write()
                await trio.sleep(WRITE_S)
        finally:
            # Where the disk is full the book's own lines matter more, and they raise.
            with trio.CancelScope(deadline=trio.current_time() + LAST_S, shield=True), suppress(LocalError):
                await self.write()
