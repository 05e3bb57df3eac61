"""`tallymesh.log(name=value)` inside a program: numbers that travel to whoever watches the job.

The unit runner sets a sink while a unit runs. Outside a unit the call checks its arguments and does nothing, so the
same program runs everywhere. This module does not know where the numbers go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tallymesh.errors import CallerError

MAX_NAME = 64  # characters of a metric's name: it becomes a column, a legend and a label

Sink = Callable[[str, float], None]
_sink: Sink | None = None


def log(**values: float) -> None:
    """Report numbers under names, as often as wanted. CallerError where a value is not a number."""
    for name, value in values.items():
        if len(name) > MAX_NAME:
            raise CallerError("bad_metric", f"The metric name {name[:MAX_NAME]!r}… is over {MAX_NAME} characters.")
        if not name or not name.isprintable():  # a lone half of a pair would fail the unit at its end, far from here
            raise CallerError("bad_metric", f"The metric name {name!a} is no line of text.")
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError("text is not a number, even where it reads like one")
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise CallerError(
                "bad_metric",
                f"The metric {name!r} is a {type(value).__name__}, not a number that a float holds.",
                remedy="Log float(value).",
            ) from None
        if _sink is not None:
            _sink(name, number)


@contextmanager
def sink(receive: Sink) -> Iterator[None]:
    """Send what `log` is given to `receive` while the context is open."""
    global _sink
    before, _sink = _sink, receive
    try:
        yield
    finally:
        _sink = before
