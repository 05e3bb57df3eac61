"""What a job's events may take of memory and disk, however much happens."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fakes.journal import MemoryJournal
from fakes.payer_scene import PayerNode, Scene
from tallymesh import api
from tallymesh_node.payer import events
from tallymesh_node.payer.events import EventLog


async def test_the_journal_holds_the_newest_events_and_no_more_than_twice_those(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 50)
    monkeypatch.setattr(events, "MAX_WRITTEN", 100)
    journal = MemoryJournal()
    log = EventLog(journal, "job", lambda: 0.0)
    written = 0
    for number in range(1000):
        log.add("log", line=str(number))
        if number % 7 == 0:
            await log.write()
            written = max(written, len(journal.read(events.SCOPE + "job")))
    await log.write()
    assert 50 < written <= 100
    again = EventLog(journal, "job", lambda: 0.0)
    again.load()
    shown = [event.data["line"] for event in again.after(0)]
    assert shown == [str(number) for number in range(950, 1000)]
    for number in range(60):
        again.add("log", line=str(number))
        await again.write()
    assert len(journal.read(events.SCOPE + "job")) <= 100, "what was there before a restart counts"


async def test_what_is_kept_no_more_is_known_also_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 50)
    journal = MemoryJournal()
    log = EventLog(journal, "job", lambda: 0.0)
    assert log.kept == (0, 0)
    for _ in range(50):
        log.add("log")
    assert log.kept == (0, 50)
    log.add("log")
    assert log.kept == (1, 51)
    await log.write()
    again = EventLog(journal, "job", lambda: 0.0)
    again.load()
    assert again.kept == (1, 51)
    again.add("log")
    assert again.kept == (2, 51 + events.GAP)
    await journal.drop(events.SCOPE + "job")
    again._unwritten.extend(list(again._events)[-20:])
    await again.write()
    short = EventLog(journal, "job", lambda: 0.0)
    short.load()
    assert short.kept == (short.after(0)[0].sequence - 1, 51 + events.GAP)


async def test_the_first_events_are_written_down_at_once() -> None:
    """Else a crash within the first half second would begin the numbers anew, and who had read some would miss as many
    of the next life."""
    journal = MemoryJournal()
    log = EventLog(journal, "job", lambda: 0.0)
    log.add("status")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        assert len(journal.read(events.SCOPE + "job")) == 1
        nursery.cancel_scope.cancel()


async def test_a_job_that_waits_says_once_what_the_market_had_for_it(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(2)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=4), require=api.Require(memory_gib=900.0))
        await payer.wait(job, "matching")
        await trio.sleep(120)
        found = [event.data for event in payer.service.events(job, 0) if event.kind == "match"]
        assert [data["rejected"] for data in found] == [{"too_little_memory": 2}]
