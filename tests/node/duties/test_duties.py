"""What every drawn duty has in common, shown on one that is nobody's: found once, followed from journal and chain, over
once, forgotten late."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from fakes.journal import MemoryJournal
from tallymesh import exchange
from tallymesh.errors import ChainError, LocalError
from tallymesh.exchange import Body
from tallymesh_node import duties as package
from tallymesh_node.duties import Duties, Duty, DutyRecord, Over
from tallymesh_node.duties.duties import KEEP_S, MAX_OPEN, PRUNE_LOOKS
from tallymesh_node.duties.duty import GONE_S

WINDOW_S, PAUSE_S = 100, 2.0
AWAY = ChainError("chain_unavailable", "The chain does not answer.", reverted=False)


class WatchLine(Body, frozen=True):
    tower: bytes
    seed: bytes
    hour: int


class WatchRecord(DutyRecord[WatchLine]):
    """An hour on a tower."""

    SCOPES = "watch/"

    def __init__(self, line: WatchLine) -> None:
        super().__init__(line)
        self.lit = False

    def __repr__(self) -> str:
        return f"<WatchRecord {self.scope}>"

    @classmethod
    def drawn(cls, body: bytes) -> WatchRecord:
        return cls(exchange.decode(body, WatchLine))

    def learn(self, kind: str, body: bytes) -> None:
        assert kind == "lit"
        assert not self.lit, "a fire is lit once"
        self.lit = True

    @property
    def scope(self) -> str:
        return f"{self.SCOPES}{self.line.tower.decode()}/{self.line.hour}/{self.line.seed.hex()}"

    @property
    def subject(self) -> bytes:
        return self.line.tower


class Tower(msgspec.Struct):
    """As a chain has it."""

    seed: bytes
    at: int  # when its watch was drawn
    hours: int = 1  # that fell to this account
    open: bool = True
    over: bool = False


class Land:
    """A chain with towers, and one node's disk; `run` may be entered again and again."""

    def __init__(self) -> None:
        self.towers: dict[bytes, Tower] = {}
        self.journal = MemoryJournal()
        self.away = False
        self.pause_s = PAUSE_S
        self.closed: list[bytes] = []
        self.lights: list[bytes] = []
        self.counters: Counter[str] = Counter()
        self.tools: Any = SimpleNamespace(
            journal=self.journal,
            chain=SimpleNamespace(block_time=self.now),
            executor=SimpleNamespace(close_job=self._close),
            counters=self.counters,
            sandbox_of=lambda subject: b"sandbox of " + subject,
        )
        self.watches: Watches

    def now(self) -> int:
        return 1000 + int(trio.current_time())

    def draw(self, name: bytes, *, hours: int = 1, seed: bytes = b"\1") -> Tower:
        tower = self.towers[name] = Tower(seed, self.now(), hours)
        return tower

    async def ask(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise AWAY

    def kinds(self, scope: str) -> list[str]:
        return [entry.kind for entry in self.journal.read(scope)]

    async def _close(self, sandbox: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.closed.append(sandbox)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Watches]:
        self.watches = Watches(self)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watches.run)
            yield self.watches
            nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], Any], *, timeout_s: float = 1000.0) -> None:
        with trio.fail_after(timeout_s):
            while not condition():  # noqa: ASYNC110 - under virtual time looking costs nothing
                await trio.sleep(0.5)


class Watch(Duty[Any, WatchRecord]):
    """Lights the fire once, and stays until the tower is over."""

    COUNTED = "watches"

    def __init__(self, land: Land, record: WatchRecord) -> None:
        super().__init__(land.tools, record, land.pause_s)
        self.land = land

    async def _step(self) -> None:
        await self.land.ask()
        tower = self.land.towers.get(self.record.subject)
        if not self._still(tower is not None and tower.seed == self.record.line.seed):
            return
        assert tower is not None
        if not self.record.lit:
            await self._store(("lit", b""))
            self.land.lights.append(self.record.subject)
        elif tower.over:
            raise Over("kept")


class Watches(Duties[Any, WatchRecord, Tower]):
    COUNTED = "watches_drawn"

    def __init__(self, land: Land) -> None:
        super().__init__(land.tools, WatchRecord, window_s=WINDOW_S, pause_s=land.pause_s)
        self.land = land
        self.asked = 0

    async def _drawn(self, since: int) -> Iterable[bytes]:
        await self.land.ask()
        return [name for name, tower in self.land.towers.items() if tower.at >= since]

    async def _waiting(self, subject: bytes) -> Tower | None:
        await self.land.ask()
        tower = self.land.towers.get(subject)
        return tower if tower is not None and tower.open else None

    async def _draw_of(self, subject: bytes, found: Tower) -> Sequence[WatchRecord]:
        self.asked += 1
        await self.land.ask()
        return [WatchRecord(WatchLine(subject, found.seed, hour)) for hour in range(found.hours)]

    def _duty(self, record: WatchRecord) -> Watch:
        return Watch(self.land, record)


@pytest.fixture
def land() -> Land:
    return Land()


async def test_a_draw_is_taken_once_and_its_end_is_on_disk(land: Land) -> None:
    async with land.run() as watches:
        tower = land.draw(b"north")
        await land.until(lambda: land.lights)
        assert watches.open
        tower.over = True
        await land.until(lambda: watches.idle)
        await trio.sleep(20)
        assert watches.asked == 1, "who was drawn is asked once a draw"
    assert land.kinds("watch/north/0/01") == ["drawn", "lit", "over"]
    assert land.counters == {"watches_drawn": 1, "watches_kept": 1}
    assert land.closed == [b"sandbox of north"]


