"""A node that is stopped in good order in the middle of its work: everybody knows at once, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from fakes import worker_scene
from fakes.payer_scene import PayerNode, Scene, honest_result, paid_units, result_of
from tallymesh_node.daemon import LEAVE_S, STOPPED

UNITS = 40


@pytest.mark.slow
async def test_what_a_stopped_worker_had_begun_runs_elsewhere_within_a_second(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5, seconds=0.5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=UNITS)
        job = await payer.submit(spec)
        await trio.sleep(3.2)
        (held,) = [h for h in payer.service._driver(job).book.all() if h.account == peers[0].key.address]
        left = {held.nodes[position].index for position in held.outstanding}
        stopped = scene.chain.clock()
        await peers[0].worker.hand_over(STOPPED, LEAVE_S)
        assert scene.chain.clock() - stopped < 0.2
        peers[0].kill()
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        again = [
            e.at
            for e in payer.service.events(job, 0)
            if e.kind == "assign" and e.data["index"] in left and e.at > stopped
        ]
        assert len(again) == len(left) > 0
        assert max(again) - stopped < 1.0
        await payer.wait_empty(job)
        view = payer.service.job(job)
        assert paid_units(scene, peers[0]) == sum(row.accepted for row in view.peers if row.peer_id == "peer-1") > 0
        assert sum(paid_units(scene, peer) for peer in peers) == UNITS


async def test_a_worker_whose_payer_does_not_answer_stops_all_the_same(tmp_path: Path) -> None:
    scene = worker_scene.Scene(tmp_path)
    node = worker_scene.Node(scene, seconds=100.0)
    payer = worker_scene.Payer(scene, node)
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0)
        await trio.sleep(2)
        scene.network.down.add(payer.peer_id)
        began = trio.current_time()
        await service.hand_over(STOPPED, LEAVE_S)
        assert trio.current_time() - began == LEAVE_S
        scene.network.down.discard(payer.peer_id)
    async with node.run():  # it was on disk before it was said: a node that starts again says it again
        await payer.wait(lambda: payer.leaves)
    assert [leave.code for leave in payer.leaves] == [STOPPED]
    assert not payer.seat.leaves
