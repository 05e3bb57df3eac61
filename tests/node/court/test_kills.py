"""kill -9 at every line of a member's journal, before the line is on disk and after it: no vote is lost, and none is
said in two ways."""

from __future__ import annotations

import pytest

from fakes.claims import COURT
from fakes.court_scene import CourtScene, Member
from fakes.journal import MemoryJournal
from fakes.kills import Trap, noted
from tallymesh_ledger.court import CaseState, Ruling

LINES = ("drawn", "vote", "over")


def kinds(member: Member) -> list[str]:
    """Of all lines that it wrote as a member, in order."""
    return [entry.kind for scope in member.journal.scopes("court/") for entry in member.journal.read(scope)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("line", LINES)
async def test_a_member_killed_at_any_line_votes_once_and_is_paid(scene: CourtScene, line: str, after: bool) -> None:
    traps = [Trap(member.journal, line, after=after) for member in scene.members]
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        drawn = [member for member in scene.members if member.key.address in scene.seats()]
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        await scene.until(lambda: all("over" in kinds(member) for member in drawn))
        held = scene.chain.contracts.court
        await scene.until(lambda: not any(held.credit_of(m.key.address) for m in scene.members))
    assert sum(trap.sprung for trap in traps) == scene.killed == len(drawn)
    assert scene.found().for_accuser == COURT.panel, "nobody lost its vote"
    for member in drawn:
        assert kinds(member) == ["drawn", "vote", "over"], "one vote, one end"


async def test_a_vote_is_on_disk_before_its_commitment_is_on_chain(scene: CourtScene) -> None:
    seen: list[bool] = []
    for member in scene.members:  # the fake of each, and no other
        member.court.commit = noted(member.court.commit, member.journal, "court/", "vote", seen)  # type: ignore[method-assign]
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        await scene.ruled()
    assert len(seen) == COURT.panel
    assert all(seen)


async def test_a_disk_that_refuses_keeps_the_vote_unsaid_and_is_told(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        drawn = [member for member in scene.members if member.key.address in scene.seats()]
        await scene.until(lambda: all(member.members.open for member in drawn))
        for member in drawn:
            member.journal.broken = True
        await scene.until(lambda: all(member.members.problems() for member in drawn))
        assert scene.found().committed == 0
        for member in drawn:
            member.journal.broken = False
        assert await scene.ruled() is Ruling.FOR_ACCUSER


async def test_a_day_old_backup_says_the_same_again(scene: CourtScene) -> None:
    """Salt and commitment follow from the key and from what is found: a member that forgot its vote opens it."""
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        await scene.until(lambda: scene.found().committed == COURT.panel)
        drawn = [member for member in scene.members if member.key.address in scene.seats()]
        await scene.stop(*drawn)
        for member in drawn:
            member.journal = MemoryJournal()
        assert scene.found().state is CaseState.VOTING
        await scene.start(*drawn)
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        assert scene.found().for_accuser == COURT.panel
