"""A payer that was cheated accuses by itself, and gets stake; a worker that did its work keeps its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from fakes.claims import BOND, COURT
from fakes.journal import MemoryJournal
from fakes.party_scene import Host, PartyScene
from fakes.seldom import seldom
from fakes.worker_scene import CLASS, key_of
from tallymesh.errors import ChainError
from tallymesh_ledger.court import CaseState, Opened, Origin, Ruling
from tallymesh_ledger.model.machine import Event

FEE = COURT.panel * COURT.member_fee
LOCK = 10_000
BACK = min(FEE, LOCK * 1_500 // 10_000)  # of the fee, out of the Court's share of the slash


async def scene_of(tmp_path: Path, **options: Any) -> PartyScene:
    scene = PartyScene(tmp_path, **options)
    await scene.prepare()
    return scene


def convicted(scene: PartyScene, before: int) -> None:
    """Exact to the wei: the payer's and the prover's share, and all of its bond but what the members' fee cost it."""
    gained = scene.all_of(scene.payer.key.address) - before
    assert gained == LOCK * 4_000 // 10_000 + LOCK * 2_000 // 10_000 - FEE + BACK
    assert scene.chain.contracts.escrow.lock_left(scene.lease) == 0


async def test_a_payer_that_was_cheated_gets_stake_though_the_worker_is_gone_for_good(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    payer, worker = scene.payer.key.address, scene.worker.key.address
    before, stake = scene.all_of(payer), scene.all_of(worker)
    async with scene.everybody(scene.payer):
        assert await scene.ended() is Ruling.FOR_ACCUSER
    convicted(scene, before)
    assert stake - scene.all_of(worker) == LOCK
    assert scene.found().lo == 0
    assert scene.found().hi == scene.steps, "a worker that never moved is judged on the whole unit"
    assert scene.moves("accuse") == 1


async def test_two_that_answer_narrow_it_to_one_step_and_the_cheat_is_convicted(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, steps=16, wrong=11)
    before = scene.all_of(scene.payer.key.address)
    async with scene.everybody():
        assert await scene.ended() is Ruling.FOR_ACCUSER
    convicted(scene, before)
    assert (scene.found().lo, scene.found().hi) == (10, 11), "the first wrong step"
    assert scene.moves("post") == scene.moves("answer") == 4


async def test_an_honest_worker_that_answers_is_acquitted_and_gets_the_bond(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, honest=True)
    worker = scene.all_of(scene.worker.key.address)
    async with scene.everybody():
        assert await scene.ended() is Ruling.FOR_ACCUSED
    assert scene.all_of(scene.worker.key.address) - worker == BOND
    assert scene.chain.contracts.escrow.lock_left(scene.lease) == LOCK


async def test_an_honest_worker_that_is_silent_all_the_time_still_wins(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, honest=True)
    worker = scene.all_of(scene.worker.key.address)
    async with scene.everybody(scene.payer):
        await scene.until_state(CaseState.RULED)
        assert scene.found().ruling is Ruling.FOR_ACCUSED
        assert not scene.found().posted.strip(b"\0"), "it never said a word"
        await scene.start(scene.worker)  # and may come late for its bond
        await scene.ended()
    assert scene.all_of(scene.worker.key.address) - worker == BOND


async def test_a_worker_that_was_off_for_half_of_a_window_answers_in_time(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, honest=True)
    async with scene.everybody(scene.payer):
        await scene.until_state(CaseState.POSTING)
        await trio.sleep(COURT.move_window / 2)
        await scene.start(scene.worker)
        assert await scene.ended() is Ruling.FOR_ACCUSED
    assert scene.moves("post") == 3


async def test_a_payer_that_is_off_for_half_of_each_window_goes_on_from_its_journal(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    before = scene.all_of(scene.payer.key.address)
    async with scene.everybody():
        while not scene.found().taken:
            await scene.until(lambda: any(scene.case == plea.case for plea in scene.payer.service.pleas()))
            await scene.until_moved()
            await scene.stop(scene.payer)
            scene.payer.grounds.clear()  # the job is over by now, and its book is shut
            await trio.sleep(COURT.move_window / 2)
            await scene.start(scene.payer)
            await trio.sleep(2)
        await scene.ended()
    convicted(scene, before)
    assert scene.moves("accuse") == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("line", seldom(["grounds", "accuse", "end"]))
async def test_a_payer_killed_at_any_line_accuses_once(tmp_path: Path, line: str, after: bool) -> None:
    scene = await scene_of(tmp_path)
    before = scene.all_of(scene.payer.key.address)
    trap = scene.trap(scene.payer, line, after=after)
    async with scene.everybody(scene.payer):
        await scene.ended()
        await scene.until(trap)
        await scene.until(lambda: scene.killed == 1)
        await trio.sleep(60)
    convicted(scene, before)
    assert scene.moves("accuse") == 1
    kinds = [entry.kind for entry in scene.payer.journal.read(f"accusation/{scene.seat.hex()}")]
    assert kinds == ["grounds", "accuse", "end"]


async def test_grounds_outlive_the_job_until_the_accusation_can_be_made(tmp_path: Path) -> None:
    """Its books are shut, and only then are there enough members."""
    scene = await scene_of(tmp_path, members=(11, 12))
    async with scene.everybody(scene.payer):
        await scene.until(lambda: "no_members" in scene.payer.problems())
        await scene.stop(scene.payer)
        scene.payer.grounds.clear()
        for number in (13, 14):
            scene.chain.stake(key_of(number).address, 1, CLASS)
        await scene.start(scene.payer)
        await scene.until_state(CaseState.POSTING)


@pytest.mark.slow
async def test_grounds_are_forgotten_when_the_lock_has_ended(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, members=(11, 12))
    scene.parameters = replace(scene.parameters, claim_window_s=600, lock_tail_s=600)  # not days
    async with scene.everybody(scene.payer):
        await scene.until(lambda: "no_members" in scene.payer.problems())
        scene.chain.contracts.escrow._locks[scene.seat] = 0
        await trio.sleep(3600 + scene.parameters.claim_window_s + scene.parameters.lock_tail_s + 60)
        assert scene.payer.service is not None
        assert scene.payer.service.counters["accusations_not_made"] == 1
        assert not scene.payer.problems()


async def test_a_payer_that_restores_a_day_old_backup_accuses_at_most_once(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    old = scene.payer.journal.copy()
    before = scene.all_of(scene.payer.key.address)
    async with scene.everybody(scene.payer):
        await scene.until_state(CaseState.POSTING)
        await scene.stop(scene.payer)
        scene.payer.journal = old  # knows of no accusation; its books still have the grounds
        await scene.start(scene.payer)
        await scene.ended()
        await scene.stop(scene.payer)
        scene.payer.journal = MemoryJournal()  # and once more after the end
        await scene.start(scene.payer)
        await trio.sleep(600)
    convicted(scene, before)
    assert scene.moves("accuse") == 1


# What stands against an accusation is said.


async def not_made(scene: PartyScene, code: str) -> str:
    async with scene.everybody(scene.payer):
        await scene.until(lambda: code in scene.payer.problems(), timeout_s=60)
        await trio.sleep(60)
        assert not scene.moves("accuse")
        assert scene.payer.service is not None
        assert [problem.code for problem in scene.payer.service.accused(scene.lease.job)] == [code]
        return scene.payer.problems()[code]


async def test_without_enough_members_nobody_is_accused_and_the_owner_is_told(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, members=(11, 12))
    assert "2 other accounts" in await not_made(scene, "no_members")


async def test_without_the_tokens_for_the_bond_nobody_is_accused(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    token, me = scene.chain.contracts.token, scene.payer.key.address
    left = token.balance_of(me) - FEE - BOND + 1
    scene.chain.run(lambda: token.transfer(me, scene.signer.address, left))
    await not_made(scene, "no_bond")


async def test_a_machine_whose_class_is_being_measured_waits_for_it(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, steps=1, wrong=1)
    scene.payer.numeric_class = b""
    await not_made(scene, "own_class")


async def test_a_seat_that_was_accused_for_another_unit_is_not_accused_again(tmp_path: Path) -> None:
    """By an earlier life of this node: its journal is lost, the chain knows."""
    scene = await scene_of(tmp_path)
    escrow, me = scene.chain.contracts.escrow, scene.payer.key.address
    made = {"accusation": b"a" * 32, "seat": scene.seat, "accuser": me, "position": 7, "bond": BOND}
    scene.chain.events.append((scene.chain.now(), Event(scene.payer.court.accusing.address, "Accused", made)))
    async with scene.everybody(scene.payer):
        await trio.sleep(120)
    assert not scene.moves("accuse")
    assert escrow.lock_left(scene.lease) == LOCK


async def test_an_accusation_that_the_journal_lost_is_taken_up_though_no_second_bond_is_there(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    async with scene.everybody(scene.payer):
        await scene.until_state(CaseState.POSTING)
        await scene.stop(scene.payer)
        scene.payer.journal = MemoryJournal()
        token, me = scene.chain.contracts.token, scene.payer.key.address
        left = token.balance_of(me)
        scene.chain.run(lambda: token.transfer(me, scene.signer.address, left))
        await scene.start(scene.payer)
        assert await scene.ended() is Ruling.FOR_ACCUSER
    assert scene.moves("accuse") == 1


async def test_a_lock_that_another_took_first_ends_the_accusation_before_it_is_made(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    scene.payer.court.refuse["accuse"] = "not_worth_gas"
    async with scene.everybody(scene.payer):
        await scene.until(lambda: "not_worth_gas" in scene.payer.problems())
        scene.chain.contracts.escrow._locks[scene.seat] = 0
        scene.payer.court.refuse.clear()
        await trio.sleep(60)
        assert scene.payer.service is not None
        assert scene.payer.service.counters["accusations_gone"] == 1
    assert not scene.moves("accuse")


async def test_a_leaf_that_the_journal_does_not_know_is_not_pleaded_for(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    lines = scene.worker.journal.read(f"worker/{scene.seat.hex()}")
    await scene.worker.journal.drop(f"worker/{scene.seat.hex()}")
    await scene.sign(lines[:2], salt=b"another salt".ljust(32))
    async with scene.everybody():
        await scene.until(lambda: "no_evidence" in scene.worker.problems())
        await scene.until_state(CaseState.RULED)
    assert not scene.moves("post")


async def test_credits_in_the_escrow_are_drawn_for_the_bond(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    escrow, token, me = scene.chain.contracts.escrow, scene.chain.contracts.token, scene.payer.key.address
    have = token.balance_of(me)
    scene.chain.run(lambda: token.transfer(me, escrow.address, have))
    escrow.credits[me] = have
    async with scene.everybody(scene.payer):
        assert await scene.ended() is Ruling.FOR_ACCUSER


async def test_a_chain_that_is_away_delays_and_loses_nothing(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, steps=16, wrong=11)
    before = scene.all_of(scene.payer.key.address)
    async with scene.everybody():
        while not scene.found().taken:
            scene.chain.down = True
            await trio.sleep(10)
            scene.chain.down = False
            await trio.sleep(10)
        await scene.ended()
    convicted(scene, before)
    assert scene.moves("accuse") == 1


@pytest.mark.parametrize(("line", "after"), [("begin", False), ("begin", True), ("end", False), ("end", True)])
async def test_a_worker_killed_at_any_line_of_its_defence_is_acquitted(tmp_path: Path, line: str, after: bool) -> None:
    scene = await scene_of(tmp_path, honest=True)
    worker = scene.all_of(scene.worker.key.address)
    trap = scene.trap(scene.worker, line, after=after)
    async with scene.everybody():
        assert await scene.ended() is Ruling.FOR_ACCUSED
        await scene.until(trap)
        await scene.until(lambda: scene.killed == 1)
        await trio.sleep(60)
    assert scene.all_of(scene.worker.key.address) - worker == BOND
    assert scene.moves("post") == 3
    assert [entry.kind for entry in scene.worker.journal.read(f"plea/{scene.case.hex()}")] == ["begin", "end"]


async def test_a_case_is_pleaded_though_the_chain_goes_away_while_others_are_looked_at(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, honest=True)
    court = scene.worker.court
    cases, origin = court.cases, court.origin

    async def two(account: bytes, since: int) -> list[Opened]:
        found = await cases(account, since)
        return [*found, *(replace(each, case=b"another case".ljust(32)) for each in found)]

    async def away(case: bytes) -> Origin | None:
        if case != scene.case:
            raise ChainError("chain_unavailable", "The chain does not answer.", reverted=False)
        return await origin(case)

    court.cases, court.origin = two, away  # type: ignore[method-assign]
    async with scene.everybody():
        assert await scene.ended() is Ruling.FOR_ACCUSED
    assert scene.moves("post") == 3


async def test_the_defence_outlives_the_workers_journal_of_the_seat(tmp_path: Path) -> None:
    """The worker forgets a seat when its lock's tail is over; the case goes on."""
    scene = await scene_of(tmp_path, honest=True)
    async with scene.everybody():
        await scene.until(lambda: scene.moves("post") == 1)
        await scene.stop(scene.worker)
        await scene.worker.journal.drop(f"worker/{scene.seat.hex()}")
        await scene.start(scene.worker)
        assert await scene.ended() is Ruling.FOR_ACCUSED


async def test_members_ask_the_payer_where_it_says_that_it_is(tmp_path: Path) -> None:
    """Its worker is gone, and it publishes no offer: who does not hear from it could not judge."""
    scene = await scene_of(tmp_path)
    scene.network.lose = lambda sender, receiver, name: name == "where"
    async with scene.everybody(scene.payer):
        await scene.until_state(CaseState.RULED)
    assert scene.found().ruling is Ruling.UNSERVED


async def test_a_lock_that_is_too_small_for_the_risk_is_left_alone(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    escrow = scene.chain.contracts.escrow
    escrow._locks[scene.seat] = 100
    assert "too little" in await not_made(scene, "not_worth")


async def test_a_seat_whose_lock_is_gone_is_not_accused(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    scene.chain.contracts.escrow._locks[scene.seat] = 0
    await not_made(scene, "no_lock")


async def test_what_this_machine_finds_itself_keeps_it_from_believing_two_liars(tmp_path: Path) -> None:
    """Two auditors that agreed on a lie would cost the payer its bond."""
    scene = await scene_of(tmp_path, honest=True)
    scene.payer.executor.functions = dict(scene.members[0].executor.functions)
    await not_made(scene, "own_result")


async def test_a_machine_of_another_class_does_not_begin_what_it_cannot_answer_for(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    scene.payer.numeric_class = b"\x0d" * 32
    await not_made(scene, "other_class")


async def test_gas_that_costs_more_than_a_conviction_brings_is_told_and_waited_out(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    scene.payer.court.refuse["accuse"] = "not_worth_gas"
    async with scene.everybody(scene.payer):
        await scene.until(lambda: "not_worth_gas" in scene.payer.problems(), timeout_s=60)
        scene.payer.court.refuse.clear()
        assert await scene.ended() is Ruling.FOR_ACCUSER


async def test_an_accusation_that_a_reorganisation_took_back_is_made_again(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path)
    before = scene.all_of(scene.payer.key.address)
    async with scene.everybody(scene.payer):
        await scene.until_state(CaseState.POSTING)
        scene.take_back()
        assert await scene.ended() is Ruling.FOR_ACCUSER
    convicted(scene, before)
    assert scene.moves("accuse") == 2


# Appeals.


async def wrong_panel(scene: PartyScene, host: Host) -> None:
    """The first panel rules against this party, whatever it found."""
    await scene.until_state(CaseState.VOTING)
    found = scene.found()
    ruling = Ruling.FOR_ACCUSED if host is scene.payer else Ruling.FOR_ACCUSER
    scene.rule_for_now(ruling)
    assert found is not None


@pytest.mark.parametrize("honest", [False, True], ids=["accuser", "accused"])
async def test_a_party_that_is_right_appeals_from_a_wrong_panel_and_wins(tmp_path: Path, honest: bool) -> None:
    scene = await scene_of(tmp_path, honest=honest)
    right = scene.worker if honest else scene.payer
    scene.fund(right)
    async with scene.everybody(*scene.parties):
        await wrong_panel(scene, right)
        ruling = await scene.ended()
    assert ruling is (Ruling.FOR_ACCUSED if honest else Ruling.FOR_ACCUSER)
    assert scene.found().appellant == right.key.address
    assert right.court.sent.count("appeal") == 1


async def test_a_party_that_is_wrong_does_not_pay_for_an_appeal(tmp_path: Path) -> None:
    """The worker made a mistake once, and finds it when it looks again."""
    scene = await scene_of(tmp_path)
    scene.fund(scene.worker)
    async with scene.everybody():
        await scene.until_state(CaseState.VOTING)
        scene.worker.executor.functions = dict(scene.members[0].executor.functions)
        scene.worker.service.tools._values.clear()
        assert await scene.ended() is Ruling.FOR_ACCUSER
    assert not scene.moves("appeal")


async def test_without_the_fee_there_is_no_appeal_and_the_owner_is_told(tmp_path: Path) -> None:
    scene = await scene_of(tmp_path, honest=True)
    async with scene.everybody():
        await wrong_panel(scene, scene.worker)
        await scene.until(lambda: "no_fee" in scene.worker.problems(), timeout_s=COURT.appeal_window)
        await scene.ended()
    assert not scene.moves("appeal")
