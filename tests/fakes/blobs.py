"""Content-addressed files in a folder of the test, fetched from the other peers of one `Swarm` without a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import trio

from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh.ids import BlobId, blob_id


class Swarm:
    """Who has what, by peer id. A peer in `down` serves nobody."""

    def __init__(self) -> None:
        self.peers: dict[str, FakeBlobs] = {}
        self.down: set[str] = set()


class FakeBlobs:
    """The `Blobs` of one peer."""

    def __init__(self, folder: Path, swarm: Swarm, peer_id: str) -> None:
        self.folder = folder
        self._place = str(folder)
        self.swarm = swarm
        self.fetched: list[tuple[BlobId, str, bytes]] = []  # (blob, from whom, ticket)
        self.synced = 0
        folder.mkdir(parents=True, exist_ok=True)
        swarm.peers[peer_id] = self

    def has(self, blob: BlobId) -> bool:
        return os.path.exists(
            f"{self._place}/{blob.hex()}"
        )  # asked thousands of times: a Path takes three times as long

    def path(self, blob: BlobId) -> Path:
        if not self.has(blob):
            raise KeyError(blob)
        return self.folder / blob.hex()

    def get(self, blob: BlobId) -> bytes:
        return self.path(blob).read_bytes()

    def put(self, data: bytes) -> BlobId:
        name = blob_id(data)
        if not self.has(name):
            (self.folder / name.hex()).write_bytes(data)
        return name

    async def sync(self) -> None:
        await trio.lowlevel.checkpoint()
        self.synced += 1

    async def fetch(self, blob: BlobId, sources: Sequence[Source], *, ticket: bytes, timeout_s: float) -> None:
        await trio.lowlevel.checkpoint()
        if self.has(blob):
            return
        for source in sources:
            peer = self.swarm.peers.get(source.peer_id)
            if peer is not None and source.peer_id not in self.swarm.down and peer.has(blob):
                self.put(peer.get(blob))
                self.fetched.append((blob, source.peer_id, ticket))
                return
        raise RemoteError("not_found", f"No source has blob {blob.hex()[:8]}.")