async def test_a_draw_that_waits_for_nobody_or_is_of_long_ago_is_not_taken(land: Land) -> None:
    land.draw(b"north").open = False
    land.draw(b"south").at -= WINDOW_S + 61
    land.draw(b"east").at -= WINDOW_S + 50
    async with land.run():
        await trio.sleep(5)
    assert land.journal.scopes("") == ["watch/east/0/01"]


async def test_a_restart_goes_on_with_what_is_open_and_takes_nothing_twice(land: Land) -> None:
    tower = land.draw(b"north")
    async with land.run():
        await land.until(lambda: land.lights)
    tower.open = False  # nobody would be drawn for it any more
    async with land.run() as watches:
        await land.until(lambda: watches.open)
        tower.over = True
        await land.until(lambda: watches.idle)
    tower.open = True
    async with land.run() as watches:
        await trio.sleep(20)
        assert watches.idle
    assert land.lights == [b"north"]
    assert land.kinds("watch/north/0/01") == ["drawn", "lit", "over"]


async def test_the_sandbox_is_closed_with_the_last_duty_of_a_case(land: Land) -> None:
    tower = land.draw(b"north", hours=3)
    async with land.run() as watches:
        await land.until(lambda: len(watches.open) == 3)
        assert not land.closed
        tower.over = True
        await land.until(lambda: watches.idle)
    assert land.closed == [b"sandbox of north"]


async def test_no_more_are_open_than_a_machine_bears_and_the_others_follow(land: Land) -> None:
    tower = land.draw(b"north", hours=MAX_OPEN)
    late = land.draw(b"south", hours=1)
    async with land.run() as watches:
        await land.until(lambda: len(watches.open) == MAX_OPEN)
        await trio.sleep(20)
        assert len(watches.open) == MAX_OPEN
        assert land.journal.scopes("watch/south") == []
        tower.over = late.over = True
        await land.until(lambda: land.journal.scopes("watch/south") and watches.idle)
    assert land.counters["watches_kept"] == MAX_OPEN + 1


async def test_what_a_reorganisation_took_back_is_over_after_a_while_and_what_it_drew_anew_is_another(
    land: Land,
) -> None:
    land.draw(b"north")
    async with land.run() as watches:
        await land.until(lambda: land.lights)
        old = land.towers.pop(b"north")
        await trio.sleep(GONE_S - 10)
        assert len(watches.open) == 1
        land.towers[b"north"] = old
        await trio.sleep(10)
        land.towers.pop(b"north")
        await trio.sleep(GONE_S - 10)
        assert len(watches.open) == 1, "it was there in between"
        land.draw(b"north", seed=b"\2")
        await land.until(lambda: land.counters["watches_reorganised"])
        await land.until(lambda: len(watches.open) == 1)
    assert land.kinds("watch/north/0/01")[-1] == "over"
    assert land.kinds("watch/north/0/02") == ["drawn", "lit"]


async def test_a_chain_that_is_away_is_told_and_costs_a_delay(land: Land) -> None:
    land.draw(b"north")
    async with land.run() as watches:
        await land.until(lambda: land.lights)
        land.away = True
        await land.until(lambda: watches.problems())
        assert watches.problems() == [(AWAY.code, AWAY.sentence)]
        land.draw(b"south")
        await trio.sleep(20)
        assert land.lights == [b"north"]
        land.away = False
        await land.until(lambda: land.lights == [b"north", b"south"])
        await land.until(lambda: not watches.problems())
        assert len(watches.open) == 2


async def test_a_disk_that_refuses_keeps_a_draw_untaken_a_step_undone_and_an_end_unsaid(land: Land) -> None:
    refused = {"drawn", "lit", "over"}

    def full(scope: str, kind: str, body: bytes) -> None:
        if kind in refused:
            raise LocalError("disk", "The disk is full.")

    land.journal.on_append = full
    land.draw(b"north").over = True
    async with land.run() as watches:
        await trio.sleep(20)
        assert watches.idle
        refused.remove("drawn")
        await land.until(lambda: watches.problems() == [("disk", "The disk is full.")])
        assert not land.lights
        refused.remove("lit")
        await land.until(lambda: land.lights)
        await trio.sleep(20)
        assert watches.open, "an end that is not on disk is none"
        refused.remove("over")
        await land.until(lambda: watches.idle)
    assert land.kinds("watch/north/0/01") == ["drawn", "lit", "over"]
    assert land.lights == [b"north"]
    assert land.counters["watches_kept"] == 1


async def test_what_is_over_is_kept_for_a_day_and_then_forgotten(land: Land) -> None:
    land.draw(b"north").over = True
    land.pause_s = 30.0  # a day has few looks then
    async with land.run() as watches:
        await land.until(lambda: land.lights and watches.idle)
        await trio.sleep(KEEP_S)
        assert land.journal.scopes("watch/")
        await trio.sleep(PRUNE_LOOKS * land.pause_s)
        assert not land.journal.scopes("watch/")


def test_the_shared_part_knows_neither_claims_nor_quarrels() -> None:
    folder = Path(package.__file__).parent
    shared = [*folder.glob("*.py"), *(folder.parent / f"{name}.py" for name in ("looks", "lines", "grants", "tools"))]
    assert len(shared) > 6
    for path in shared:
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = {node.module for node in nodes if node.module}
        assert not {name for name in names if name.startswith(("tallymesh_node.claims", "tallymesh_node.quarrels"))}
