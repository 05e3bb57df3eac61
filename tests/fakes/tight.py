"""A disk limit so tight that whatever comes pushes something out: a node of fakes gets a real store under a real Room,
full of what nobody needs any more, and other jobs' blobs keep coming for as long as the test goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio
from msgspec.structs import replace

from fakes.chain import STARTED
from tallymesh.errors import LocalError
from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh_node.blobs import BlobStore
from tallymesh_node.blobs.room import Holder, Room

SIZE = 4096  # of what lies there and what comes; all that a unit of these tests takes and gives is smaller
OLD = 10  # of them that were not used for a month: one goes for each that comes, until those that came are stale
MONTH_S = 30 * 24 * 3600.0
EVERY_S = 60.0  # something comes
OWN = 1024  # at most, of a blob that the node itself fetches


class Tight:
    """The `node`'s blobs from now on; `holders` says who needs what, of the services that run now. Without `by_age`
    the rule is taken out that keeps what came while a claim or a case is open."""

    def __init__(self, node: Any, holders: Callable[[], Sequence[Holder]], *, by_age: bool = True) -> None:
        self._holders = holders
        self._by_age = by_age
        folder = node.blobs.folder / "tight"
        self.store = store = BlobStore(folder, clock=_clock, admit=lambda size: self.room.admit(size))
        self.room = Room(store, limit=lambda: self.limit, disk_free=lambda: 1 << 50, clock=_clock)
        self.room.open()
        self.limit = 1 << 30
        for path in node.blobs.folder.iterdir():
            if path.is_file():
                store.put(path.read_bytes())
        for number in range(OLD):
            store._used[store.put(_filler(number))] = _clock() - MONTH_S
        self.limit = store.bytes_used + SIZE // 2
        self.came = 0
        self.refused: list[str] = []
        self._fetch = node.blobs.fetch
        for name in ("has", "path", "get", "put"):
            setattr(node.blobs, name, getattr(store, name))
        node.blobs.fetch = self.fetch

    async def fetch(self, blob: BlobId, sources: Sequence[Source], *, ticket: bytes, timeout_s: float) -> None:
        if not self.store.has(blob):
            await self._make(OWN)
        await self._fetch(blob, sources, ticket=ticket, timeout_s=timeout_s)

    async def _make(self, size: int) -> None:
        holders = self._holders()
        self.room.holders = holders if self._by_age else [replace(each, lately_s=float) for each in holders]
        await self.room.make(size)

    async def run(self) -> None:
        """Blobs of other jobs come. Until cancelled."""
        while True:
            try:
                await self._make(SIZE)
                self.store.put(_filler(OLD + self.came))
                self.came += 1
            except LocalError as error:
                if error.code != "no_room":
                    raise
                self.refused.append(error.sentence)
            await trio.sleep(EVERY_S)


def _clock() -> float:
    return STARTED + trio.current_time()


def _filler(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)
