"""Keeps the nodes of a local network running: one that ended by itself is started again, a bounded number of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from tallymesh.errors import LocalError

RESTARTS_MAX: Final = 3  # of one node within the window: then its trouble is not a passing one
WINDOW_S: Final = 600.0
ESSENTIAL: Final = "payer"  # without it nobody can submit, and the others have nobody to join


class Startable(Protocol):
    """A process of `tallymesh_node.local_network`."""

    name: str

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def tail(self) -> str: ...


class Restarts:
    """Call `look` every now and then. Its journal brings a node back to where it was."""

    def __init__(self, nodes: Mapping[str, Startable], say: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._say = say
        self._restarted: dict[str, list[float]] = {}
        self._given_up: set[str] = set()

    def look(self, now: float) -> None:
        """`now` in seconds of any clock that only rises. LocalError `node_ended` where the network is of no use any
        more: its payer, or every other node, ends again and again."""
        for name, node in self._nodes.items():
            if not node.running and name not in self._given_up:
                self._restart(name, node, now)

    def _restart(self, name: str, node: Startable, now: float) -> None:
        times = [at for at in self._restarted.get(name, []) if now - at < WINDOW_S]
        if len(times) < RESTARTS_MAX:
            self._restarted[name] = [*times, now]
            self._say(f"{name} ended by itself and is started again ({len(times) + 1} of {RESTARTS_MAX} times)")
            node.start()
            return
        self._given_up.add(name)
        left = self._nodes.keys() - self._given_up
        if name == ESSENTIAL or not left - {ESSENTIAL}:
            raise LocalError(
                "node_ended",
                f"{name} ended by itself {RESTARTS_MAX + 1} times in {WINDOW_S / 60:.0f} minutes:\n{node.tail()}",
            )
        self._say(
            f"{name} ended again and is not started any more: the others go on without it. Its log ends:\n{node.tail()}"
        )
