"""The loop that looks: what the owner wrote takes effect in a second, and what nobody can read stops the lending."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trio

from tallymesh_node.config import changed, load
from tallymesh_node.limits import Limits, Orders, Pause, Stance, orders
from tallymesh_node.limits.steward import Steward

NOON = datetime(2026, 6, 1, 12)


class Machine:
    """Remembers what it was told. Its owner was never seen unless a test says so."""

    def __init__(self, folder: Path, text: str = "") -> None:
        self.folder = folder
        (folder / "config.toml").write_text(text)
        self.config = load({"home": folder}, environment={})
        self.told: list[tuple[Limits, Stance]] = []
        self.idle_s = math.inf
        self.asked = 0

    def say(self, **said: object) -> None:
        orders.save(self.folder, Orders(**said))  # type: ignore[arg-type]

    @property
    def stance(self) -> Stance:
        return self.told[-1][1]

    async def _idle(self, clock: float, unix: float) -> float:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return self.idle_s

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Steward]:
        began = trio.current_time()
        steward = Steward(
            self.folder,
            lambda changes: changed(self.config, changes).limits,
            lambda limits, stance: self.told.append((limits, stance)),
            idle_s=self._idle,
            unix=lambda: 1.8e9 + trio.current_time() - began,
            local=lambda: NOON + timedelta(seconds=trio.current_time() - began),
        )
        async with trio.open_nursery() as nursery:
            await steward.look()
            nursery.start_soon(steward.run)
            yield steward
            nursery.cancel_scope.cancel()


async def test_the_first_look_comes_before_anything_is_lent(tmp_path: Path) -> None:
    """A node that was paused and is started again must not lend its machine for a second."""
    machine = Machine(tmp_path)
    machine.say(pause=Pause(math.inf))
    async with machine.run():
        assert [stance.code for _, stance in machine.told] == ["paused"]


async def test_a_pause_and_its_end_take_effect_within_a_second(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    async with machine.run():
        await trio.sleep(10)
        assert machine.stance.lends
        machine.say(pause=Pause(math.inf))
        await trio.sleep(1.01)
        assert machine.stance.code == "paused"
        machine.say()
        await trio.sleep(1.01)
        assert machine.stance.lends


@pytest.mark.slow
async def test_a_pause_for_a_while_ends_without_another_word(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.say(pause=Pause(1.8e9 + 7200))
    async with machine.run():
        await trio.sleep(7190)
        assert machine.stance.code == "paused"
        await trio.sleep(20)
        assert machine.stance.lends


async def test_limits_change_while_it_runs_and_the_configured_ones_come_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "cores = 4\nmemory_mib = 2048\n")
    async with machine.run():
        machine.say(changes={"cores": 1})
        await trio.sleep(1.01)
        assert (machine.told[-1][0].cores, machine.told[-1][0].memory_mib) == (1, 2048)
        machine.say()
        await trio.sleep(1.01)
        assert machine.told[-1][0].cores == 4


async def test_a_word_that_nobody_can_read_stops_the_lending_until_it_is_mended(tmp_path: Path) -> None:
    """It may have been `pause`."""
    machine = Machine(tmp_path, "cores = 4\n")
    async with machine.run() as steward:
        for wrong in (b"{", b'{"changes": {"cores": "many"}}', b'{"changes": {"home": "/"}}'):
            (tmp_path / orders.NAME).write_bytes(wrong)
            await trio.sleep(1.01)
            assert machine.stance.code == "bad_orders"
            assert machine.told[-1][0].cores == 4
            assert steward.error is not None
        cut_at = machine.stance.cut_at
        await trio.sleep(30)
        assert machine.stance.cut_at == cut_at, "what runs is not kept waiting for ever"
        machine.say()
        await trio.sleep(1.01)
        assert machine.stance.lends
        assert steward.error is None


@pytest.mark.slow
async def test_hours_begin_and_end_by_the_owners_clock(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 'hours = ["13:00-14:00"]\nhand_over_s = 60\n')
    async with machine.run():
        assert machine.stance.cuts(trio.current_time())
        await trio.sleep(3599)
        assert not machine.stance.lends
        await trio.sleep(2)
        assert machine.stance.lends
        await trio.sleep(3600 - 65)
        assert machine.stance.lends
        await trio.sleep(10)
        assert machine.stance.code == "off_hours"
        assert not machine.stance.cuts(trio.current_time())
        await trio.sleep(60)
        assert machine.stance.cuts(trio.current_time())


async def test_the_owner_is_looked_for_only_where_that_matters(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    async with machine.run():
        await trio.sleep(5)
        assert machine.asked == 0
        machine.say(changes={"only_idle": True})
        machine.idle_s = 299.0
        await trio.sleep(1.01)
        assert machine.stance.code == "in_use"
        machine.idle_s = 300.0
        await trio.sleep(1.01)
        assert machine.stance.lends
