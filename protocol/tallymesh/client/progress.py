"""What `wait` shows on standard error: one live line on a terminal, and a plain line per change elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

from tallymesh.api import EventView, JobView

if TYPE_CHECKING:
    from rich.progress import Progress

METRICS_SHOWN: Final = 3  # on the live line: more do not fit beside the bar
_NOTABLE: Final = ("caught", "redo", "warning")


class Watch(Protocol):
    """Shows events until it is closed."""

    def show(self, event: EventView) -> None: ...

    def close(self) -> None: ...


def watch(view: JobView, wanted: bool | None) -> Watch:
    """By default progress is shown where somebody is likely to see it."""
    if wanted is False:
        return _Silent()
    return _Bar(view) if sys.stderr.isatty() else (_Lines(view) if wanted else _Silent())


def sentence(event: EventView) -> str:
    """A notable event in words; "" for the others."""
    data = event.data
    if event.kind == "caught":
        return f"caught {str(data.get('account', '?'))[:10]}…: {data.get('sentence', 'its work did not match')}"
    if event.kind == "redo":
        return f"{data.get('units', '?')} units are computed again"
    if event.kind == "warning":
        return f"{data.get('sentence', '')} {data.get('remedy', '')}".strip()
    return ""


class _Silent:
    def show(self, event: EventView) -> None:
        pass

    def close(self) -> None:
        pass


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
        peers = f"{len(self.peers)} peer{'s' * (len(self.peers) != 1)}"
        return " · ".join([peers, f"{self.audits} audits", *numbers])


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
            self._progress.console.print(words, markup=False, highlight=False)
        state = self._state
        self._progress.update(
            self._task, description=state.status, completed=state.done, detail=state.detail(), refresh=False
        )

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    def __init__(self, view: JobView) -> None:
        self._state = _State(view)

    def show(self, event: EventView) -> None:
        self._state.take(event)
        words = sentence(event)
        if event.kind in ("status", "done"):
            words = self._state.status
        elif event.kind == "round":
            words = f"round {self._state.done}/{self._state.total} · {self._state.detail()}"
        if words:
            print(words, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass
