"""A day-old backup that is put back at a payer or an auditor: nothing is paid twice, nobody honest is accused, and no
job of then is driven as if the world had waited."""

from __future__ import annotations

import pytest
import trio

from fakes.payer_scene import PayerNode, Scene, honest_result, paid_units, result_of
from fakes.seldom import seldom
from tallymesh_ledger.phases import Phase

UNITS = 20
DAY_S = 86_400


@pytest.mark.parametrize("ago_s", [60, DAY_S], ids=["a minute", "a day"])
@pytest.mark.parametrize("share", seldom([0.02, 0.4, 0.9]))
async def test_a_payer_whose_backup_is_older_than_its_jobs_end_pays_nobody_twice(
    scene: Scene, payer: PayerNode, share: float, ago_s: int
) -> None:
    """The job was done, paid and refunded after the backup was made."""
    peers = scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=UNITS))
        await payer.wait(job)
        await payer.wait_empty(job)
        paid = [paid_units(scene, peer) for peer in peers]
        assert sum(paid) == UNITS
        left = scene.chain.balances[payer.key.address] + scene.chain.credits[payer.key.address]
        lines = payer.journal._head
        payer.crash()
        scene.chain.slept_s += ago_s
        payer.journal = payer.journal.copy(max(2, int(lines * share)))
        payer.accepted.clear()
        await payer.start(nursery)
        view = await payer.wait(job, "done", "failed", "cancelled", timeout_s=2000)
        view = await payer.wait_empty(job)
        scene.chain.check()
        assert [paid_units(scene, peer) for peer in peers] == paid
        assert scene.chain.balances[payer.key.address] + scene.chain.credits[payer.key.address] == left
        assert not [peer for peer in view.peers if peer.problem and peer.problem.code == "convicted"]
        assert payer.service.trust.convicted == {}
        if view.status != "done":
            assert view.problem is not None
            assert view.problem.sentence
            assert view.problem.remedy


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.7])
async def test_a_payer_that_is_set_back_while_its_job_runs_convicts_nobody(
    scene: Scene, payer: PayerNode, share: float
) -> None:
    """What it assigned after the backup it assigns anew, to positions that its workers have other units for."""
    peers = scene.crowd(4, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=40)
        job = await payer.submit(spec)
        await trio.sleep(12)
        lines = payer.journal._head
        payer.crash()
        payer.journal = payer.journal.copy(max(2, int(lines * share)))
        payer.accepted.clear()
        await payer.start(nursery)
        view = await payer.wait(job, "done", "failed", timeout_s=2000)
        assert view.status == "done"
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        view = await payer.wait_empty(job)
        scene.chain.check()
        assert payer.service.trust.convicted == {}
        assert not [peer for peer in view.peers if peer.problem and peer.problem.code == "convicted"]
        for held in payer.service._driver(job).book.all():
            assert held.seat.phase is not Phase.FORFEITED
        spent = 100 * 10**18 - scene.chain.balances[payer.key.address] - scene.chain.credits[payer.key.address]
        assert spent <= 10**18, "no more than the job's budget, whatever was done again"
        assert sum(paid_units(scene, peer) for peer in peers) >= 40
