"""Starting without the collector leaves it as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tallymesh import starting


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """Other tests keep their garbage collector."""
    was_on = gc.isenabled()
    yield
    if was_on:
        gc.enable()
    else:
        gc.disable()


def test_nothing_is_collected_within_and_collection_goes_on_afterwards() -> None:
    gc.enable()
    before = gc.get_freeze_count()
    with starting.uncollected():
        assert not gc.isenabled()
        made = [[number] for number in range(100)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made), "what was made is not walked over again"


def test_an_import_that_fails_does_not_leave_it_off() -> None:
    gc.enable()
    with pytest.raises(ImportError), starting.uncollected():
        raise ImportError
    assert gc.isenabled()


def test_where_it_was_off_it_stays_off() -> None:
    gc.disable()
    with starting.uncollected():
        pass
    assert not gc.isenabled()
