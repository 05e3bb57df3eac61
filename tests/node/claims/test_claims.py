"""Claims from beginning to end: a silent payer, a worker that claims, auditors that the chain draws."""

from __future__ import annotations

import pytest
import trio

from fakes.claim_scene import PATIENCE_S, ClaimScene, Story, Worker
from fakes.claims import BOND, take_back
from fakes.seldom import seldom
from fakes.worker_scene import key_of, refuse
from tallymesh import exchange
from tallymesh.exchange import ForfeitRequest
from tallymesh.ids import ZERO32
from tallymesh.messages import Accept, Result, Verdict
from tallymesh_ledger.claims import Heard
from tallymesh_ledger.model.terms import Settlement

from fakes.chain import DOMAINS  # isort: skip


async def settled(story: Story) -> None:
    """The claim has ended and everybody drew what it was credited."""
    accounts = [node.key.address for node in (story.worker, *story.auditors)]
    await story.until(story.ended)
    await story.until(lambda: not any(story.chain.contracts.claims.credit_of(account) for account in accounts))
    story.chain.check()


async def test_an_unpaid_worker_gets_its_money_through_a_claim_exact_to_the_wei(story: Story) -> None:
    me = story.worker.key.address
    before = story.wealth(me)
    auditors = {auditor.key.address: story.wealth(auditor.key.address) for auditor in story.auditors}
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await settled(story)
    assert story.ended() == "paid"
    assert story.paid() == 6, "one unit was accepted and settled first, five were claimed"
    assert story.wealth(me) - before == story.net(1) + story.net(5), "with the bond back"
    k = story.found().k
    gained = sum(story.wealth(account) - had for account, had in auditors.items())
    assert gained == k * (BOND // k), "each sample's auditor earned its pay, out of the payer's bond"


@pytest.mark.parametrize("silent_at", ["receipt", "tally", "accept"])
async def test_wherever_the_payer_falls_silent_what_has_a_receipt_is_paid(story: Story, silent_at: str) -> None:
    async with story.everybody():
        await story.work(units=1, accepted=1)
        if silent_at != "accept":
            story.payer.answers[silent_at] = refuse("busy")
        for position in range(1, 6):
            await story.payer.assign(position)
        await trio.sleep(10)
        story.vanish()
        await settled(story)
    assert (story.ended(), story.paid()) == ("paid", 6)


@pytest.mark.slow
async def test_a_payer_that_answers_and_does_not_accept_is_claimed_from(story: Story) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        await settled(story)
    assert (story.ended(), story.paid()) == ("paid", 6)
    assert story.payer.leaves[-1].code == "no_accept"


async def test_what_an_accept_covers_is_not_claimed_however_silent_the_payer(story: Story) -> None:
    async with story.everybody():
        await story.work(units=5, accepted=1)
        await story.payer.wait(lambda: len(story.payer.seat.tallies) == 2)
        await story.payer.accept(2)
        story.vanish()
        await trio.sleep(3 * PATIENCE_S)
        assert not story.claim()
        assert story.worker.claims.sent == []
        (seat,) = story.worker.service.seats()
        assert seat.phase == "open", "and the seat is not left for it"


async def test_a_payer_that_comes_back_within_the_patience_is_not_claimed_from(story: Story) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await trio.sleep(PATIENCE_S - 60)
        story.scene.network.down.discard(story.payer.peer_id)
        for number in range(2, len(story.payer.seat.tallies) + 1):
            await story.payer.accept(number)
        await trio.sleep(2 * PATIENCE_S)
        assert not story.claim()
        assert story.worker.claims.sent == []


@pytest.mark.slow
async def test_a_seat_that_was_silent_until_its_lease_was_over_is_claimed_within_the_window(scene: ClaimScene) -> None:
    """The node was off from the first silence to the middle of the claim window: chain and disk say all it needs."""
    story = Story(scene)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        await trio.sleep(5)
        await story.stop(story.worker)
        story.vanish()
        await trio.sleep(3000 + scene.parameters.claim_window_s / 2)
        await story.start(story.worker)
        await story.until(story.claim, timeout_s=60)
        await settled(story)
    assert (story.ended(), story.paid()) == ("paid", 6)


@pytest.mark.slow
async def test_after_the_window_nothing_is_claimed_and_the_owner_is_told(scene: ClaimScene) -> None:
    story = Story(scene)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        await story.stop(story.worker)
        story.vanish()
        await trio.sleep(3000 + scene.parameters.claim_window_s + 10)
        await story.start(story.worker)
        await story.until(lambda: "lost" in story.problems(), timeout_s=30)
        await trio.sleep(PATIENCE_S)
        assert not story.claim()


@pytest.mark.parametrize("order", [{"auditors": 1}, {"claim_bond": 0}], ids=["group", "no bond"])
async def test_what_cannot_be_claimed_is_told_and_costs_nothing(story: Story, order: dict[str, int]) -> None:
    async with story.everybody():
        await story.work(units=2, accepted=1, **order)
        story.vanish()
        await story.until(lambda: "no_claim" in story.problems())
        await trio.sleep(PATIENCE_S)
        assert story.worker.claims.sent == []


@pytest.mark.parametrize("staked", seldom([True, False]))
async def test_only_the_word_of_two_auditors_with_a_stake_keeps_a_worker_from_its_claim(
    story: Story, staked: bool
) -> None:
    said = Verdict(audit_order=ZERO32, result=Result.MISMATCH, end=ZERO32, salt=ZERO32, probe=ZERO32)
    keys = [a.key for a in story.auditors[:2]] if staked else [key_of(97), key_of(98)]
    async with story.everybody():
        await story.work(units=6, accepted=1)
        verdicts = tuple(key.sign(DOMAINS, said).body for key in keys)
        request = ForfeitRequest(story.seat, "mismatch", "Two auditors say so.", verdicts)
        await story.payer.network.request(story.worker.source, request.NAME, exchange.encode(request), timeout_s=10)
        story.vanish()
        if staked:
            await story.until(lambda: "convicted" in story.problems())
            await trio.sleep(PATIENCE_S)
            assert not story.claim()
        else:
            await settled(story)
            assert story.paid() == 6


async def test_a_bond_is_taken_from_what_was_earned_where_the_account_has_nothing_else(scene: ClaimScene) -> None:
    story = Story(scene, worker=Worker(scene, tokens=0))
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await settled(story)
    assert story.paid() == 6


async def test_a_worker_that_cannot_put_up_the_bond_says_so_and_claims_when_it_can(scene: ClaimScene) -> None:
    story = Story(scene, worker=Worker(scene, tokens=0))
    async with story.everybody():
        await story.work(units=5, accepted=0)
        story.vanish()
        await story.until(lambda: "no_bond" in story.problems())
        scene.chain.mint(story.worker.key.address, BOND)
        await settled(story)
    assert story.paid() == 5, "without an Accept a worker runs two tallies and no further"


@pytest.mark.slow
async def test_a_claim_that_the_contract_refuses_is_tried_a_bounded_number_of_times(story: Story) -> None:
    story.worker.claims.refuse["claim"] = "seat_not_open"
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: "seat_not_open" in story.problems())
        await trio.sleep(6000)
        refused = story.worker.claiming.counters["refused"]
        assert 2 <= refused <= 12
        assert story.worker.claiming.counters.get("made", 0) == 0


