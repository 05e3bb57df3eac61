"""The decision itself, as values: when the machine is lent, and when what runs is cut."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from tallymesh_node.limits import Hours, Limits, Pause, Seen, Stance, decide
from tallymesh_node.limits.rules import IDLE_HAND_OVER_S, LENDING

MONDAY = datetime(2026, 6, 1)
NIGHT = Hours.parse(("22:00-07:00",))


def seen(clock: float = 1000.0, *, hour: float = 12.0, idle_s: float = math.inf) -> Seen:
    return Seen(clock=clock, unix=50_000 + clock, local=MONDAY + timedelta(hours=hour), idle_s=idle_s)


def stance(limits: Limits, pause: Pause | None = None, last: Stance = LENDING, **what: Any) -> Stance:
    return decide(limits, pause, seen(**what), last)


def test_without_limits_the_machine_is_lent_at_any_time() -> None:
    assert stance(Limits()) == LENDING
    assert LENDING.lends
    assert not LENDING.cuts(math.inf)


def test_a_pause_lets_what_runs_end_within_the_owners_time_and_then_cuts_it() -> None:
    found = stance(Limits(hand_over_s=60), Pause(math.inf))
    assert (found.code, found.lends, found.cut_at) == ("paused", False, 1060.0)
    assert not found.cuts(1059.9)
    assert found.cuts(1060.0)
    assert "resume" in found.remedy


def test_a_pause_at_once_waits_for_nothing() -> None:
    assert stance(Limits(), Pause(math.inf, at_once=True)).cuts(1000.0)


def test_a_pause_ends_by_itself() -> None:
    assert stance(Limits(), Pause(51_001.0)).code == "paused"
    assert stance(Limits(), Pause(51_000.0)).lends


def test_looking_again_does_not_put_the_cut_off() -> None:
    first = stance(Limits(hand_over_s=60), Pause(math.inf))
    assert stance(Limits(hand_over_s=60), Pause(math.inf), first, clock=1030.0).cut_at == first.cut_at


def test_an_owner_who_cannot_wait_after_all_says_so() -> None:
    first = stance(Limits(hand_over_s=600), Pause(math.inf))
    assert stance(Limits(hand_over_s=600), Pause(math.inf, at_once=True), first, clock=1001.0).cuts(1001.0)


def test_another_reason_does_not_put_the_cut_off_and_a_new_pause_begins_anew() -> None:
    limits = Limits(hand_over_s=60, only_idle=True)
    in_use = stance(limits, idle_s=1.0)
    assert stance(limits, Pause(math.inf), in_use, clock=1005.0).cut_at == in_use.cut_at
    again = stance(limits, None, in_use, clock=2000.0)
    assert again.lends
    assert stance(limits, Pause(math.inf), again, clock=3000.0).cut_at == 3060.0


def test_at_the_end_of_the_hours_the_machine_is_free_and_not_only_then_handed_over() -> None:
    limits = Limits(hours=NIGHT, hand_over_s=60)
    assert stance(limits, hour=7 - 61 / 3600).lends
    found = stance(limits, hour=7 - 60 / 3600)
    assert (found.code, found.cut_at) == ("off_hours", 1060.0)
    outside = stance(limits, last=found, clock=1060.0, hour=7.0)
    assert outside.cuts(1060.0)
    assert "15 h" in outside.sentence
    assert stance(limits, last=outside, hour=22.0).lends


def test_an_owner_who_comes_back_gets_the_machine_within_seconds() -> None:
    limits = Limits(only_idle=True, idle_after_s=300, hand_over_s=3600)
    assert stance(limits, idle_s=300.0).lends
    found = stance(limits, idle_s=299.9)
    assert (found.code, found.cut_at) == ("in_use", 1000.0 + IDLE_HAND_OVER_S)
    assert stance(msgspec.structs.replace(limits, hand_over_s=2), idle_s=0.0).cut_at == 1002.0


def test_who_does_not_ask_for_idleness_is_not_asked_about_it() -> None:
    assert stance(Limits(), idle_s=0.0).lends


@pytest.mark.parametrize(("left_s", "said"), [(0.2, "1 s"), (90, "2 min"), (119 * 60, "119 min"), (5 * 3600, "5 h")])
def test_how_long_a_pause_lasts_is_said_and_never_as_nothing(left_s: float, said: str) -> None:
    assert f"for {said} more" in stance(Limits(), Pause(51_000.0 + left_s)).sentence
