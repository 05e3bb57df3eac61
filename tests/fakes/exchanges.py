"""Blob exchanges over real hosts, one store each, for tests of what moves between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh_node.blobs import BlobExchange, BlobStore
from tallymesh_node.blobs.serving import Authorize
from tallymesh_node.network import Libp2pNetwork

TICKET = b"a ticket"


def everybody(peer_id: str, blob: BlobId, ticket: bytes) -> bool:
    return True


@asynccontextmanager
async def exchanges(
    networks: Sequence[Libp2pNetwork], folder: Path, authorize: Authorize = everybody
) -> AsyncIterator[list[BlobExchange]]:
    """One exchange for each network."""
    async with trio.open_nursery() as nursery:
        stores = [BlobStore(folder / str(number)) for number in range(len(networks))]
        yield [BlobExchange(n, s, authorize, nursery) for n, s in zip(networks, stores, strict=True)]
        nursery.cancel_scope.cancel()


async def fetch(taker: BlobExchange, blob: BlobId, *sources: Source, timeout_s: float = 120) -> None:
    await taker.fetch(blob, sources, ticket=TICKET, timeout_s=timeout_s)


def leftovers(exchange: BlobExchange) -> list[Path]:
    return list((exchange.store._folder / "parts").iterdir())
