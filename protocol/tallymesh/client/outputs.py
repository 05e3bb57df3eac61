"""What `Job.stream` and `Job.logs` give: one finished unit, one finished round, one line of a log."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from tallymesh import values


class UnitOutput:
    """One unit of a map that is done. `output` is fetched when it is first asked for.

    An output that was streamed can turn out void later: the unit is then computed again and comes a second time.
    `Job.results()` holds final ones only.
    """

    def __init__(self, data: dict[str, Any], fetch: Callable[[str], bytes]) -> None:
        self.index = int(data["index"])
        self.account = str(data.get("account", ""))
        self.peer = str(data.get("peer") or self.account or "local")
        self.seconds: dict[str, float] = dict(data.get("seconds") or {})
        self.metrics: dict[str, float] = dict(data.get("metrics") or {})
        self.blob = str(data["output"])
        self._fetch = fetch

    def __repr__(self) -> str:
        return f"<UnitOutput {self.index} from {self.peer[:12]}>"

    @cached_property
    def output(self) -> Any:
        """The function's value, as it returned it."""
        return values.decode(self._fetch(self.blob))


class Round(msgspec.Struct, frozen=True):
    """One round (or segment) of a training that is done; `index` counts from 1. Its metrics are of the state then."""

    index: int
    metrics: dict[str, float] = {}


class LogLine(msgspec.Struct, frozen=True):
    """One line that the program printed, with the unit that printed it. `str` gives the text."""

    at: float  # Unix seconds
    text: str
    account: str = ""
    round: int = 0
    index: int = 0

    def __str__(self) -> str:
        return self.text
