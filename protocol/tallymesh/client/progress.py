"""What `wait` shows on standard error: one live line on a terminal, and a plain line per change elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from tallymesh.api import EventView, JobView
from tallymesh.client.telling import many, tell
from tallymesh.client.waiting import to_stderr

if TYPE_CHECKING:
    from rich.progress import Progress

METRICS_SHOWN: Final = 3  # on the live line: more do not fit beside the bar
ROUND_LINES_S: Final = 1.0  # between two lines of rounds: a log of a thousand fast rounds is no progress
UNIT_LINES_S: Final = 10.0  # between two lines of a map's units: in a log each is read as news


class Watch(Protocol):
    """Shows events until it is closed. `say` prints one more line, from any thread."""

    def show(self, event: EventView) -> None: ...

    def say(self, line: str) -> None: ...

    def close(self) -> None: ...


def watch(view: JobView) -> Watch:
    return _Bar(view) if sys.stderr.isatty() else _Lines(view)


def sentence(event: EventView) -> str:
    """A notable event in words; "" for the others."""
    words = tell(event.kind, event.data) if event.kind in ("caught", "redo", "warning") else ""
    return f"caught {words}" if event.kind == "caught" else words


class _State:
    """The few facts that the line shows, kept from events."""

    def __init__(self, view: JobView) -> None:
        self.training = view.kind != "map"
        self.total = view.rounds if self.training else view.units
        self.done = 0
        self.status = view.status
        self.peers: set[str] = set()
        self.audits = 0
        self.metrics: dict[str, float] = {}
        self._units: set[int] = set()

    def take(self, event: EventView) -> None:
        data: dict[str, Any] = event.data
        if event.kind in ("status", "done"):
            self.status = str(data.get("status", self.status))
        elif event.kind == "round":
            self.done = int(data.get("round", self.done))
            self.metrics.update(data.get("metrics", {}))
        elif event.kind == "metric":
            self.metrics[str(data.get("name"))] = float(data.get("value", 0.0))
        elif event.kind == "audit" and data.get("result"):
            self.audits += 1
        if event.kind in ("unit", "seat", "assign") and data.get("account"):
            self.peers.add(str(data["account"]))
        if event.kind == "unit" and not self.training:
            self._units.add(int(data.get("index", -1)))
            self.done = len(self._units)

    def detail(self) -> str:
        numbers = [f"{name} {value:.4g}" for name, value in list(self.metrics.items())[:METRICS_SHOWN]]
        return " · ".join([many(len(self.peers), "peer"), many(self.audits, "audit"), *numbers])


class _Bar:
    def __init__(self, view: JobView) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._state = _State(view)
        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("rounds" if self._state.training else "units"),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=False,
        )
        self._progress.start()
        self._task = self._progress.add_task(self._state.status, total=self._state.total or None, detail="")

    def show(self, event: EventView) -> None:
        self._state.take(event)
        words = sentence(event)
        if words:
            self.say(words)
        state = self._state
        self._progress.update(
            self._task, description=state.status, completed=state.done, detail=state.detail(), refresh=False
        )

    def say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    def __init__(self, view: JobView) -> None:
        self._state = _State(view)
        # The first round is news, the first unit of many is not.
        self._shown_at = -ROUND_LINES_S if self._state.training else time.monotonic()
        self.say(f"job {view.id[:12]}: {view.status}")

    def show(self, event: EventView) -> None:
        state, before = self._state, self._state.status
        state.take(event)
        words = sentence(event)
        if event.kind in ("status", "done") and state.status != before:
            words = state.status
        elif event.kind == "round" and (self._due(ROUND_LINES_S) or state.done == state.total):
            words = f"round {state.done}/{state.total} · {state.detail()}"
        elif event.kind == "unit" and not state.training and self._due(UNIT_LINES_S):
            words = f"{state.done}/{state.total} units · {state.detail()}"
        if words:
            self.say(words)

    def _due(self, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._shown_at < seconds:
            return False
        self._shown_at = now
        return True

    def say(self, line: str) -> None:
        to_stderr(line)

    def close(self) -> None:
        pass
