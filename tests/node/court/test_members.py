"""Members that the chain drew get the disputed unit from its parties, recompute one step and vote; the Court is the
contracts' model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from fakes.chain import DOMAINS
from fakes.claims import COURT
from fakes.court import trained
from fakes.court_scene import CourtScene
from tallymesh import units
from tallymesh.errors import ChainError
from tallymesh.ids import BlobId
from tallymesh.plan import Plan
from tallymesh.units import Unit
from tallymesh_ledger import court
from tallymesh_ledger.claims import NO_OUTPUT
from tallymesh_ledger.court import CaseState, Ruling
from tallymesh_ledger.jobs import job_id
from tallymesh_node.interfaces import Failure
from tallymesh_node.quarrels.values import SEGMENT, cut


async def made(folder: Path, **options: Any) -> CourtScene:
    scene = CourtScene(folder, **options)
    await scene.prepare()
    return scene


def lie(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    output, metrics = trained(unit, inputs)
    return b"a lie about " + output, metrics


def ran(scene: CourtScene) -> set[bytes]:
    """Units that members ran."""
    return {unit for member in scene.members for unit in member.executor.ran}


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
        assert bool(member.executor.closed) == bool(mine), "its sandbox is gone"


async def test_the_first_wrong_step_of_1024_is_found_in_ten_exchanges_and_run_alone(tmp_path: Path) -> None:
    scene = await made(tmp_path, steps=1024, wrong=389, total=2000)
    async with scene.everybody():
        await scene.accuse()
        assert await scene.narrow() == 10
        assert (scene.found().lo, scene.found().hi) == (388, 389)
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
    (unit,) = ran(scene)
    part = cut(scene.unit, scene.honest[388], 388, 389)
    assert isinstance(part, Unit)
    assert unit == units.unit_id(part)


async def test_an_honest_worker_is_acquitted(tmp_path: Path) -> None:
    scene = await made(tmp_path, wrong=0)
    async with scene.everybody():
        await scene.accuse(own_end=b"f" * 32)
        while scene.found().state is not CaseState.DRAWING:
            middle = scene.found().middle
            await scene.worker.court.post(scene.case, scene.told[middle])
            await scene.payer.court.answer(scene.case, b"g" * 32)
        assert (scene.found().lo, scene.found().hi) == (0, 1)
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSED


@pytest.mark.parametrize("steps", [1, 3])
async def test_an_accuser_that_counts_too_few_steps_gains_nothing(tmp_path: Path, steps: int) -> None:
    """What it calls the last value is the unit's end: else nobody would find the honest worker's there."""
    scene = await made(tmp_path, wrong=0)
    async with scene.everybody():
        await scene.accuse(steps=steps, own_end=b"f" * 32)
        await scene.narrow()
        assert scene.found().hi == steps
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSED


async def test_an_accuser_that_counts_too_many_steps_gains_nothing(tmp_path: Path) -> None:
    scene = await made(tmp_path, wrong=0)
    async with scene.everybody():
        await scene.accuse(steps=1 << 20, own_end=b"f" * 32)
        assert await scene.narrow() == 20
        assert scene.found().lo == (1 << 20) - 1, "they agreed on all values before the end"
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSED
        assert not ran(scene), "after the last step nothing changes any more, and nothing has to run"


async def test_a_unit_that_the_court_votes_on_whole_is_run_whole(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse(steps=1)
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
    assert ran(scene) == {units.unit_id(scene.unit)}


async def test_a_start_that_the_unit_does_not_name_is_voted_down_without_running_anything(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse(start=b"f" * 32)
        assert scene.found().hi == 0
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        assert not ran(scene)


@pytest.mark.parametrize("gone", ["worker", "payer"])
async def test_one_party_that_serves_is_enough(scene: CourtScene, gone: str) -> None:
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        scene.network.down.add(gone)
        scene.swarm.down.add(gone)
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSER


async def test_where_neither_party_serves_the_accuser_loses(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse(serve=False)
        await scene.narrow()
        await scene.draw()
        deadline = scene.found().deadline
        await scene.until(lambda: scene.found().committed)
        assert deadline - scene.chain.now() <= 0.2 * COURT.commit_window, "it was tried for most of the time"
        assert await scene.ruled() is Ruling.UNSERVED
        assert scene.found().unserved == COURT.panel


async def test_bytes_withdrawn_after_the_answer_are_unserved(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        agreed = scene.found().agreed
        for party in scene.parties:
            (party.blobs.folder / agreed.hex()).unlink()
        await scene.draw()
        assert await scene.ruled() is Ruling.UNSERVED


async def test_a_party_that_serves_other_bytes_is_not_believed(scene: CourtScene) -> None:
    other = replace(scene.unit, seed=scene.unit.seed + 1)
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        scene.worker.dossiers[scene.case] = scene.dossier(unit=units.encode(other))
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        assert scene.worker.counters["units_served"], "it was asked, and did answer"
    assert ran(scene)
    assert units.unit_id(other) not in ran(scene)


async def test_another_unit_of_the_job_with_an_opening_that_fits_it_is_not_believed(scene: CourtScene) -> None:
    """The unit is proven by the opening, and the opening by the case's id."""
    spec = units.decode_spec(scene.payer.blobs.get(scene.template))
    other = Plan(spec).round_tasks(1, BlobId(scene.honest[3]))[0].unit
    async with scene.everybody():
        await scene.accuse(steps=1)
        opening = replace(scene.opening, unit_id=units.unit_id(other))
        scene.worker.dossiers[scene.case] = scene.dossier(unit=units.encode(other), opening=opening)
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
    assert scene.worker.counters["units_served"], "it was asked, and did answer"
    assert ran(scene) == {units.unit_id(scene.unit)}


