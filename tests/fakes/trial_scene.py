"""The claim of claim_scene.py with every node's quarrels: what an auditor finds goes before the Court."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from fakes.claim_scene import ClaimScene
from fakes.court import FakeCourt
from fakes.executor import honest
from fakes.worker_scene import CLASS
from tallymesh.ids import BlobId
from tallymesh.units import Unit
from tallymesh_ledger.eip712 import keccak
from tallymesh_node.quarrels.service import QuarrelsService


def lie(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    output, metrics = honest(unit, inputs)
    return b"a lie" + output, metrics


class Trial(ClaimScene):
    """Every node of a claim with its quarrels."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.quarrels: dict[str, QuarrelsService] = {}
        self.courts: dict[str, FakeCourt] = {}

    def may_fetch(self, holder: str, asker: str, blob: BlobId, ticket: bytes) -> bool:
        service = self.quarrels.get(holder)
        found = service is not None and service.may_fetch(asker, blob, ticket)
        return found or super().may_fetch(holder, asker, blob, ticket)

    @asynccontextmanager
    async def quarrelling(self, *nodes: Any) -> AsyncIterator[trio.CancelScope]:
        async with trio.open_nursery() as nursery:
            for node in nodes:
                await nursery.start(self.make(node).run)
            yield nursery.cancel_scope
            nursery.cancel_scope.cancel()

    def make(self, node: Any) -> QuarrelsService:
        court = self.courts[node.peer_id] = FakeCourt(self.chain, node.key.address)
        service = self.quarrels[node.peer_id] = QuarrelsService(
            **self.parts_of(node),
            court=court,
            numeric_class=lambda: CLASS,
            hash_of=lambda peer: keccak(peer.encode()),
        )
        return service
