"""Somebody lies: the auditor, the worker, or a machine that is at fault. The Court itself is the test's."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fakes.claim_scene import ClaimScene, Story
from fakes.claims import BOND, COURT, decide
from fakes.executor import honest
from fakes.seldom import seldom
from tallymesh.ids import BlobId
from tallymesh.units import Unit
from tallymesh_ledger.claims import NO_OUTPUT, Heard, case_id
from tallymesh_ledger.model.trials import Ruling
from tallymesh_node.interfaces import Failure


def lie(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    output, metrics = honest(unit, inputs)
    return b"a lie about " + output, metrics


def disputed(story: Story) -> list[int]:
    if not story.claim():
        return []
    model, claim = story.chain.contracts.claims, story.claim_id
    return [i for i in range(story.found().k) if model.sample_of(claim, i).heard == Heard.DISPUTED]


def heard(story: Story) -> set[str]:
    model, claim = story.chain.contracts.claims, story.claim_id
    return {Heard(model.sample_of(claim, i).heard).name.lower() for i in range(story.found().k)}


async def everybody_said(story: Story) -> None:
    await story.until(lambda: story.state() == "revealing" and story.found().revealed == story.found().k)


@pytest.mark.parametrize(
    ("ruling", "ended", "units"),
    seldom(
        [
            (Ruling.FOR_ACCUSED, "paid", 6),
            (Ruling.FOR_ACCUSER, "failed", 1),
            (Ruling.VOID, "paid", 6),
            (Ruling.UNSERVED, "failed", 1),
            (Ruling.NO_QUORUM, "halved", 3),
        ],
        always=2,
    ),
)
async def test_a_mismatch_goes_before_the_court_and_its_word_is_carried_out(
    scene: ClaimScene, ruling: Ruling, ended: str, units: int
) -> None:
    story = Story(scene)
    for auditor in story.auditors:
        auditor.executor.functions["m:f"] = lie
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await everybody_said(story)
        cases = disputed(story)
        assert len(cases) == story.found().k
        await story.until(lambda: scene.chain.now() > story.found().deadline + 100)
        assert story.state() == "revealing", "a claim waits for the Court, whatever the time"
        for sample in cases:
            decide(scene.chain, case_id(story.claim_id, sample), ruling)
        await story.until(story.ended)
        await story.until(lambda: story.worker.claiming.idle and all(a.service.idle for a in story.auditors))
    assert (story.ended(), story.paid()) == (ended, units)
    assert all(a.service.counters.get("reveals_match", 0) == 0 for a in story.auditors)
    story.chain.check()


async def test_a_lying_worker_loses_its_claim_and_its_lock_and_the_auditors_gain(scene: ClaimScene) -> None:
    story = Story(scene)
    story.worker.executor.functions["m:f"] = lie
    before = {auditor.key.address: story.wealth(auditor.key.address) for auditor in story.auditors}
    mine = story.wealth(story.worker.key.address)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await everybody_said(story)
        for sample in disputed(story):
            decide(scene.chain, case_id(story.claim_id, sample), Ruling.FOR_ACCUSER)
        await story.until(story.ended)
        await story.until(lambda: all(a.service.idle for a in story.auditors))
    assert (story.ended(), story.paid()) == ("failed", 1)
    assert heard(story) == {"upheld"}
    assert story.wealth(story.worker.key.address) == mine + story.net(1) - BOND
    assert all(story.wealth(account) >= had for account, had in before.items())
    assert scene.chain.contracts.escrow.lock_left(scene.chain.leases[story.seat]) == 0


async def test_one_liar_among_the_auditors_does_not_stop_the_pay(scene: ClaimScene) -> None:
    story = Story(scene)
    story.auditors[0].executor.functions["m:f"] = lie
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await everybody_said(story)
        for sample in disputed(story):
            decide(scene.chain, case_id(story.claim_id, sample), Ruling.FOR_ACCUSED)
        await story.until(story.ended)
    assert (story.ended(), story.paid()) == ("paid", 6)


async def test_a_machine_at_fault_says_nothing_about_the_worker(scene: ClaimScene) -> None:
    story = Story(scene)
    for auditor in story.auditors[:2]:
        auditor.executor.fail["m:f"] = Failure("sandbox", "There is no sandbox here.")
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(story.ended)
    assert (story.ended(), story.paid()) == ("paid", 6)
    assert heard(story) == {"match"}


async def test_a_program_that_gives_no_output_here_gave_none_there(scene: ClaimScene) -> None:
    story = Story(scene)
    for auditor in story.auditors:
        auditor.executor.fail["m:f"] = Failure("program", "ValueError: the tyres are flat")
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await everybody_said(story)
    case = scene.chain.contracts.court.case_of(case_id(story.claim_id, disputed(story)[0]))
    assert case.accuser_value == NO_OUTPUT
    assert case.fee == COURT.panel * COURT.member_fee


async def test_an_auditor_whose_pay_is_not_worth_the_gas_leaves_it_to_others(scene: ClaimScene) -> None:
    story = Story(scene)
    for auditor in story.auditors:
        auditor.claims.refuse["commit"] = "not_worth_gas"
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(story.ended)
        await story.until(lambda: all(a.service.idle for a in story.auditors))
    assert (story.ended(), story.paid()) == ("halved", 3)
    assert sum(a.service.counters.get("audits_not_worth_gas", 0) for a in story.auditors) >= story.found().k


async def test_an_auditor_concludes_in_the_workers_place_only_where_that_is_worth_the_gas(scene: ClaimScene) -> None:
    story = Story(scene)
    for auditor in story.auditors:
        auditor.claims.refuse["conclude"] = "not_worth_gas"
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await everybody_said(story)
        await story.stop(story.worker)
        await story.until(lambda: all(a.service.idle for a in story.auditors))
        assert sum(a.service.counters.get("audits_not_worth_gas", 0) for a in story.auditors) == story.found().k
        assert not story.ended()
        await story.start(story.worker)
        await story.until(story.ended)
    assert (story.ended(), story.paid()) == ("paid", 6)


async def test_an_auditor_without_the_bond_says_so_and_the_next_rank_stands_in(scene: ClaimScene) -> None:
    story = Story(scene)
    poor = story.auditors[0]
    scene.chain.run(
        lambda: scene.chain.contracts.token.transfer(poor.key.address, b"\x09" * 20, story.wealth(poor.key.address))
    )
    told: list[str] = []
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()

        def look() -> str:
            told.extend(problem.code for problem in poor.service.problems())
            return story.ended()

        await story.until(look)
    assert (story.ended(), story.paid()) == ("paid", 6)
    assert "no_bond" in told
    assert not poor.claims.sent
