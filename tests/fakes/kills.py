"""kill -9 of nodes that are made of fakes: what a node was doing ends at once, nothing is told, nothing is finished; a
while later it is started again with its journal, its blobs and the chain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import trio
import trio.testing

from fakes.journal import MemoryJournal


class Killed(Exception):
    """A node's process is gone in the middle of what it did."""


class Trap:
    """Kills a node once, at the first line of a kind in a scope that begins so: before it is stored, or once it is."""

    def __init__(self, journal: MemoryJournal, kind: str, *, after: bool, scopes: str = "") -> None:
        self.kind, self.after, self.scopes = kind, after, scopes
        self.sprung = False
        self._append = journal.append
        journal.append = self.append  # type: ignore[method-assign]  # of this one node's

    async def append(self, scope: str, *lines: tuple[str, bytes]) -> int:
        hit = not self.sprung and scope.startswith(self.scopes) and any(kind == self.kind for kind, _ in lines)
        self.sprung = self.sprung or hit
        if hit and not self.after:
            raise Killed
        sequence = await self._append(scope, *lines)
        if hit:
            raise Killed
        return sequence


def noted(
    call: Callable[..., Awaitable[None]], journal: MemoryJournal, scopes: str, kind: str, seen: list[bool]
) -> Callable[..., Awaitable[None]]:
    """The same call; whether a line of this kind was on disk each time that it was made goes into `seen`."""

    async def watched(*values: Any, **more: Any) -> None:
        seen.append(any(entry.kind == kind for scope in journal.scopes(scopes) for entry in journal.read(scope)))
        await call(*values, **more)

    return watched


class Hosts(ABC):
    """Nodes, each a task of its own, which may be stopped and started. A node is whatever `_life` can enter."""

    OFF_S: ClassVar[float]  # that a node which died of `Killed` stays off
    PATIENCE_S: ClassVar[float]  # of `until`, virtual time

    def __init__(self) -> None:
        self.killed = 0
        self._scopes: dict[str, trio.CancelScope] = {}  # by peer
        self._nursery: trio.Nursery

    @abstractmethod
    def _life(self, node: Any) -> AbstractAsyncContextManager[Any]: ...

    @asynccontextmanager
    async def _alive(self, *nodes: Any) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self.start(*nodes)
            yield
            nursery.cancel_scope.cancel()

    async def start(self, *nodes: Any) -> None:
        for node in nodes:
            self._scopes[node.peer_id] = await self._nursery.start(self._host, node)

    async def stop(self, *nodes: Any) -> None:
        """kill -9: nothing is told, nothing is finished."""
        for node in nodes:
            self._scopes.pop(node.peer_id).cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def _host(self, node: Any, task_status: Any) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                try:
                    async with self._life(node):
                        await trio.sleep_forever()
                except BaseExceptionGroup as group:
                    if group.split(Killed)[1] is not None:
                        raise
                self.killed += 1
                await trio.sleep(self.OFF_S)

    async def until(self, condition: Callable[[], Any], *, timeout_s: float | None = None) -> Any:
        with trio.fail_after(self.PATIENCE_S if timeout_s is None else timeout_s):
            while not (found := condition()):  # noqa: ASYNC110 - under virtual time looking costs nothing
                await trio.sleep(1.0)
        return found
