"""Prices that change while a job runs, and budgets that were enough until then."""

from __future__ import annotations

import msgspec
import pytest
import trio

from fakes.payer_scene import PRICE, PayerNode, Scene, honest_result, paid_units, result_of
from tallymesh_node.worker.yielding import Allowed
from tallymesh_scheduler.matching import Candidate

UNITS = 40


def wages(scene: Scene) -> int:
    """What workers got in all: pay of each seat at its own price."""
    return sum(seat.paid_units * seat.price for seat in scene.chain.seats.values())


@pytest.mark.slow
@pytest.mark.parametrize("factor", [3.0, 0.5])
async def test_a_price_that_changes_in_mid_job_counts_for_new_leases_alone(
    scene: Scene, payer: PayerNode, factor: float
) -> None:
    peers = scene.crowd(4, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=UNITS)
        job = await payer.submit(spec)
        await trio.sleep(6)
        seated = {seat: view.price for seat, view in scene.chain.seats.items()}
        assert seated
        for peer in peers:
            peer.ask = int(PRICE * factor)
        late = scene.join(9, seconds=2.0, ask=int(PRICE * factor))
        await nursery.start(late.run)
        peers[0].kill()  # so that somebody must be leased at the new price
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        view = await payer.wait_empty(job)
        assert {seat: scene.chain.seats[seat].price for seat in seated} == seated, "what was agreed holds"
        new = {view.price for seat, view in scene.chain.seats.items() if seat not in seated}
        assert new == {int(PRICE * factor)}
        assert sum(paid_units(scene, peer) for peer in scene.peers) == UNITS
        assert wages(scene) <= int(view.cost_wei) <= int(view.budget_wei)


@pytest.mark.slow
async def test_a_price_over_the_ceiling_in_mid_job_costs_nothing_and_is_told(scene: Scene, payer: PayerNode) -> None:
    """All workers leave and want more than the job may give: it waits and says so, and goes on when they come down."""
    peers = scene.crowd(4, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=UNITS)
        job = await payer.submit(spec, max_price_wei=str(PRICE))
        await trio.sleep(6)
        for peer in peers:
            peer.ask = 10 * PRICE
            await peer.worker.hand_over("stopped", 2.0)
        await trio.sleep(60)
        assert payer.service.job(job).status == "running"
        (problem,) = payer.service.why(job)
        assert "too_expensive" in problem.sentence
        assert problem.remedy
        done = payer.service.job(job).units_done
        await trio.sleep(60)
        assert payer.service.job(job).units_done == done
        for peer in peers:
            peer.ask = PRICE
            peer.worker.allow(Allowed())
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)
        assert {seat.price for seat in scene.chain.seats.values()} == {PRICE}
        assert sum(paid_units(scene, peer) for peer in peers) == UNITS


async def test_a_worker_that_raised_its_price_refuses_the_old_one_and_is_asked_again_at_the_new(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The payer's book is a gossip's delay behind."""
    peers = scene.crowd(3)
    fresh = scene.candidates
    before = {peer.peer_id: peer.ask for peer in peers}
    for peer in peers:
        peer.ask = 2 * PRICE

    def behind(now: int) -> list[Candidate]:
        found = []
        for each in fresh(now):
            ask = before[each.peer_id] if trio.current_time() < 4 else 2 * PRICE
            found.append(msgspec.structs.replace(each, offer=msgspec.structs.replace(each.offer, ask_price=ask)))
        return found

    monkeypatch.setattr(scene, "candidates", behind)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=12)
        job = await payer.submit(spec)
        await trio.sleep(3)
        refused = [e.data["code"] for e in payer.service.events(job, 0) if e.data.get("state") == "refused"]
        assert refused
        assert set(refused) == {"price_too_low"}
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)
        assert {seat.price for seat in scene.chain.seats.values()} == {2 * PRICE}


async def test_a_budget_that_prices_outgrew_in_mid_job_names_what_is_missing_and_pays_what_was_done(
    scene: Scene, payer: PayerNode
) -> None:
    peers = scene.crowd(4, seconds=2.0)
    budget = 150 * PRICE
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=UNITS), budget=budget)
        await trio.sleep(6)
        for peer in peers:
            peer.ask = 100 * PRICE
            await peer.worker.hand_over("stopped", 2.0)
            peer.worker.allow(Allowed())
        await trio.sleep(90)
        problems = payer.service.why(job)
        assert any(problem.code == "budget" or "budget" in problem.remedy for problem in problems), problems
        await payer.service.cancel(job)
        view = await payer.wait_empty(job)
        assert int(view.cost_wei) <= budget
        accepted = sum(row.accepted for row in view.peers)
        assert sum(paid_units(scene, peer) for peer in peers) == accepted > 0
