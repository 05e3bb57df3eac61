"""While jobs run, whatever no role says that it needs is dropped on every node, over and over: nothing is missed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio

from fakes.payer_scene import PayerNode, PoolBlobs, Scene, honest_result
from tallymesh.ids import BlobId

FRESH_S = 4.0  # of virtual time; a unit takes one second
MORE_S = 30.0  # after the job is over


class Sweeping:
    """What blobs/room.py would drop if there were never any room."""

    def __init__(self, blobs: PoolBlobs) -> None:
        self.blobs = blobs
        self.came: dict[BlobId, float] = {}
        self.dropped: set[BlobId] = set()

    def sweep(self, needed: set[bytes] | None) -> None:
        assert needed is not None
        now = trio.current_time()
        for blob in list(self.blobs._mine):
            self.came.setdefault(blob, now)
            if now > self.came[blob] + FRESH_S and blob not in needed:
                self.blobs._mine.discard(blob)
                self.dropped.add(blob)
                del self.came[blob]


async def sweep(scene: Scene, payer: PayerNode, sweeping: dict[str, Sweeping]) -> None:
    while True:
        await trio.sleep(0.5)
        results = await payer.service.results()
        needed = payer.service.needed()
        assert results is not None
        assert needed is not None
        sweeping["payer"].sweep(needed | results)
        for peer in scene.peers:
            here, audits = peer.worker.needed(), peer.auditor.needed()
            assert here is not None
            assert audits is not None
            sweeping[peer.peer_id].sweep(here | audits | await peer.worker.held())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["map", "sequential", "federated"])
async def test_nothing_that_a_job_still_uses_is_without_somebody_who_says_so(
    scene: Scene, payer: PayerNode, kind: str
) -> None:
    scene.crowd(4)
    sweeping = {peer.peer_id: Sweeping(peer.blobs) for peer in scene.peers} | {"payer": Sweeping(payer.blobs)}
    async with scene.running() as nursery:
        await payer.start(nursery)
        more: dict[str, Any] = {"items": 12} if kind == "map" else {"items": 4, "rounds": 8}
        spec = payer.spec(kind, **more)
        expected = honest_result(payer, spec)
        payer.blobs._mine -= set(expected) - {BlobId(spec.initial)}  # which were only to compare with
        job = await payer.submit(spec)
        nursery.start_soon(sweep, scene, payer, sweeping)
        view = await payer.wait(job)
        await payer.wait_empty(job)
        await trio.sleep(MORE_S)
        result = bytes.fromhex(view.result)
        assert payer.blobs.has(BlobId(result)), "the owner's, until the owner removes it"
        if kind == "map":
            assert all(payer.blobs.has(blob) for blob in expected)
        else:
            assert result == expected[-1]
            assert not any(payer.blobs.has(blob) for blob in expected[:-1]), "what it was made of may go"
        assert not any(payer.blobs.has(BlobId(blob)) for blob in spec.inputs)
        fetched = Counter((who, blob) for who, each in sweeping.items() for blob, _, _ in each.blobs.fetched)
        assert set(fetched.values()) <= {1}, "nothing was dropped that had to be fetched again"
