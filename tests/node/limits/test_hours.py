"""Hours of the week: what is no span is refused, and each minute of a week is in or out as the owner said."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymesh_node.limits.hours import DAYS, MAX_SPANS, Hours

MONDAY = datetime(2026, 6, 1)


def at(day: str, time: str) -> datetime:
    hours, minutes = time.split(":")
    return MONDAY + timedelta(days=DAYS.index(day), hours=int(hours), minutes=int(minutes))


@pytest.mark.parametrize(
    "text",
    ["", "night", "22:00", "22:00-", "25:00-07:00", "22:60-23:00", "24:01-07:00", "08:00-08:00", "monday",
     "mon-tue-wed", "mon 22:00", "mon;tue", "22-07", "-", "mon,"],
)  # fmt: skip
def test_what_is_no_span_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Hours.parse((text,))


def test_more_spans_than_anybody_means_are_refused() -> None:
    assert Hours.parse(("22:00-07:00",) * (MAX_SPANS // 7)).spans
    with pytest.raises(ValueError, match="more than"):
        Hours.parse(("22:00-07:00",) * (MAX_SPANS // 7 + 1))


@pytest.mark.parametrize(
    ("spans", "moment", "left_min", "opens_min"),
    [
        ((), at("wed", "12:00"), float("inf"), 0),
        (("22:00-07:00",), at("wed", "21:59"), 0, 1),
        (("22:00-07:00",), at("wed", "22:00"), 9 * 60, 0),
        (("22:00-07:00",), at("thu", "06:59"), 1, 0),
        (("22:00-07:00",), at("thu", "07:00"), 0, 15 * 60),
        (("22:00-07:00",), at("mon", "00:30"), 6 * 60 + 30, 0),  # of Sunday's span
        (("sun 22:00-07:00",), at("mon", "06:00"), 60, 0),
        (("sun 22:00-07:00",), at("tue", "06:00"), 0, (5 * 24 + 16) * 60),
        (("fri-mon",), at("sat", "12:00"), (36 + 24) * 60, 0),
        (("fri-mon",), at("tue", "00:00"), 0, 3 * 24 * 60),
        (("mon-fri 19:00-23:30", "sat,sun"), at("sat", "00:00"), 48 * 60, 0),
        (("mon-fri 19:00-23:30", "sat,sun"), at("mon", "00:00"), 0, 19 * 60),
        (("08:00-24:00", "00:00-06:00"), at("tue", "20:00"), 10 * 60, 0),  # one ends where the other begins
        (("mon-sun",), at("tue", "20:00"), float("inf"), 0),
        (("SAT 8:00-9:00",), at("sat", "08:30"), 30, 0),
    ],
)
def test_how_long_it_is_open_and_when_it_opens(
    spans: tuple[str, ...], moment: datetime, left_min: float, opens_min: float
) -> None:
    hours = Hours.parse(spans)
    assert hours.open_for_s(moment) == left_min * 60
    assert hours.opens_in_s(moment) == opens_min * 60


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.sampled_from(DAYS), st.integers(0, 1439), st.integers(0, 1439)).filter(lambda s: s[1] != s[2]),
        min_size=1, max_size=4,
    ),
    st.integers(0, 7 * 1440 - 1),
)  # fmt: skip
def test_every_minute_is_in_or_out_as_counting_says(spans: list[tuple[str, int, int]], minute: int) -> None:
    """The judge marks each minute of a week on a list, by the plain meaning of the words."""
    marked = [False] * (7 * 1440)
    for day, first, last in spans:
        length = (last - first) % 1440
        for step in range(length):
            marked[(DAYS.index(day) * 1440 + first + step) % (7 * 1440)] = True
    texts = tuple(f"{d} {f // 60}:{f % 60:02}-{t // 60}:{t % 60:02}" for d, f, t in spans)
    hours, moment = Hours.parse(texts), MONDAY + timedelta(minutes=minute)
    left = hours.open_for_s(moment)
    assert bool(left) == marked[minute]
    if left and left != float("inf"):
        count = int(left // 60)
        assert all(marked[(minute + step) % (7 * 1440)] for step in range(count))
        assert not marked[(minute + count) % (7 * 1440)]
    if not left:
        wait = int(hours.opens_in_s(moment) // 60)
        assert not any(marked[(minute + step) % (7 * 1440)] for step in range(wait))
        assert marked[(minute + wait) % (7 * 1440)]
