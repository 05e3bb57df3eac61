"""Drops blobs that nothing of this node stands for any more: programs, inputs and outputs of seats whose evidence
nobody can ask for (`tallymesh_ledger.windows`), and what was fetched for audits that are over.

A blob is kept while a role holds it or its owner has it pinned, and for a while after it came, whoever fetched it.
Where the node's owner orders jobs nothing is dropped by age: what lies there is the owner's own, and goes when room is
needed (`room`). This module does not know what the roles are.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from tallymesh.errors import LocalError
from tallymesh.ids import BlobId
from tallymesh_node.blobs.store import BlobStore

log = logging.getLogger(__name__)

SWEEP_S = 3600.0
# A blob that came is dropped no sooner: an audit on chain that it was fetched for has three ranks of auditors of six
# hours each, and a member of the Court votes within eight.
YOUNG_S = 48 * 3600.0

Held = Callable[[], Awaitable[set[BlobId]]]


class Sweeper:
    """`held` names what the roles' journals stand for, `wanted` says it at once of one blob, as of now; while `busy`
    says so nothing is dropped: an audit runs on what is here."""

    def __init__(
        self,
        store: BlobStore,
        held: Held,
        *,
        wanted: Callable[[BlobId], bool],
        busy: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._held = held
        self._wanted = wanted
        self._busy = busy
        self._clock = clock
        self.dropped = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except LocalError as error:
                log.error("old blobs cannot be dropped: %s", error)

    async def sweep(self) -> None:
        """One pass over the store."""
        self._store.drop_kept(self._clock() - YOUNG_S)
        if self._busy():
            return
        held = await self._held()
        for blob in self._store:
            old = self._store.has(blob) and self._clock() - self._store.came_at(blob) > YOUNG_S
            # A role may have begun something while we went through the rest: hence `wanted` and `busy` here again.
            kept = blob in held or blob in self._store.pins
            if old and not kept and not self._wanted(blob) and not self._busy():
                self._store.delete(blob)
                self.dropped += 1
            await trio.lowlevel.checkpoint()
