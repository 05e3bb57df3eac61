"""What a unit says while it runs: log lines and metrics, from bytes that nobody vouches for.

Two pipes: `events` (lines of JSON that the runner writes) and `console` (what the program and its libraries write to
descriptors 1 and 2). Everything is bounded: a line's length, the number of lines and of metrics that are passed on;
the rest is counted. Past the bound the reader is told to be slow, so that a flood costs its writer time and not us.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tallymesh.text import plain

MAX_EVENT = 4096  # as tallymesh_learning.runtime.unit has it: what a pipe takes whole
MAX_LINE = 4000  # characters of one log line that are passed on, as the runner cuts them
MAX_NAME = 200
FREE_BYTES = 4 * 1024 * 1024  # of raw bytes in both pipes, before reading slows down


class Logs:
    """Collects what one unit says. `line` and `metric` are called in its order, within one pipe."""

    def __init__(
        self,
        lines_max: int,
        line: Callable[[str], None] | None,
        metric: Callable[[str, float], None] | None,
    ) -> None:
        self.begin_s: float | None = None  # CLOCK_MONOTONIC of the last moment before foreign code
        self.dropped = 0
        self._lines_left = lines_max
        self._metrics_left = lines_max
        self._line = line
        self._metric = metric
        self._bytes = 0
        self._rest = {"events": b"", "console": b""}

    @property
    def flooded(self) -> bool:
        """From here on each read should be followed by a pause."""
        return self._lines_left <= 0 or self._metrics_left <= 0 or self._bytes > FREE_BYTES

    def feed(self, pipe: str, data: bytes) -> None:
        self._bytes += len(data)
        *whole, rest = (self._rest[pipe] + data).split(b"\n")
        self._rest[pipe] = rest[: MAX_EVENT + 1]  # a longer one is cut (console) or refused (events) anyway
        for text in whole:
            self._take(pipe, text)

    def finish(self) -> None:
        """At the end of both pipes."""
        for pipe, text in self._rest.items():
            if text:
                self._take(pipe, text)
        self._rest = dict.fromkeys(self._rest, b"")
        if self.dropped and self._line:
            self._line(f"… {self.dropped} more lines were not passed on")

    def _take(self, pipe: str, text: bytes) -> None:
        if pipe == "console":
            self._say(text.decode(errors="replace"))
            return
        if self._lines_left <= 0 and self._metrics_left <= 0:
            self.dropped += 1
            return
        kind, payload = _event(text)
        if kind == "begin" and self.begin_s is None and type(payload) is float:
            self.begin_s = payload
        elif kind == "line" and type(payload) is str:
            for part in payload.split("\n"):
                self._say(part)
        elif kind == "metric" and _is_metric(payload):
            if self._metrics_left > 0:
                self._metrics_left -= 1
                if self._metric:
                    self._metric(payload[0], float(payload[1]))
        else:
            self.dropped += 1

    def _say(self, text: str) -> None:
        if self._lines_left <= 0:
            self.dropped += 1
            return
        self._lines_left -= 1
        if self._line:
            text = plain(text.rstrip("\r"))
            self._line(text if len(text) <= MAX_LINE else text[:MAX_LINE] + " …")


def _event(text: bytes) -> tuple[str, Any]:
    if len(text) >= MAX_EVENT:
        return "", None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "", None
    if type(value) is list and len(value) == 2 and type(value[0]) is str:
        return value[0], value[1]
    return "", None


def _is_metric(payload: Any) -> bool:
    if type(payload) is not list or len(payload) != 2 or type(payload[0]) is not str:
        return False
    if type(payload[1]) not in (int, float) or len(payload[0]) > MAX_NAME or not payload[0].isprintable():
        return False
    try:
        float(payload[1])
    except OverflowError:  # an integer of thousands of digits
        return False
    return True
