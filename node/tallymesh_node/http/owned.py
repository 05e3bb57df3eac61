"""What the owner sees and says of the node's blobs: a list with who needs each, pins, dropping what nobody needs.

This module does not decide what may go: blobs/room.py does.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import trio_asyncio
from aiohttp import web

from tallymesh import api
from tallymesh_node.blobs import BlobStore
from tallymesh_node.blobs.room import Room
from tallymesh_node.http.answers import json_answer
from tallymesh_node.http.blobs import parse_id

MAX_ROWS: Final = 1000  # of a list: who has more blobs looks at the largest, and at the sums


async def listing(request: web.Request, store: BlobStore, room: Room) -> web.Response:
    """GET /v1/blobs."""
    held_by = await trio_asyncio.trio_as_aio(room.held_by)()
    needed = defaultdict(list)
    sums = {}
    sizes = {blob: store.size(blob) for blob in store}
    for name, blobs in held_by.items():
        sums[name] = sum(sizes.get(blob, 0) for blob in blobs)
        for blob in blobs:
            needed[blob].append(name)
    order = sorted(sizes, key=lambda blob: (-sizes[blob], blob))
    rows = tuple(
        api.BlobView(
            id=blob.hex(),
            bytes=sizes[blob],
            used=store.used_at(blob),
            pinned=blob in store.pins,
            needed=tuple(needed[blob]),
        )
        for blob in order[:MAX_ROWS]
    )
    return json_answer(
        api.StoreView(
            bytes=store.bytes_used,
            bytes_max=room.limit_bytes,
            disk_free=room.disk_free,
            blobs=len(order),
            needed=sums,
            rows=rows,
            more=len(order) - len(rows),
            absent=tuple(sorted(blob.hex() for blob in store.pins if not store.has(blob))[:MAX_ROWS]),
        )
    )


async def collect(request: web.Request, room: Room) -> web.Response:
    """POST /v1/blobs/collect: drop all that nothing needs, whether room is needed or not."""
    freed = await trio_asyncio.trio_as_aio(room.collect)()
    return json_answer(api.FreedView(blobs=freed.blobs, bytes=freed.bytes))


async def remove(request: web.Request, store: BlobStore, room: Room) -> web.Response:
    """DELETE /v1/blobs/{id}: 409 where it is pinned, or needed by what goes on here."""
    blob = parse_id(request.match_info["id"])
    size = store.size(blob) if store.has(blob) else 0
    await trio_asyncio.trio_as_aio(room.remove)(blob)
    return json_answer(api.FreedView(blobs=1, bytes=size))


async def pin(request: web.Request, store: BlobStore) -> web.Response:
    """PUT and DELETE /v1/blobs/{id}/pin: idempotent, on the disk when it is answered, here or not."""
    blob = parse_id(request.match_info["id"])
    store.pin(blob, pinned=request.method == "PUT")
    return json_answer(api.PinView(id=blob.hex(), pinned=blob in store.pins, here=store.has(blob)))
