"""`tallymesh.log`: what it takes, and what it refuses where the mistake is."""

from __future__ import annotations

from typing import Any

import pytest

from tallymesh import logs
from tallymesh.errors import CallerError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("half of a pair \udc80", 1.0),
        ("two\nlines", 1.0),
        ("", 1.0),
        ("n" * 65, 1.0),
        ("text", "1.0"),
        ("none", None),
        ("huge", 10**400),
    ],
    ids=ascii,
)
def test_what_nobody_could_show_is_refused_where_it_is_logged(name: str, value: Any) -> None:
    seen: list[Any] = []
    with logs.sink(lambda *told: seen.append(told)), pytest.raises(CallerError) as caught:
        logs.log(**{name: value})
    assert caught.value.code == "bad_metric"
    assert caught.value.sentence.encode()
    assert not seen


def test_numbers_of_any_kind_arrive_as_floats() -> None:
    seen: list[Any] = []
    with logs.sink(lambda *told: seen.append(told)):
        logs.log(loss=1, größe=2.5, done=True)
    logs.log(loss=3)  # outside a unit nobody listens
    assert seen == [("loss", 1.0), ("größe", 2.5), ("done", 1.0)]