@pytest.mark.parametrize("lease_too", [False, True])
async def test_an_order_that_does_not_pay_for_the_unit_is_not_believed_from_a_party(
    scene: CourtScene, lease_too: bool
) -> None:
    """Else a cheat would make its own unit a foreign one. The seat proves the lease, and that the order."""
    spec = units.decode_spec(scene.payer.blobs.get(scene.template))
    template = scene.worker.blobs.put(units.encode(replace(spec, program=b"q" * 32)))
    order = replace(scene.order, template=template)
    lease = replace(scene.lease, job=job_id(DOMAINS, order)) if lease_too else scene.lease
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        scene.worker.dossiers[scene.case] = scene.dossier(
            order=scene.payer.key.sign(DOMAINS, order).body,
            lease=scene.signer.sign(DOMAINS, lease).body,
            template=template,
        )
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
    assert scene.worker.counters["units_served"], "it was asked, and did answer"


async def test_a_unit_that_the_order_does_not_pay_is_not_run(tmp_path: Path) -> None:
    scene = CourtScene(tmp_path)
    foreign = replace(scene._unit(), seed=99)
    await scene.prepare(foreign)
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        drawn_at = scene.chain.now()
        await scene.until(lambda: scene.found().committed == COURT.panel)
        assert scene.chain.now() - drawn_at < 0.5 * COURT.commit_window, "that is plain at once"
        assert await scene.ruled() is Ruling.UNSERVED
    assert not ran(scene)


async def test_a_program_that_gives_no_output_gives_none_to_members_either(tmp_path: Path) -> None:
    scene = await made(tmp_path)
    for member in scene.members:
        member.executor.fail[SEGMENT] = Failure("program", "It raised.")
    async with scene.everybody():
        await scene.accuse(own_end=NO_OUTPUT, steps=1)
        await scene.draw()
        assert await scene.ruled() is Ruling.FOR_ACCUSER


@pytest.mark.parametrize("code", ["sandbox", "limits", "inputs"])
async def test_a_machine_at_fault_says_nothing(scene: CourtScene, code: str) -> None:
    async with scene.everybody():
        await scene.accuse(steps=1)
        await scene.draw()
        drawn = scene.seats()
        broken = next(member for member in scene.members if member.key.address in drawn)
        broken.executor.fail[SEGMENT] = Failure(code, "No room.")
        await scene.until(lambda: broken.counters["panels_own_fault"])
        await scene.until(lambda: scene.found().committed == len(drawn) - drawn.count(broken.key.address))
    assert "commit" not in broken.court.sent
    (scope,) = broken.journal.scopes("court/")
    assert [entry.kind for entry in broken.journal.read(scope)] == ["drawn", "over"]


async def test_a_machine_at_fault_is_no_vote_and_too_few_votes_are_drawn_again(scene: CourtScene) -> None:
    for member in scene.members:
        member.executor.fail[SEGMENT] = Failure("sandbox", "No room.")
    async with scene.everybody():
        await scene.accuse(steps=1)
        await scene.draw()
        silent = len(set(scene.seats()))
        await scene.until(lambda: sum(m.counters["panels_own_fault"] for m in scene.members) == silent)
        assert scene.found().committed == 0
        for member in scene.members:
            member.executor.fail.clear()
        await scene.until(lambda: scene.chain.now() > scene.found().reveal_until)
        await scene.payer.court.advance(scene.case)
        assert scene.found().round == 1
        assert await scene.ruled() is Ruling.FOR_ACCUSER


