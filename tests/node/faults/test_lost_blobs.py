"""Blobs that do not match what their names say, or are gone: the side whose disk lost them is named, and nobody else
pays for it."""

from __future__ import annotations

import msgspec
import pytest
import trio

from fakes.payer_scene import PayerNode, Scene, paid_units, result_of
from tallymesh.errors import LocalError
from tallymesh.ids import BlobId
from tallymesh_node.payer import losses


def rot(payer: PayerNode, name: BlobId, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the real store has it: the first read finds out and drops the blob, later ones do not find it."""
    rotten, get = {name}, payer.blobs.get

    def read(blob: BlobId) -> bytes:
        if blob in rotten:
            rotten.clear()
            payer.blobs._mine.discard(blob)
            raise LocalError("corrupt_blob", f"Blob {blob.hex()} changed on disk and was removed.")
        return get(blob)

    monkeypatch.setattr(payer.blobs, "get", read)


async def test_an_input_that_rots_on_the_payers_disk_ends_the_job_and_no_worker_is_blamed(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = scene.crowd(4, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=40)
        job = await payer.submit(spec)
        await trio.sleep(4)
        ready = list(payer.service._driver(job).book.ready())
        rot(payer, BlobId(ready[-1].unit.inputs[0].blob), monkeypatch)
        view = await payer.wait(job, "failed", timeout_s=300)
        assert view.problem is not None
        assert view.problem.code == losses.CODE
        assert "this node's own disk" in view.problem.sentence
        assert view.problem.remedy == losses.REMEDY
        assert payer.service.trust.resting("worker") == {}
        assert {peer.problem.code for peer in view.peers if peer.problem} <= set()
        await payer.wait_empty(job)
        accepted = sum(peer.accepted for peer in payer.service.job(job).peers)
        assert sum(paid_units(scene, peer) for peer in peers) == accepted > 20


async def test_a_worker_that_cannot_get_an_input_which_the_payer_lost_is_not_given_up_for_it(
    scene: Scene, payer: PayerNode
) -> None:
    """An input that is not inlined: it was there when the unit was assigned, and gone when the worker came for it."""
    scene.crowd(4, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        big = payer.blobs.put(b"big" * 50_000)
        spec = payer.spec("map", items=12)
        changed = sorted([*spec.inputs[1:], big])
        scene.network.tap = lambda sender, receiver, frame: (
            payer.blobs._mine.discard(big) if sender == "payer" and b"assign" in frame[:12] else None
        )
        job = await payer.submit(payer.spec("map", inputs=tuple(changed)))
        view = await payer.wait(job, "failed", timeout_s=600)
        assert view.problem is not None
        assert view.problem.code == losses.CODE
        assert payer.service.trust.resting("worker") == {}


async def test_an_output_that_the_payer_lost_is_fetched_from_the_worker_that_made_it(
    scene: Scene, payer: PayerNode
) -> None:
    scene.crowd(3)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("federated", items=4, rounds=6))
        driver = payer.service._driver(job)
        with trio.fail_after(60):
            while not driver.book.makers:  # noqa: ASYNC110
                await trio.sleep(0.1)
        output, maker = next(iter(driver.book.makers.items()))
        payer.blobs._mine.discard(BlobId(output))
        other = next(held for held in driver.book.all() if held.peer != maker)
        unit = next(unit for held in driver.book.all() for unit in held.units.values())
        unit = msgspec.structs.replace(unit, inputs=(msgspec.structs.replace(unit.inputs[0], blob=output),))
        inline, sources = driver.placing._inputs(other, unit)
        assert output not in inline
        assert maker in sources
        assert losses.lost(driver, unit) == []


async def test_an_output_that_nobody_has_any_more_ends_the_job(scene: Scene, payer: PayerNode) -> None:
    """The payer lost a checkpoint, and the worker that made it died: each next worker would wait for it in vain."""
    peers = scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("sequential", rounds=12))
        await trio.sleep(6.2)
        book = payer.service._driver(job).book
        maker = next(held for held in book.all() if held.seat.leaves)
        payer.blobs._mine.discard(BlobId(book.plan.state))
        next(peer for peer in peers if peer.key.address == maker.account).kill()
        view = await payer.wait(job, "failed", timeout_s=600)
        assert view.problem is not None
        assert view.problem.code == losses.CODE
        view = await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == sum(peer.accepted for peer in view.peers)


@pytest.mark.parametrize("when", ["before anybody is asked", "before an audit"])
async def test_a_template_that_is_gone_ends_the_job_and_not_the_node(scene: Scene, payer: PayerNode, when: str) -> None:
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=20)
        other = await payer.submit(payer.spec("map", items=6, seed=1))
        job = await payer.submit(spec)
        template = BlobId(payer.service._driver(job).book.order.template)
        if when == "before an audit":
            with trio.fail_after(60):
                while not payer.service.receipts(job):  # noqa: ASYNC110
                    await trio.sleep(0.05)
        payer.blobs._mine.discard(template)
        view = await payer.wait(job, "failed", timeout_s=300)
        assert view.problem is not None
        assert view.problem.code == losses.CODE
        view = await payer.wait(other)
        assert result_of(payer, payer.spec("map", items=6, seed=1), view)
