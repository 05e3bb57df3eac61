"""A laptop that sleeps for an hour with work on it. Wall time and chain go on; Linux's monotonic clock, by which all
deadlines here are kept, stands still meanwhile. Other systems let it go on: then all that was due is due at once."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fakes.payer_scene import PayerNode, Scene, honest_result, paid_units, result_of

UNITS = 40
HOUR_S = 3600


def sleep_an_hour(scene: Scene, clock: str) -> None:
    if clock == "stands still":
        scene.chain.slept_s += HOUR_S
    else:
        running = trio.lowlevel.current_clock()
        assert isinstance(running, trio.testing.MockClock)
        running.jump(HOUR_S)


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["stands still", "goes on"])
async def test_a_machine_that_sleeps_with_all_its_nodes_goes_on_with_the_job(
    scene: Scene, payer: PayerNode, clock: str
) -> None:
    """Every lease is over when it wakes up: what was proven is paid, the rest is leased anew."""
    peers = scene.crowd(4, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=UNITS)
        job = await payer.submit(spec)
        await trio.sleep(8)
        proven = {held.id: len(held.seat.leaves) for held in payer.service._driver(job).book.all()}
        assert sum(proven.values()) > 3
        sleep_an_hour(scene, clock)
        view = await payer.wait(job, "done", "failed")
        assert view.status == "done", view.problem
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        view = await payer.wait_empty(job)
        assert not [row for row in view.peers if row.problem and row.problem.code == "convicted"]
        assert sum(paid_units(scene, peer) for peer in peers) == sum(row.accepted for row in view.peers) == UNITS


@pytest.mark.slow
async def test_a_worker_that_slept_is_replaced_and_paid_for_what_it_had_proven(scene: Scene, payer: PayerNode) -> None:
    """Its peers see a machine that is gone; an hour later it is there again, and nobody wants its old units."""
    peers = scene.crowd(4, seconds=2.0)
    sleeper = peers[0]
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=UNITS)
        job = await payer.submit(spec)
        await trio.sleep(8)
        scene.network.down.add(sleeper.peer_id)
        scene.swarm.down.add(sleeper.peer_id)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)
        scene.chain.slept_s += HOUR_S
        scene.network.down.discard(sleeper.peer_id)
        scene.swarm.down.discard(sleeper.peer_id)
        await trio.sleep(60)
        assert sleeper.worker.seats() == [], "it has left what its payer gave up"
        view = payer.service.job(job)
        assert paid_units(scene, sleeper) == sum(row.accepted for row in view.peers if row.peer_id == "peer-1") > 0
        assert sum(paid_units(scene, peer) for peer in peers) == UNITS
        following = await payer.submit(payer.spec("map", items=8))
        await payer.wait(following)


@pytest.mark.slow
async def test_a_payer_that_slept_goes_on_and_pays_nobody_twice(scene: Scene, payer: PayerNode) -> None:
    """Its workers have settled what they hold and left. Frozen as kill -9 and a start leave it, but for its memory."""
    peers = scene.crowd(4, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=UNITS)
        job = await payer.submit(spec)
        await trio.sleep(8)
        payer.crash()
        await trio.sleep(90)
        scene.chain.slept_s += HOUR_S
        await trio.sleep(90)
        await payer.start(nursery)
        view = await payer.wait(job, "done", "failed")
        assert view.status == "done", view.problem
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        view = await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == sum(row.accepted for row in view.peers)
        assert not [row for row in view.peers if row.problem and row.problem.code == "convicted"]
