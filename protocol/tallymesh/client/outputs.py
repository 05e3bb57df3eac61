"""What `Job` gives piece by piece: one finished unit, one finished round, one line of a log, rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec

from tallymesh import values
from tallymesh.client.telling import many

Row = TypeVar("Row")


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


class Rows(list[Row], Generic[Row]):
    """Rows that are too many to be printed: `<11 audits: 10 match, 1 awaited>`. In everything else a list."""

    def __init__(self, what: str, rows: Iterable[Row] = ()) -> None:
        super().__init__(rows)
        self._what = what

    def __repr__(self) -> str:
        kinds = Counter(str(getattr(row, "outcome", "")) for row in self)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()) if kind)
        return f"<{many(len(self), self._what)}{': ' if counts else ''}{counts}>"
