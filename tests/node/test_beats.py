"""When loops that look now and then wake up: together, and never later than they asked for."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tallymesh_node import beats


async def test_loops_that_began_at_any_time_wake_together(autojump_clock: MockClock) -> None:
    woken: list[float] = []

    async def loop(begins_s: float, pause_s: float) -> None:
        await trio.sleep(begins_s)
        while True:
            await beats.pause(pause_s)
            woken.append(trio.current_time())

    with trio.move_on_after(60.5):
        async with trio.open_nursery() as nursery:
            for begins_s, pause_s in ((0.0, 1.0), (0.2, 1.0), (0.7, 1.2), (0.33, 2.0), (0.5, 5.0), (0.9, 30.0)):
                nursery.start_soon(loop, begins_s, pause_s)
    assert len(woken) == 60 + 60 + 60 + 30 + 12 + 2
    assert len(set(woken)) == 60  # and not a moment for each of them
    assert all(moment == round(moment) for moment in woken)


@pytest.mark.parametrize("now", [0.0, 0.0001, 0.3, 0.9995, 7.0, 7.5])
@pytest.mark.parametrize("pause_s", [1.0, 1.5, 2.0, 30.0])
async def test_a_pause_is_never_longer_and_less_than_a_beat_shorter(
    autojump_clock: MockClock, now: float, pause_s: float
) -> None:
    autojump_clock.jump(now)
    assert 0 < beats.left(pause_s) <= pause_s + 0.001
    assert beats.left(pause_s) > pause_s - beats.BEAT_S


async def test_short_pauses_are_what_was_asked_for(autojump_clock: MockClock) -> None:
    autojump_clock.jump(0.6)
    assert beats.left(0.5) == 0.5
    assert beats.left(0.0) == 0.0


async def test_who_wakes_a_hair_before_the_beat_does_not_wake_twice(autojump_clock: MockClock) -> None:
    autojump_clock.jump(4.9999)
    assert beats.left(1.0) == pytest.approx(1.0001)


async def test_a_look_that_takes_a_while_keeps_its_beat(autojump_clock: MockClock) -> None:
    began = []
    with trio.move_on_after(10.5):
        while True:
            began.append(trio.current_time())
            await trio.sleep(0.4)
            await beats.pause(1.0)
    assert began == [float(second) for second in range(11)]
