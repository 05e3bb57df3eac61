"""`Journal` in memory, passing the same suite as the SQL one; `copy` is what a crash after any line would leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from tallymesh.errors import LocalError
from tallymesh_node.interfaces import Entry


class MemoryJournal:
    """Lines by scope. A test may set `broken` (the disk refuses) or `on_append`, which is called with (scope, kind,
    body) before a line is stored and may raise."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Entry]] = {}
        self._head = 0
        self.broken = False
        self.on_append: Callable[[str, str, bytes], None] | None = None

    async def append(self, scope: str, *lines: tuple[str, bytes]) -> int:
        assert lines, "an empty append means nothing"
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise LocalError("disk", "The disk that holds the node's state is full.")
        for kind, body in lines:
            if self.on_append is not None:
                self.on_append(scope, kind, body)
        for kind, body in lines:
            self._head += 1
            self._lines.setdefault(scope, []).append(Entry(self._head, kind, bytes(body)))
        return self._head

    def read(self, scope: str, after: int = 0) -> Sequence[Entry]:
        return [entry for entry in self._lines.get(scope, ()) if entry.sequence > after]

    def scopes(self, prefix: str) -> Sequence[str]:
        return sorted(scope for scope in self._lines if scope.startswith(prefix))

    async def drop(self, scope: str) -> None:
        await trio.lowlevel.checkpoint()
        self._lines.pop(scope, None)

    def copy(self, lines: int | None = None) -> MemoryJournal:
        """A journal holding the first `lines` lines of this one (all by default): what a crash there would leave."""
        twin = MemoryJournal()
        entries = sorted(
            ((entry, scope) for scope, found in self._lines.items() for entry in found), key=lambda e: e[0].sequence
        )
        for entry, scope in entries[:lines]:
            twin._lines.setdefault(scope, []).append(entry)
            twin._head = entry.sequence
        return twin
