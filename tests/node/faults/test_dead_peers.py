"""Workers that die, and connections that break while nobody dies."""

from __future__ import annotations

import random

import pytest
import trio

from fakes.payer_scene import PayerNode, Scene, honest_result, paid_units, result_of

UNITS = 40


@pytest.mark.slow
async def test_a_worker_whose_process_died_is_given_up_sooner_than_one_that_is_silent(
    scene: Scene, payer: PayerNode
) -> None:
    """Its connections end with it and its port refuses: nobody waits for five signs of life."""
    peers = scene.crowd(5, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=UNITS))
        await trio.sleep(9.5)
        peers[0].kill()
        died = scene.chain.clock()
        view = await payer.wait(job)
        lost = next(peer for peer in view.peers if peer.peer_id == "peer-1")
        assert lost.problem is not None
        assert lost.problem.code == "unreachable"
        given_up = next(e.at for e in payer.service.events(job, 0) if e.data.get("code") == "unreachable")
        assert given_up - died < 3.5
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == UNITS


async def test_what_a_dead_worker_left_undone_is_what_others_do_next(scene: Scene, payer: PayerNode) -> None:
    """A job of an hour must not find out in its last minute that this unit takes five more."""
    peers = scene.crowd(4, seconds=1.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=120))
        await trio.sleep(6.5)
        (held,) = [h for h in payer.service._driver(job).book.all() if h.account == peers[0].key.address]
        left = {held.nodes[position].index for position in held.outstanding}
        assert left
        peers[0].kill()
        await trio.sleep(12)
        assert payer.service.job(job).status == "running"
        given_up = next(e for e in payer.service.events(job, 0) if e.data.get("code") == "unreachable")
        first = [e.data["index"] for e in payer.service.events(job, given_up.sequence) if e.kind == "assign"]
        assert set(first[: len(left)]) == left, "before everything that nobody has begun"


@pytest.mark.slow
async def test_a_router_that_restarts_costs_no_worker_its_seat(scene: Scene, payer: PayerNode) -> None:
    """All connections break, again and again; whoever is asked on a new one answers."""
    peers = scene.crowd(5, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=UNITS)
        job = await payer.submit(spec)
        for _ in range(12):
            await trio.sleep(0.7)
            scene.network.unconnected.update(peer.peer_id for peer in peers)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert {peer.problem.code for peer in view.peers if peer.problem} <= set()
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == UNITS


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_any_two_of_five_workers_may_die_at_any_moment(scene: Scene, payer: PayerNode, seed: int) -> None:
    dice = random.Random(seed)
    peers = scene.crowd(5, seconds=2.0)
    doomed = dice.sample(peers, 2)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=UNITS)
        job = await payer.submit(spec)
        for peer in doomed:
            await trio.sleep(dice.uniform(0.0, 12.0))
            peer.kill()
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)
        for peer in peers:
            verified = sum(row.accepted for row in view.peers if row.peer_id == peer.peer_id)
            assert paid_units(scene, peer) == verified
        assert sum(paid_units(scene, peer) for peer in peers) == UNITS