async def test_too_few_judges_are_told_and_looked_for_again(scene: ClaimScene) -> None:
    story = Story(scene, auditors=2)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: "no_members" in story.problems())
        assert story.worker.journal.scopes("claim/") == [], "nothing is signed that cannot be claimed"
        scene.chain.stake(key_of(60).address, 1, scene.chain.contracts.registry.class_of(story.worker.key.address)[0])
        await story.until(story.claim)


@pytest.mark.slow
async def test_no_seat_is_expired_while_its_claim_lives(scene: ClaimScene) -> None:
    story = Story(scene, auditors=4)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        await story.stop(story.worker)
        story.vanish()
        await trio.sleep(3000 + scene.parameters.claim_window_s - 30)  # the claim's windows reach beyond the seat's
        await story.start(story.worker)
        await settled(story)
    assert story.paid() == 6
    assert not [item for item in scene.chain.refused if item[1] == "disputed"]


async def test_half_is_paid_where_no_auditor_answers(story: Story) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        await story.stop(*story.auditors)
        story.vanish()
        await story.until(story.ended)
    assert (story.ended(), story.paid()) == ("halved", 3)
    story.chain.check()


async def test_the_next_ranks_stand_in_for_an_auditor_that_is_off(story: Story) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        await story.stop(story.auditors[0], story.auditors[1])
        story.vanish()
        await settled(story)
    assert (story.ended(), story.paid()) == ("paid", 6)