async def test_a_panel_that_no_party_draws_is_drawn_by_whoever_may_sit_on_it(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
    assert sum("advance" in member.court.sent for member in scene.members) >= 1
    assert "advance" not in scene.payer.court.sent + scene.worker.court.sent


async def test_a_member_that_copies_a_commitment_cannot_open_it(tmp_path: Path) -> None:
    """The hash holds the account: what is copied opens for nobody else, and earns nothing."""
    scene = CourtScene(tmp_path)
    scene.chain.contracts.court.terms = replace(COURT, panel=7)
    await scene.prepare()
    model = scene.chain.contracts.court
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        drawn = scene.seats()
        thief, victim = scene.members[1], scene.members[0]
        place, other = drawn.index(thief.key.address), drawn.index(victim.key.address)
        await scene.stop(thief)
        await scene.until(lambda: any(model.ballot_of(scene.case, 0, other).member))
        copied = model.ballot_of(scene.case, 0, other).commitment
        for number, account in enumerate(drawn):
            if account == thief.key.address:
                member = court.Member(number, model.member_at(scene.case, number)[1], account)
                await thief.court.commit(scene.case, member, copied, brings_wei=None)
        record = next(iter(victim.members.open.values())).record
        await scene.until(lambda: any(e.name == "VoteRevealed" for _, e in scene.chain.events))
        shown = next(e.values for _, e in scene.chain.events if e.name == "VoteRevealed")
        for salt in (record.salt(victim.key, other), record.salt(thief.key, other)):
            with pytest.raises(ChainError) as refused:
                await thief.court.reveal(scene.case, place, shown["result"], salt)
            assert refused.value.code == "bad_reveal"
        before = scene.wealth(thief.key.address)
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        assert scene.wealth(thief.key.address) == before


async def test_a_wrong_panel_is_overruled_by_the_appeals_and_only_that_is_paid(scene: CourtScene) -> None:
    for member in scene.members:
        member.executor.functions[SEGMENT] = lie
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        await scene.until(lambda: scene.found().state is CaseState.APPEALABLE)
        assert scene.found().ruling is Ruling.VOID, "each found another value than the parties"
        for member in scene.members:
            member.executor.functions[SEGMENT] = trained
        await scene.payer.court.appeal(scene.case)
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        assert scene.found().for_accuser == COURT.appeal_panel
        await scene.until(lambda: all(member.members.idle for member in scene.members))
    said = {key for member in scene.members for key in member.counters if key.startswith("panels_")}
    assert said == {"panels_drawn", "panels_wrong", "panels_right"}


async def test_gas_that_is_too_dear_is_told_and_tried_again(scene: CourtScene) -> None:
    for member in scene.members:
        member.court.refuse["commit"] = "not_worth_gas"
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        drawn = [m for m in scene.members if m.key.address in scene.seats()]
        await scene.until(lambda: all(m.members.problems() for m in drawn))
        assert {code for m in drawn for code, _ in m.members.problems()} == {"not_worth_gas"}
        for member in scene.members:
            member.court.refuse.clear()
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        assert all(len(m.executor.ran) == 1 for m in drawn), "what was found is on disk and is not found again"


async def test_a_chain_that_is_away_for_half_of_the_window_costs_no_vote(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        scene.chain.down = True
        await trio.sleep(0.5 * COURT.commit_window)
        scene.chain.down = False
        assert await scene.ruled() is Ruling.FOR_ACCUSER


async def test_a_member_that_was_off_for_half_of_the_window_still_votes(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.stop(*scene.members)
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        await trio.sleep(0.5 * COURT.commit_window)
        await scene.start(*scene.members)
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        assert scene.found().for_accuser == COURT.panel


async def test_a_reorganisation_that_draws_anew_ends_the_old_panel(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse()
        await scene.narrow()
        await scene.draw()
        await scene.until(lambda: scene.found().committed == COURT.panel)
        model = scene.chain.contracts.court
        old = model.case_of(scene.case)
        drawn = set(scene.seats())
        model._cases[scene.case] = replace(
            old, seed=b"\x77" * 32, committed=0, deadline=old.deadline + 200, reveal_until=old.reveal_until + 200
        )
        for number in range(COURT.panel):
            model._ballots[scene.case, 0, number] = type(model.ballot_of(scene.case, 0, number))()
        again = set(scene.seats())
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        await scene.until(lambda: all(member.members.idle for member in scene.members))
    ended = sum(member.counters["panels_reorganised"] for member in scene.members)
    right = sum(member.counters["panels_right"] for member in scene.members)
    assert (ended, right) == (len(drawn), len(again))


async def test_an_appeal_without_its_panel_is_moved_on_by_the_first_one(scene: CourtScene) -> None:
    """It waits for its pay; where no member of the appeal comes, and no party, the first ruling stands."""
    async with scene.everybody():
        await scene.accuse(steps=1)
        await scene.draw()
        first = [member for member in scene.members if member.key.address in scene.seats()]
        await scene.until(lambda: scene.found().state is CaseState.APPEALABLE)
        for member in scene.members:
            member.executor.fail[SEGMENT] = Failure("sandbox", "No room.")
        await scene.payer.court.appeal(scene.case)
        assert await scene.ruled() is Ruling.FOR_ACCUSER
        await scene.until(lambda: all(member.members.idle for member in scene.members))
    assert scene.payer.court.sent.count("advance") == 1
    assert all(member.counters["panels_right"] == 1 for member in first)


@pytest.mark.slow
async def test_a_case_that_nobody_moves_on_does_not_keep_a_member_for_ever(scene: CourtScene) -> None:
    async with scene.everybody():
        await scene.accuse(steps=1)
        await scene.draw()
        drawn = [member for member in scene.members if member.key.address in scene.seats()]
        await scene.until(lambda: scene.found().state is CaseState.APPEALABLE)
        for member in scene.members:
            member.court.refuse["advance"] = "not_worth_gas"
        await scene.until(lambda: all(member.members.problems() for member in drawn))
        await scene.until(lambda: all(member.members.idle for member in scene.members), timeout_s=100_000)
    assert all(member.counters["panels_left"] == 1 for member in drawn)
