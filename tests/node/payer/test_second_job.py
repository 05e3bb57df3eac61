"""A second job on the same data: what was moved for the first one is not moved again."""

from __future__ import annotations

import random

import msgspec
import pytest

from fakes.payer_scene import PayerNode, Scene
from tallymesh.units import JobSpec

MIB = 1 << 20
DATA_MIB = 8


class Traffic:
    """All bytes between the peers of a scene: every request and answer, and every blob beside them."""

    def __init__(self, scene: Scene, payer: PayerNode) -> None:
        self._blobs = [*(peer.blobs for peer in scene.peers), payer.blobs]
        self._frames = 0
        self._before = 0
        scene.network.tap = lambda sender, receiver, frame: self._count(frame)

    def _count(self, frame: bytes) -> None:
        self._frames += len(frame)

    def since_last(self) -> int:
        sizes = sum(blobs.path(blob).stat().st_size for blobs in self._blobs for blob, _, _ in blobs.fetched)
        now, self._before = self._frames + sizes - self._before, self._frames + sizes
        return now


def on_data(payer: PayerNode, spec: JobSpec, model: bytes) -> JobSpec:
    """The job with another model and seed, on the one set of data that these tests have."""
    data = payer.blobs.put(random.Random(3).randbytes(DATA_MIB * MIB))
    return msgspec.structs.replace(spec, inputs=(data,), initial=payer.blobs.put(model), seed=len(model))


@pytest.mark.slow
async def test_a_second_train_job_on_the_same_data_moves_under_one_percent_of_it(
    scene: Scene, payer: PayerNode
) -> None:
    scene.parameters = payer.scene.parameters = msgspec.structs.replace(scene.parameters, class_accounts_min=0)
    scene.chain.parameters = scene.parameters
    scene.crowd(1)
    traffic = Traffic(scene, payer)
    moved = []
    async with scene.running() as nursery:
        await payer.start(nursery)
        for model in (b"a model", b"another model"):
            job = await payer.submit(on_data(payer, payer.spec("sequential", rounds=3), model))
            view = await payer.wait(job)
            assert (view.rounds_done, view.units) == (3, 3)
            await payer.wait_empty(job)
            moved.append(traffic.since_last())
    assert moved[0] > DATA_MIB * MIB, "the first one has to bring it there"
    assert 0 < moved[1] < DATA_MIB * MIB / 100
