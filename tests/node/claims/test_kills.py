"""kill -9 at every line of the claims' journals, before the line is on disk and after it: nothing is lost, nothing is
said twice in two ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fakes.claim_scene import ClaimScene, Story
from fakes.kills import Trap, noted
from fakes.seldom import seldom
from tallymesh_ledger.claims import Heard

WORKER_LINES = ("claim", "end")
AUDITOR_LINES = ("drawn", "call", "commit", "over")


async def _told(story: Story, spring: Callable[[], bool]) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(story.ended)
        await story.until(spring)
        await story.until(lambda: not story.chain.contracts.claims.credit_of(story.worker.key.address))
    assert story.killed == 1
    assert (story.ended(), story.paid()) == ("paid", 6)
    heard = {story.chain.contracts.claims.sample_of(story.claim_id, i).heard for i in range(story.found().k)}
    assert heard == {Heard.MATCH}
    story.chain.check()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("line", seldom(WORKER_LINES))
async def test_a_worker_killed_at_any_line_is_paid(scene: ClaimScene, line: str, after: bool) -> None:
    story = Story(scene)
    trap = Trap(story.worker.journal, line, after=after, scopes="claim")
    await _told(story, lambda: trap.sprung and story.killed == 1)
    kinds = [entry.kind for entry in story.worker.journal.read(f"claim/{story.seat.hex()}")]
    assert kinds == ["claim", "end"], "one word, one end"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("line", seldom(AUDITOR_LINES))
async def test_an_auditor_killed_at_any_line_commits_once_and_reveals(
    scene: ClaimScene, line: str, after: bool
) -> None:
    story = Story(scene)
    traps = [Trap(auditor.journal, line, after=after, scopes="claim") for auditor in story.auditors]

    def one_is_enough() -> bool:
        if any(trap.sprung for trap in traps):
            for trap in traps:
                trap.sprung = True
        return story.killed >= 1

    for auditor in story.auditors[1:]:
        auditor.executor.seconds = {"": 5.0}  # the first one is first, and alone where there is a choice
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(one_is_enough)
        await story.until(story.ended)
        await story.until(lambda: all(not a.service.counters["audits_open"] for a in story.auditors))
    assert (story.ended(), story.paid()) == ("paid", 6)
    for auditor in story.auditors:
        for scope in auditor.journal.scopes("claim-audit/"):
            kinds = [entry.kind for entry in auditor.journal.read(scope)]
            assert kinds in (["drawn", "call", "commit", "over"], ["drawn", "over"]), "one commitment a sample"
    silent = [auditor.service.counters.get("audits_silent", 0) for auditor in story.auditors]
    assert not any(silent), "nobody lost its bond"
    story.chain.check()


async def test_a_commitment_is_on_disk_before_it_is_on_chain(scene: ClaimScene) -> None:
    story = Story(scene)
    seen: list[bool] = []
    for auditor in story.auditors:  # the fake of each, and no other
        auditor.claims.commit = noted(auditor.claims.commit, auditor.journal, "claim-audit/", "commit", seen)  # type: ignore[method-assign]
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(story.ended)
    assert seen
    assert all(seen)


async def test_a_disk_that_refuses_keeps_everything_unsaid(scene: ClaimScene) -> None:
    story = Story(scene)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.worker.claiming.counters.get("settlements"))
        story.worker.journal.broken = True
        for auditor in story.auditors:
            auditor.journal.broken = True
        await story.until(lambda: "disk" in story.problems())
        assert not story.claim()
        story.worker.journal.broken = False
        await story.until(lambda: story.state() == "sampling")
        assert not story.found().committed
        for auditor in story.auditors:
            auditor.journal.broken = False
        await story.until(story.ended)
    assert (story.ended(), story.paid()) == ("paid", 6)


@pytest.mark.parametrize("kept", [0, 1], ids=["nothing", "the draw"])
async def test_an_auditor_whose_journal_is_of_before_its_commitment_reveals_it_all_the_same(
    scene: ClaimScene, kept: int
) -> None:
    """Its bond hangs on it. What it found and its salt follow from the unit and its key."""
    story = Story(scene)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.claim() and story.found().committed)
        claims = story.chain.contracts.claims
        samples = [claims.sample_of(story.claim_id, i) for i in range(story.found().k)]
        (first, *_) = [a for a in story.auditors if any(sample.auditor == a.key.address for sample in samples)]
        await story.stop(first)
        for scope in first.journal.scopes("claim-audit/"):
            lines = [(entry.kind, entry.body) for entry in first.journal.read(scope)]
            await first.journal.drop(scope)
            if kept:
                await first.journal.append(scope, *lines[:kept])
        await story.start(first)
        await story.until(story.ended)
    assert (story.ended(), story.paid()) == ("paid", 6)
    heard = {claims.sample_of(story.claim_id, i).heard for i in range(story.found().k)}
    assert heard == {Heard.MATCH}, "nobody was silent"
    story.chain.check()
