"""What an auditor finds in a claim goes before the Court: auditor and worker plead, others judge, all from their own
journals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from fakes.chain import DOMAINS
from fakes.claim_scene import Story
from fakes.claims import COURT
from fakes.trial_scene import Trial, lie
from tallymesh import exchange, wire
from tallymesh.messages import Lease
from tallymesh.units import decode_unit, encode, unit_id
from tallymesh_ledger.claims import Heard
from tallymesh_ledger.jobs import seat_id
from tallymesh_node.claims.kept import Kept
from tallymesh_node.claims.record import AUDITOR, CallLine, DrawnLine, Line
from tallymesh_node.lines import EndLine

LOCK = 100


async def tried(tmp_path: Path, *, liars: tuple[int, ...], cheat: bool, silent_s: float = 0.0) -> tuple[Trial, Story]:
    """A claim by a worker that is a cheat or not, among auditors of whom some lie. `silent_s`: the worker's quarrels
    begin so much later than the claim."""
    scene = Trial(tmp_path)
    story = Story(scene)
    if cheat:
        story.worker.executor.functions["m:f"] = lie
    for number in liars:
        story.auditors[number].executor.functions["m:f"] = lie
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        async with scene.quarrelling(*story.auditors):
            await story.until(lambda: story.state() == "revealing")
            await trio.sleep(silent_s)
            async with scene.quarrelling(story.worker):
                await story.until(story.ended)
                await trio.sleep(600)
    story.chain.check()
    return scene, story


def heard(story: Story) -> set[Heard]:
    return {story.chain.contracts.claims.sample_of(story.claim_id, i).heard for i in range(story.found().k)}


@pytest.mark.slow
async def test_a_cheat_that_claims_is_convicted_by_the_auditors_that_were_drawn_for_it(tmp_path: Path) -> None:
    scene, story = await tried(tmp_path, liars=(), cheat=True)
    assert story.ended() == "failed"
    assert Heard.UPHELD in heard(story)
    assert story.chain.contracts.escrow.lock_left(story.payer.lease) == 0
    assert any(scene.quarrels[auditor.peer_id].counters.get("cases_for") for auditor in story.auditors)
    assert scene.quarrels[story.worker.peer_id].counters["cases_against"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("silent_s", [0.0, COURT.move_window / 2])
async def test_an_honest_worker_wins_against_an_auditor_that_lies(tmp_path: Path, silent_s: float) -> None:
    """One of the four auditors lies, whichever samples it is drawn for."""
    for liar in range(4):
        _, story = await tried(tmp_path / str(liar), liars=(liar,), cheat=False, silent_s=silent_s)
        assert story.ended() == "paid"
        assert story.paid() == 6
        assert story.chain.contracts.escrow.lock_left(story.payer.lease) == LOCK
        if Heard.ACQUITTED in heard(story):
            return
    pytest.fail("no liar was drawn")


async def decoys(auditor: Any) -> None:
    """Beside each call that the auditor was given: other draws of the same sample, one for another unit, one of another
    seat, as a reorganisation may leave them."""
    for scope in auditor.journal.scopes(AUDITOR):
        lines = auditor.journal.read(scope)
        drawn, called = lines[0], next((line for line in lines if line.kind == Line.CALL), None)
        if called is None:
            continue
        call = exchange.decode(called.body, CallLine)
        unit = decode_unit(call.answer.unit)
        lease = wire.decode(call.answer.lease, Lease).message
        signed = auditor.key.sign(DOMAINS, replace(lease, nonce=lease.nonce + 1)).body
        others = (
            replace(call.answer, unit=encode(replace(unit, seed=unit.seed + 1))),
            replace(call.answer, lease=signed),
        )
        for number, answer in enumerate(others):
            seed = bytes([0xFE + number]) * 32
            line = replace(exchange.decode(drawn.body, DrawnLine), seed=seed)
            twin = scope.rpartition("/")[0] + "/" + seed.hex()
            await auditor.journal.append(
                twin,
                (Line.DRAWN, exchange.encode(line)),
                (Line.CALL, exchange.encode(replace(call, answer=answer))),
                (Line.OVER, exchange.encode(EndLine("reorganised", 0))),
            )


async def test_an_auditor_pleads_for_the_unit_that_the_chain_names_and_no_other_draw_of_it(tmp_path: Path) -> None:
    scene = Trial(tmp_path)
    story = Story(scene)
    story.worker.executor.functions["m:f"] = lie
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: heard(story) & {Heard.DISPUTED} if story.claim() else None)
        for auditor in story.auditors:
            await decoys(auditor)
        async with scene.quarrelling(*story.auditors):
            pleas = await story.until(
                lambda: [plea for service in scene.quarrels.values() for plea in service.pleas()], timeout_s=60
            )
    assert {seat_id(DOMAINS, plea.lease) for plea in pleas} == {story.seat}
    assigned = {
        unit_id(decode_unit(request.unit))
        for request in Kept(DOMAINS, story.worker.journal, story.seat).assigns.values()
    }
    assert {unit_id(plea.unit) for plea in pleas} <= assigned


async def test_a_case_whose_unit_the_journal_lost_is_told_to_the_owner(tmp_path: Path) -> None:
    scene = Trial(tmp_path)
    story = Story(scene)
    for auditor in story.auditors:
        auditor.executor.functions["m:f"] = lie
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: heard(story) & {Heard.DISPUTED} if story.claim() else None)
        await story.worker.journal.drop(f"worker/{story.seat.hex()}")
        async with scene.quarrelling(story.worker):
            service = scene.quarrels[story.worker.peer_id]
            await story.until(lambda: {p.code for p in service.problems()} == {"no_evidence"}, timeout_s=60)
