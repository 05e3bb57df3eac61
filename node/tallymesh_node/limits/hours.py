"""Hours of the week in which a machine may be used: `22:00-07:00`, `mon-fri 19:00-23:30`, `sat,sun`. Pure.

Times are of the owner's own wall clock; a span that ends before it begins goes on into the next day. This module reads
no clock: a moment is given as a `datetime` of the owner's time zone.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_PER_DAY = 24 * 60
MINUTES_PER_WEEK = 7 * MINUTES_PER_DAY
MAX_SPANS = 28  # four a day: what people say is shorter, and each look goes through all of them

_FORMS = "write 22:00-07:00, 'mon-fri 19:00-23:30' or 'sat,sun'"
_SPAN = re.compile(r"(?:(?P<days>[a-z][a-z,-]*))?\s*(?:(?P<first>\d\d?:\d\d)\s*-\s*(?P<last>\d\d?:\d\d))?")


class Hours(msgspec.Struct, frozen=True):
    """Spans as (first minute, last minute) of a week that begins on Monday at 0:00; the last one is not in it and may
    be in the next week. No span at all means: at any time."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, texts: tuple[str, ...]) -> Hours:
        """ValueError, in a sentence, where a text is none of the forms above."""
        spans: list[tuple[int, int]] = []
        for text in texts:
            spans += _parse(text)
        if len(spans) > MAX_SPANS:
            raise ValueError(f"{len(spans)} spans of a week are more than {MAX_SPANS}")
        return cls(tuple(sorted(spans)))

    def open_for_s(self, moment: datetime) -> float:
        """Seconds for which the machine may still be used: 0 outside of the hours, infinite where there are none. The
        end of one span that is the beginning of another is no end."""
        if not self.spans:
            return float("inf")
        second = _second_of_week(moment)
        end = second
        for _ in range(len(self.spans) + 1):  # each span prolongs at most once
            longer = max((self._end(first, last, end) for first, last in self.spans), default=0.0)
            if longer <= end:
                return end - second
            end = longer
            if end - second >= MINUTES_PER_WEEK * 60:
                return float("inf")
        return end - second

    @staticmethod
    def _end(first: int, last: int, at: float) -> float:
        """Where a span that holds second `at` ends; 0 where it does not hold it. `at` may lie in the weeks after."""
        week = MINUTES_PER_WEEK * 60
        weeks = at // week * week
        for shift in (weeks - week, weeks):
            if first * 60 + shift <= at < last * 60 + shift:
                return last * 60 + shift
        return 0.0

    def opens_in_s(self, moment: datetime) -> float:
        """Seconds until the next span begins; 0 within one."""
        if self.open_for_s(moment):
            return 0.0
        second = _second_of_week(moment)
        return min((first * 60 - second) % (MINUTES_PER_WEEK * 60) for first, _ in self.spans)


def _second_of_week(moment: datetime) -> float:
    minutes = moment.weekday() * MINUTES_PER_DAY + moment.hour * 60 + moment.minute
    return minutes * 60 + moment.second + moment.microsecond / 1e6


def _parse(text: str) -> list[tuple[int, int]]:
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None or not (found["days"] or found["first"]):
        raise ValueError(f"{text!r} is no span of time: {_FORMS}")
    days = _days(found["days"] or "mon-sun")
    first, last = (0, MINUTES_PER_DAY) if not found["first"] else (_minute(found["first"]), _minute(found["last"]))
    if first == last:
        raise ValueError(f"{text!r} begins when it ends: leave the hours out to allow the whole day")
    if last < first:
        last += MINUTES_PER_DAY
    return [(day * MINUTES_PER_DAY + first, day * MINUTES_PER_DAY + last) for day in days]


def _days(text: str) -> list[int]:
    chosen: set[int] = set()
    for part in text.split(","):
        names = part.split("-")
        if len(names) > 2 or not all(name in DAYS for name in names):
            raise ValueError(f"{part!r} is no day ({', '.join(DAYS)}): {_FORMS}")
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        chosen.update((first + step) % 7 for step in range((last - first) % 7 + 1))
    return sorted(chosen)


def _minute(text: str) -> int:
    hours, minutes = (int(part) for part in text.split(":"))
    if hours > 24 or minutes > 59 or hours * 60 + minutes > MINUTES_PER_DAY:
        raise ValueError(f"{text} is no time of a day")
    return hours * 60 + minutes
