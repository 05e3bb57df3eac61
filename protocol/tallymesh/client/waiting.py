"""Says why a job waits, once it has waited for some seconds: on a terminal, in a notebook and in a pipe alike.

A job without workers sends no results, and a program that only shows results would stand silent. One thread asks the
node from time to time, over a line of its own. A reason is said when two looks in a row found it, and not again while
nothing but its numbers changes. Nothing is said of a job that gets on.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tallymesh.client.source import ENDED
from tallymesh.errors import TallymeshError

if TYPE_CHECKING:
    from tallymesh.client.source import Source

LOOK_S: Final = 2.5  # between two looks: what both have found is said after five seconds
CALM_S: Final = 10.0  # … while the job gets on
AGAIN_S: Final = 300.0  # a reason that comes and goes is not said more often than this
END_S: Final = 1.0  # for a look that is under way when nobody waits any more
KEPT: Final = 100  # reasons of one job that are remembered; each is a code and a sentence of its own

# Where no part of the node names a reason: what the job does meanwhile.
_MEANWHILE: Final = {
    "preparing": "the job is being prepared",
    "matching": "the offers are known and workers are being asked; no seat is taken yet",
    "settling": "everything is computed; the last audits and the payment on chain are under way",
}


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def reasons(source: Source, say: Callable[[str], None] = to_stderr) -> Iterator[None]:
    """While the block runs, `say` is called from another thread with each new reason. Nothing where nothing can wait
    for others (the local backend)."""
    aside = source.aside()
    if aside is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_look, args=(aside, say, over), name="tallymesh-reasons", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(END_S)


def _look(source: Source, say: Callable[[str], None], over: threading.Event) -> None:
    news = News()
    pause = LOOK_S
    try:
        while not over.wait(pause):
            try:
                status = source.view().status
                lines = [f"{problem.sentence} {problem.remedy}".strip() for problem in source.why()]
            except TallymeshError:
                continue  # whoever waits has a line of its own, which says that the node is gone
            if status in ENDED:
                return
            lines = lines or ([_MEANWHILE[status]] if status in _MEANWHILE else [])
            pause = LOOK_S if lines else CALM_S
            for line in news.of(lines, time.monotonic()):
                if not over.is_set():
                    say(f"waiting: {line}")
    finally:
        source.close()


class News:
    """Which reasons are new. Pure; `now` is an argument."""

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._said_at: dict[str, float] = {}

    def of(self, lines: list[str], now: float) -> list[str]:
        found = {_without_numbers(line): line for line in lines}
        stayed = [key for key in found if key in self._before]
        self._before = set(found)
        new = [key for key in stayed if now - self._said_at.get(key, -AGAIN_S) >= AGAIN_S]
        for key in stayed:  # what is still so is no news, however long it lasts
            self._said_at.pop(key, None)
            self._said_at[key] = now
        while len(self._said_at) > KEPT:
            self._said_at.pop(next(iter(self._said_at)))
        return [found[key] for key in new]


def _without_numbers(line: str) -> str:
    """ "It ran out 5 s ago" and "It ran out 6 s ago" are one reason; ids and hashes are numbers too."""
    return re.sub(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f.]*\b", "#", line)
