"""An auditor's fee is its own business where the payer does not see to it: from journal and chain alone."""

from __future__ import annotations

import pytest
import trio

from fakes.audit_scene import FEE, Auditor, AuditPayer
from fakes.chain import DOMAINS, STARTED
from fakes.worker_scene import Scene
from tallymesh import wire
from tallymesh.messages import AuditOrder, Verdict
from tallymesh_node.auditor.record import AuditRecord
from tallymesh_node.interfaces import SeatEnding

LAST = 3600 + 60 + 30  # lease, claim window, half of the evidence window: then the payer has had its time


def collected(scene: Scene) -> int:
    return sum(what == "pay_audits" for what, _ in scene.chain.transactions)


def credited(scene: Scene, auditor: Auditor) -> int:
    return scene.chain.credits[auditor.key.address]


async def audited(payer: AuditPayer) -> None:
    await payer.open_job()
    await payer.call()
    await payer.wait(lambda: payer.verdicts)
    await trio.sleep(1)


async def until(second: int) -> None:
    await trio.sleep(max(0.0, second - trio.current_time()))


async def pay(scene: Scene, auditor: Auditor, payer: AuditPayer) -> None:
    """The payer settles its job."""
    (scope,) = auditor.journal.scopes("auditor/")
    record = AuditRecord.replay(DOMAINS, auditor.journal.read(scope))
    pair = (wire.decode(record.request.audit_order, AuditOrder), wire.decode(record.verdict, Verdict))
    ending = SeatEnding(payer.lease, audits=(pair,))
    await scene.chain.view(payer.key.address).finish(payer.order, [ending])


async def test_the_fee_is_collected_where_the_payer_is_gone_and_no_sooner(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run() as service:
        await audited(payer)
        await until(LAST - 5)
        assert (collected(scene), service.counters["fees_owed"]) == (0, 1), "the payer pays it at no cost, as a rule"
        await until(LAST + 10)
        assert credited(scene, auditor) == FEE
        assert (collected(scene), service.counters["fees_owed"], service.counters["fees_collected"]) == (1, 0, 1)
        await trio.sleep(600)
        assert collected(scene) == 1


async def test_a_reserve_that_is_about_to_be_refunded_is_drawn_on_in_time(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    """The payer closes the job early and leaves the auditor out: its reserve is free an evidence window later."""
    async with auditor.run():
        await audited(payer)
        scene.chain.seats[payer.seat].closed_at = scene.chain.now()
        closed = scene.chain.jobs[payer.lease.job].last_closed
        await until(closed - STARTED + 58)
        await scene.chain.view(payer.key.address).refund(payer.order)
        assert credited(scene, auditor) == FEE
        await until(closed - STARTED + 70)
        await scene.chain.view(payer.key.address).refund(payer.order)
        assert scene.chain.jobs[payer.lease.job].reserve_left == 0, "the rest went back"


async def test_a_node_that_was_off_for_half_of_the_evidence_window_is_still_in_time(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    """The payer closes the job early, leaves the auditor out, and takes the reserve at the first moment."""
    async with auditor.run():
        await audited(payer)
        scene.chain.seats[payer.seat].closed_at = scene.chain.now()
    closed = scene.chain.jobs[payer.lease.job].last_closed
    await until(closed - STARTED + 30)
    async with auditor.run():
        await until(closed - STARTED + 61)
        await scene.chain.view(payer.key.address).refund(payer.order)
    assert credited(scene, auditor) == FEE
    assert scene.chain.jobs[payer.lease.job].reserve_left == 0


async def test_a_fee_that_the_payer_paid_costs_no_transaction(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run() as service:
        await audited(payer)
        await pay(scene, auditor, payer)
        await until(LAST + 30)
        assert (credited(scene, auditor), collected(scene), service.counters["fees_owed"]) == (FEE, 0, 0)


async def test_a_node_that_was_off_collects_from_its_journal_and_the_chain(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run():
        await audited(payer)
    await until(LAST + 500)
    assert credited(scene, auditor) == 0
    async with auditor.run():
        await trio.sleep(5)
        assert credited(scene, auditor) == FEE
    async with auditor.run() as service:
        await trio.sleep(100)
        assert (collected(scene), service.counters["fees_owed"]) == (1, 0)


async def test_a_chain_that_is_away_costs_only_time(scene: Scene, auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await audited(payer)
        scene.chain.down = True
        await until(LAST + 600)
        scene.chain.down = False
        await trio.sleep(10)
        assert credited(scene, auditor) == FEE


async def test_an_audit_without_a_verdict_is_owed_nothing(scene: Scene, auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run() as service:
        await payer.open_job()
        payer.answers["commit"] = lambda body: pytest.fail("unused") if not body else b"\xc1"
        await payer.call()
        await trio.sleep(120)
        assert service.counters["fees_owed"] == 0
        await until(LAST + 30)
        assert collected(scene) == 0
