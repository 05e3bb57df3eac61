"""The canary's result: cached for the next start, confirmed when there is a sandbox to do it in."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tallymesh_node.capacity import Canaries, Canary
from tallymesh_node.machine import Machine

MEASURED = Canary(numeric_class="ab" * 32, cpu_score=900)
MACHINE = Machine(cpu="a test's", architecture="x86_64", cores=2, memory_mib=4096, disk_mib=4096, gpus=())


class Told:
    """What a node hears of its class, and how often the canary ran for it."""

    def __init__(self) -> None:
        self.found: list[tuple[Canary, bool]] = []
        self.runs = 0

    async def run_task(self, name: str) -> bytes:
        assert name == "canary"
        self.runs += 1
        return msgspec.json.encode(MEASURED)

    def __call__(self, canary: Canary, confirmed: bool) -> None:
        self.found.append((canary, confirmed))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


async def test_without_a_cached_class_it_is_measured_whether_a_sandbox_is_wanted_or_not() -> None:
    told = Told()
    await Canaries(MACHINE, told.run_task, trio.Event()).run(told)
    assert told.found == [(MEASURED, True)]


async def test_a_cached_class_is_offered_at_once_and_confirmed_when_a_sandbox_is_wanted(
    autojump_clock: MockClock,
) -> None:
    await Canaries(MACHINE, Told().run_task).run(Told())
    told, wanted = Told(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Canaries(MACHINE, told.run_task, wanted).run, told)
        await wait_all_tasks_blocked()
        assert told.found == [(MEASURED, False)]
        assert not told.runs
        wanted.set()
    assert told.found == [(MEASURED, False), (MEASURED, True)]