async def test_a_claim_whose_seed_was_not_captured_in_time_costs_the_bond_and_is_told(story: Story) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(story.claim)
        await story.stop(story.worker)
        await trio.sleep(300)
        await story.start(story.worker)
        await story.until(story.ended)
        await story.until(lambda: "claim_failed" in story.problems())
    assert (story.ended(), story.paid()) == ("failed", 1)


async def test_a_worker_that_serves_nothing_is_not_paid(story: Story) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.state() == "sampling")
        story.scene.swarm.down.add(story.worker.peer_id)
        await settled(story)
    assert (story.ended(), story.paid()) == ("failed", 1)
    assert {auditor.service.counters.get("reveals_unavailable", 0) for auditor in story.auditors} != {0}


async def test_auditors_get_bond_and_pay_where_the_worker_opens_nothing(story: Story) -> None:
    before = {auditor.key.address: story.wealth(auditor.key.address) for auditor in story.auditors}
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.claim() and story.found().committed == story.found().k)
        await story.stop(story.worker)
        await story.until(story.ended)
        await trio.sleep(60)
    assert story.ended() == "failed"
    assert sum(story.wealth(account) - had for account, had in before.items()) == story.found().k * (
        BOND // story.found().k
    )


async def test_a_second_claim_follows_where_more_was_unpaid_than_one_may_be_for(story: Story) -> None:
    """Two tallies of four and one unit were done before the payer fell silent with nothing accepted but the first."""
    async with story.everybody():
        await story.work(units=9, accepted=1)
        story.vanish()
        await settled(story)
        await trio.sleep(100)
    assert story.paid() == 9


@pytest.mark.parametrize("when", seldom(["pending", "sampling", "committed", "revealing", "challengeable"]))
async def test_a_claim_that_a_reorganisation_took_back_is_made_again(story: Story, when: str) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        if when == "committed":
            await story.until(lambda: story.claim() and story.found().committed)
        else:
            await story.until(lambda: story.state() == when)
        first = story.worker.journal.read(f"claim/{story.seat.hex()}")[0].body
        take_back(story.chain, story.claim_id)
        await settled(story)
        lines = story.worker.journal.read(f"claim/{story.seat.hex()}")
    assert [line.kind for line in lines] == ["claim", "end"]
    assert lines[0].body == first, "the same bytes: a second tally would be a second word"
    assert (story.ended(), story.paid()) == ("paid", 6)


async def test_a_unit_that_the_payer_settles_in_front_of_a_claim_does_not_stop_it(story: Story) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.state() == "pending")
        take_back(story.chain, story.claim_id)
        escrow, payer = story.chain.contracts.escrow, story.payer
        accept = Accept(seat=story.seat, tally=2, units=2, chain=ZERO32, next_secret=ZERO32)
        story.chain.run(lambda: escrow.settle(payer.signer.address, [Settlement(payer.lease, accept)]))
        await settled(story)
    assert (story.ended(), story.paid()) == ("paid", 6)
    assert story.found().from_ == 1, "the same claim: the unit in front of it was only sampled"


@pytest.mark.parametrize("when", seldom(["", "pending", "sampling", "revealing", "challengeable"]))
async def test_a_chain_that_is_away_delays_and_loses_nothing(story: Story, when: str) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.state() == when)
        story.chain.down = True
        await trio.sleep(70)
        story.chain.down = False
        await settled(story)
    assert (story.ended(), story.paid()) == ("paid", 6)


@pytest.mark.parametrize("who", ["worker", "auditors"])
@pytest.mark.parametrize("when", seldom(["pending", "sampling", "revealing", "challengeable"]))
async def test_a_node_that_was_off_for_half_a_window_goes_on_from_there(story: Story, when: str, who: str) -> None:
    nodes = [story.worker] if who == "worker" else story.auditors
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.state() == when)
        await story.stop(*nodes)
        await trio.sleep(100 if when == "challengeable" else 50)
        await story.start(*nodes)
        await settled(story)
    assert (story.ended(), story.paid()) == ("paid", 6)
    heard = {story.chain.contracts.claims.sample_of(story.claim_id, i).heard for i in range(story.found().k)}
    assert heard == {Heard.MATCH}


@pytest.mark.slow
async def test_a_worker_that_lost_its_evidence_loses_its_bond_and_no_more(story: Story) -> None:
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.claim() and story.found().committed == story.found().k)
        await story.worker.journal.drop(f"worker/{story.seat.hex()}")
        await story.until(lambda: "no_evidence" in story.problems())
        await story.until(story.ended)
        await story.until(lambda: story.worker.claiming.idle)
    assert (story.ended(), story.paid()) == ("failed", 1)
