"""The owner's bandwidth: a pace that all transfers share, and that every byte of a blob asks on both ways and both
sides. Clocks are the tests' own; nothing here waits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from fakes.exchanges import exchanges, fetch
from fakes.peers import peers
from tallymesh_node.blobs import transfer
from tallymesh_node.blobs.disk import CHUNK_BYTES
from tallymesh_node.limits.bandwidth import BURST_S, UNPACED, Pace

MIB = float(1 << 20)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_who_asks_waits_for_all_who_asked_before() -> None:
    clock = Clock()
    pace = Pace(2 * MIB, clock)
    waits = [pace.wait_s(1 << 20) for _ in range(6)]
    assert waits == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5], "a second's worth at once, then half a second each"


def test_over_any_time_no_more_moves_than_the_rate_and_one_burst() -> None:
    """Many askers with random sizes and pauses, each moving when it may."""
    chance, clock = random.Random(3), Clock()
    pace = Pace(10 * MIB, clock)
    moved: list[tuple[float, int]] = []
    for _ in range(2000):
        size = chance.randint(1, 1 << 20)
        moved.append((clock.now + pace.wait_s(size), size))
        clock.now += chance.choice((0.0, 0.01, 0.2, 3.0))
    for start in range(0, len(moved), 97):
        begin, total = moved[start][0], 0
        for at, size in moved[start:]:
            total += size
            assert total <= pace.rate * (at - begin + BURST_S) + (1 << 20)


def test_silence_is_made_up_for_once_and_not_saved() -> None:
    clock = Clock()
    pace = Pace(MIB, clock)
    clock.now += 3600.0
    assert [pace.wait_s(1 << 20) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_without_a_limit_nobody_waits_and_a_new_limit_holds_from_then_on() -> None:
    clock = Clock()
    pace = Pace(0.0, clock)
    assert pace.wait_s(1 << 40) == 0.0
    pace.rate = MIB
    assert [pace.wait_s(1 << 20) for _ in range(3)] == [0.0, 0.0, 1.0]
    pace.rate = 0.0
    assert pace.wait_s(1 << 40) == 0.0
    assert UNPACED.rate == 0.0


async def test_who_waits_in_a_thread_can_be_cancelled() -> None:
    pace = Pace(1.0)
    pace.wait_s(1 << 20)  # the next one waits for twelve days
    with trio.move_on_after(0.1) as scope:
        await trio.to_thread.run_sync(pace.wait_in_thread, 1)
    assert scope.cancelled_caught


class Asked(Pace):
    """Lets everything go, and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def wait_s(self, size: int) -> float:
        self.sizes.append(size)
        return 0.0


@pytest.mark.slow
@pytest.mark.parametrize("direct", [True, False], ids=["direct socket", "libp2p stream"])
async def test_every_byte_of_a_blob_asks_the_pace_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    monkeypatch.setattr(transfer, "DIRECT_BYTES", 1 if direct else 1 << 40)
    data = random.Random(5).randbytes(3 * CHUNK_BYTES + 777)
    async with peers(2) as networks, exchanges(networks, tmp_path) as (giver, taker):
        given, taken = Asked(), Asked()
        giver._server.pace, taker.pace_in = given, taken
        await fetch(taker, giver.put(data), networks[0].source)
        assert sum(given.sizes) == sum(taken.sizes) == len(data)
        assert max(given.sizes) <= CHUNK_BYTES
