"""Workers that did not do the work: what catches them, what it costs them, and what is done again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes.executor import Run, honest
from fakes.payer_scene import (
    GARBAGE,
    PRICE,
    PayerNode,
    Scene,
    after_first,
    caught,
    cheat,
    honest_result,
    paid_units,
    result_of,
)
from tallymesh import api
from tallymesh.ids import BlobId
from tallymesh.units import Unit


@pytest.mark.slow
async def test_a_cheat_on_every_unit_is_caught_by_its_first(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    peers[2].working.functions["m:f"] = cheat
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=15)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert caught(payer, job) == [("peer-3", "recomputation:first:auditors")]
        assert view.redone >= 1
        view = await payer.wait_empty(job)
        assert paid_units(scene, peers[2]) == 0
        assert sum(paid_units(scene, peer) for peer in peers) == 15
        assert all(
            receipt.void for receipt in payer.service.receipts(job) if receipt.account == view_of(view, 3).account
        )


def view_of(view: api.JobView, number: int) -> api.PeerView:
    return next(peer for peer in view.peers if peer.peer_id == f"peer-{number}")


@pytest.mark.slow
async def test_a_cheat_after_an_honest_first_unit_is_caught_by_the_draw(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    peers[0].working.functions["m:f"] = after_first(cheat)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=30)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        [(peer, check)] = caught(payer, job)
        assert peer == "peer-1"
        assert check.startswith("recomputation:drawn")
        await payer.wait_empty(job)
        assert paid_units(scene, peers[0]) == 1  # the accepted tally stays paid
        assert sum(paid_units(scene, peer) for peer in peers) == 30


async def test_a_mismatch_is_confirmed_by_two_of_three(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(6)
    peers[0].working.functions["m:f"] = cheat
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=12))
        view = await payer.wait(job)
        bad = [audit for audit in payer.service.audits(job) if audit.account == view_of(view, 1).account]
        assert {audit.position for audit in bad} == {0}
        assert sorted((audit.draw, audit.reason) for audit in bad) == [(0, "first"), (1, "confirm"), (2, "confirm")]
        assert len({audit.auditor for audit in bad}) == 3
        assert [audit.result for audit in bad if audit.result].count("mismatch") >= 2


@pytest.mark.slow
async def test_a_convicted_worker_is_not_leased_again_in_any_job(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    peers[1].working.functions["m:f"] = cheat
    async with scene.running() as nursery:
        await payer.start(nursery)
        await payer.wait(await payer.submit(payer.spec("map", items=8)))
        payer.crash()
        await payer.start(nursery)
        view = await payer.wait(await payer.submit(payer.spec("map", items=9)))
        assert "peer-2" not in {peer.peer_id for peer in view.peers}


@pytest.mark.slow
async def test_one_bad_segment_is_found_if_and_only_if_it_is_drawn(tmp_path: Path) -> None:
    """Sampling protects wages, not models: a single bad unit among many is usually paid and kept."""
    found: list[bool] = []
    for position in range(1, 9):
        scene = Scene(tmp_path / str(position))
        payer = PayerNode(scene)
        cheap = scene.join(9, ask=PRICE // 2)
        cheap.working.functions["tallymesh:segment"] = bad_at(position)
        scene.crowd(4)
        async with scene.running() as nursery:
            await payer.start(nursery)
            spec = payer.spec("sequential", rounds=9)
            job = await payer.submit(spec)
            view = await payer.wait(job)
            right = bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
            account = view_of(view, 9).account
            drawn = {audit.position for audit in payer.service.audits(job) if audit.account == account}
            assert (position in drawn) == bool(caught(payer, job)) == right == (view.redone > 0)
            found.append(right)
    assert True in found
    assert False in found


def bad_at(position: int) -> Run:
    ran: list[Unit] = []

    def run(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        ran.append(unit)
        return cheat(unit, inputs) if len(ran) == position + 1 else honest(unit, inputs)

    return run


@pytest.mark.slow
async def test_the_final_model_holds_no_void_unit(scene: Scene, payer: PayerNode) -> None:
    """One of five trains honestly once, then returns noise: everything that used it is computed again."""
    peers = scene.crowd(5)
    peers[3].working.functions["tallymesh:client"] = after_first(cheat)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=5, rounds=6)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        assert [peer for peer, _ in caught(payer, job)] == ["peer-4"]
        assert view.redone > 0
        redo = [event.data["units"] for event in payer.service.events(job, 0) if event.kind == "redo"]
        assert redo
        await payer.wait_empty(job)
        book = payer.service._driver(job).book
        assert all(book.proven(unit) for unit in book.plan.history())


@pytest.mark.slow
async def test_a_cheating_aggregator_is_caught_and_its_rounds_done_again(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    for peer in peers:
        peer.working.functions["tallymesh:aggregate"] = after_first(cheat)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=4, rounds=4)
        job = await payer.submit(spec)
        view = await payer.wait(job, "done", "failed", timeout_s=600)
        if view.status == "done":  # every aggregator that was caught is replaced, until one had only one unit to do
            assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        assert caught(payer, job)


@pytest.mark.slow
async def test_garbage_is_seen_on_arrival_and_its_audit_forced(scene: Scene, payer: PayerNode) -> None:
    def garbage(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        output, metrics = honest(unit, inputs)
        return GARBAGE + output, metrics

    peers = scene.crowd(5)
    peers[0].working.functions["tallymesh:client"] = after_first(garbage)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=5, rounds=4)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        [(peer, check)] = caught(payer, job)
        assert peer == "peer-1"
        # A forced tally that holds this unit alone draws it, too.
        assert check.split(":")[:2] in (["recomputation", "forced"], ["recomputation", "drawn"])
        # Nothing was built on it: no round had to be done again.
        made = {e.data["output"] for e in payer.service.events(job, 0) if e.kind == "unit"}
        assert not any(payer.blobs.get(BlobId(bytes.fromhex(name))).startswith(GARBAGE) for name in made)


@pytest.mark.slow
async def test_a_bad_loss_of_an_honest_unit_costs_one_audit(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(5)
    checked: list[Unit] = []

    def pessimist(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        checked.append(unit)
        return b"losses", {"loss_before": 1.0, "loss_after": 50.0 if len(checked) == 7 else 1.0}

    assert payer.executor is not None
    payer.executor.functions["tallymesh:loss_check"] = pessimist
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=5, rounds=4)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        assert caught(payer, job) == []
        [warning] = [e.data for e in payer.service.events(job, 0) if e.kind == "warning"]
        audits = {(audit.seat, audit.position): audit.result for audit in payer.service.audits(job)}
        assert audits[warning["seat"], warning["position"]] == "match"
        assert view.redone == 0
