"""Members that the chain drew get the disputed unit from its parties, recompute one step and vote; the Court is the
contracts' model."""

from __future__ import annotations

from fakes.claims import COURT
from fakes.court_scene import CourtScene
from tallymesh_ledger.court import Ruling


async def test_a_cheat_is_voted_down_by_one_step_and_whoever_voted_is_paid(scene: CourtScene) -> None:
    before = {member.key.address: scene.wealth(member.key.address) for member in scene.members}
    async with scene.everybody():
        await scene.accuse()
        assert await scene.narrow() == 3
        found = scene.found()
        assert (found.lo, found.hi) == (5, 6)
        await scene.draw()
        drawn = scene.seats()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        assert scene.found().for_accuser == COURT.panel
        await scene.until(lambda: all(member.members.idle for member in scene.members))
        await scene.until(lambda: not any(scene.chain.contracts.court.credit_of(one) for one in before))
    for member in scene.members:
        mine = drawn.count(member.key.address)
        assert scene.wealth(member.key.address) - before[member.key.address] == mine * COURT.member_fee
        assert len(member.executor.ran) == bool(mine), "one step, run once, however many places"
        assert member.counters.get("panels_right", 0) == bool(mine)
