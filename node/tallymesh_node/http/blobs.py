"""Blobs over HTTP: upload in a stream (hashed while it arrives), in bundles of small ones, and download in a stream.

A blob is named by its content, so everything here is idempotent and nothing needs a lock. This module does not know
what the bytes mean.
"""

from __future__ import annotations

from typing import Final

import msgspec
import trio_asyncio
from aiohttp import web

from tallymesh import api
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import BlobId
from tallymesh_node.blobs.room import Room
from tallymesh_node.http.answers import STREAM, chunks, in_time, json_answer
from tallymesh_node.http.facade import BlobStore

MAX_BLOB_BYTES: Final = 1024 * 1024 * 1024  # the largest file that a unit may write (Limits.file_mib)
MAX_BUNDLE_BYTES: Final = 8 * 1024 * 1024  # held in memory as a whole
MAX_BUNDLE_BLOBS: Final = 4096  # blobs in a bundle: bounds the files that one request can make
MAX_ASKED: Final = 100_000  # ids in one question about what is missing
MAX_ASKED_BYTES: Final = MAX_ASKED * 40
CHUNK_BYTES: Final = 256 * 1024

_bundle = msgspec.msgpack.Decoder(list[bytes])
_ids = msgspec.msgpack.Decoder(list[bytes])


def parse_id(text: str) -> BlobId:
    """64 lower-case hex digits and nothing else: the text becomes part of a path in the store."""
    if len(text) == 64 and all(char in "0123456789abcdef" for char in text):
        return BlobId(bytes.fromhex(text))
    raise CallerError("bad_blob_id", "A blob id is 64 lower-case hex digits.")


async def upload(request: web.Request, store: BlobStore, room: Room) -> web.Response:
    """PUT /v1/blobs/{id}: 201 stored, 200 was here already, 422 where the bytes have another name. Written to the
    store's own draft while it arrives, so a big blob is never in memory."""
    name = parse_id(request.match_info["id"])
    size = request.content_length
    if size is None:
        raise CallerError("length_required", "An upload says its length first.", remedy="Send Content-Length.")
    if size > MAX_BLOB_BYTES:
        raise _too_large(MAX_BLOB_BYTES)
    answer = {"id": name.hex(), "bytes": size}
    if store.has(name):
        store.touch(name)
        return json_answer(answer, 200)
    await trio_asyncio.trio_as_aio(room.make)(size)
    writer = store.writer(name, size)
    try:
        offset = 0
        async for chunk in chunks(request, CHUNK_BYTES):
            writer.write(offset, chunk)
            offset += len(chunk)
        if offset != size or not writer.finish():
            raise CallerError("wrong_hash", f"The {offset} bytes that came are not blob {name.hex()[:8]}….")
    finally:
        writer.discard()
    return json_answer(answer, 201)


async def upload_bundle(request: web.Request, store: BlobStore, room: Room) -> web.Response:
    """POST /v1/blobs: a msgpack array of byte strings; answers their ids in order. One exchange for a map's items."""
    body = await read_body(request, MAX_BUNDLE_BYTES)
    try:
        blobs = _bundle.decode(body)
    except UNREADABLE as error:
        raise CallerError("bad_request", f"Not a msgpack array of byte strings: {error}") from None
    if len(blobs) > MAX_BUNDLE_BLOBS:
        raise _too_large(MAX_BUNDLE_BLOBS, "blobs in one bundle")
    await trio_asyncio.trio_as_aio(room.make)(len(body))
    return json_answer({"ids": [store.put(blob).hex() for blob in blobs]}, 201)


async def missing(request: web.Request, store: BlobStore) -> web.Response:
    """POST /v1/blobs/missing: a msgpack array of ids; answers the positions of those that are not here."""
    body = await read_body(request, MAX_ASKED_BYTES)
    try:
        ids = _ids.decode(body)
    except UNREADABLE as error:
        raise CallerError("bad_request", f"Not a msgpack array of ids: {error}") from None
    if any(len(blob) != 32 for blob in ids):
        raise CallerError("bad_blob_id", "A blob id has 32 bytes.")
    for blob in ids:  # whoever asks is about to order a job on them
        store.touch(BlobId(blob))
    return json_answer({"missing": [at for at, blob in enumerate(ids) if not store.has(BlobId(blob))]})


async def download(request: web.Request, store: BlobStore) -> web.StreamResponse:
    """GET and HEAD /v1/blobs/{id}. The reader checks the hash: it knows the name that it asked for."""
    blob = parse_id(request.match_info["id"])
    try:
        file = store.path(blob).open("rb")
    except (KeyError, FileNotFoundError):
        raise CallerError("no_blob", f"Blob {blob.hex()[:8]}… is not on this node.") from None
    except OSError as error:
        raise LocalError("blob_unreadable", f"Blob {blob.hex()[:8]}… cannot be read: {error.strerror}.") from None
    with file:
        size = file.seek(0, 2)
        file.seek(0)
        headers = {"Content-Length": str(size), "ETag": f'"{blob.hex()}"', "X-Content-Type-Options": "nosniff"}
        answer = web.StreamResponse(headers=headers)
        answer.content_type = "application/octet-stream"
        request[STREAM] = answer
        await in_time(answer.prepare(request))
        if request.method != "HEAD":
            while chunk := file.read(CHUNK_BYTES):
                await in_time(answer.write(chunk))
        await in_time(answer.write_eof())
        return answer


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body, or CallerError `too_large` as soon as it is known to be."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks(request, CHUNK_BYTES):
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        parts.append(chunk)
    return b"".join(parts)


async def read_json(request: web.Request, kind: type[api.SubmitRequest], limit: int) -> api.SubmitRequest:
    body = await read_body(request, limit)
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise CallerError("bad_request", f"Not a {kind.__name__}: {error}") from None


def _too_large(limit: int, what: str = "bytes") -> CallerError:
    return CallerError("too_large", f"More than {limit} {what} are not taken in one request.")
