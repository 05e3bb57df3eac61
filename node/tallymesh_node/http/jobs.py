"""Jobs over HTTP: submit, list, look into, cancel. This module does not know how a job is driven."""

from __future__ import annotations

from typing import Final

import msgspec
import trio_asyncio
from aiohttp import web

from tallymesh import api, wheels
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import BlobId
from tallymesh.units import MAX_SPEC_BYTES, decode_spec
from tallymesh_node.http.answers import json_answer
from tallymesh_node.http.blobs import parse_id, read_json
from tallymesh_node.http.facade import NodeFacade, PayerService

MAX_REQUEST_BYTES: Final = 64 * 1024  # a SubmitRequest has about 300 bytes
# What the Order's fields hold, and more than any machine has: beyond it the terms are a mistake.
MAX_CORES: Final = (1 << 16) - 1
MAX_GIB: Final = float((1 << 22) - 1)  # 32 bits of MiB
MAX_GPUS: Final = (1 << 16) - 1
MAX_WORKERS: Final = (1 << 16) - 1
MAX_DEADLINE_S: Final = 10 * 365 * 24 * 3600
MAX_ROWS: Final = 10_000  # receipts or audits in one answer; `?after=` pages on

_results = msgspec.msgpack.Decoder(tuple[bytes, ...])


def payer_of(node: NodeFacade) -> PayerService:
    if node.payer is None:
        raise CallerError(
            "no_submit_role",
            "This node does not submit jobs.",
            remedy="Start it with 'tallymesh node start --submit', or run 'tallymesh up' for a local network.",
        )
    return node.payer


async def submit(request: web.Request, node: NodeFacade) -> web.Response:
    """POST /v1/jobs: 201 with the job. What the template names must be here already, so that a job cannot start and
    then wait for a program that went away."""
    payer = payer_of(node)
    asked = await read_json(request, api.SubmitRequest, MAX_REQUEST_BYTES)
    spec_blob = parse_id(asked.spec)
    _check_terms(asked.terms)
    if not node.blobs.has(spec_blob):
        raise CallerError("missing_blobs", "The job template was not uploaded.")
    path = node.blobs.path(spec_blob)
    if path.stat().st_size > MAX_SPEC_BYTES:
        raise CallerError("too_large", f"A job template has at most {MAX_SPEC_BYTES} bytes.")
    spec = decode_spec(path.read_bytes())
    wheels.among(spec.shared)  # else every worker would say so
    named = {spec.program, spec.initial, spec.test, *spec.inputs, *(item.blob for item in spec.shared)} - {bytes(32)}
    absent = sorted(blob for blob in named if not node.blobs.has(BlobId(blob)))
    if absent:
        raise CallerError("missing_blobs", f"{len(absent)} blobs were not uploaded, {absent[0].hex()[:8]}… first.")
    job_id = await trio_asyncio.trio_as_aio(payer.submit)(spec_blob, asked.terms)
    answer = json_answer(payer.job(job_id), 201)
    answer.headers["Location"] = f"/v1/jobs/{job_id}"
    return answer


async def cancel(request: web.Request, node: NodeFacade) -> web.Response:
    payer = payer_of(node)
    job_id = request.match_info["id"]
    await trio_asyncio.trio_as_aio(payer.cancel)(job_id)
    return json_answer(payer.job(job_id), 202)


async def results(request: web.Request, node: NodeFacade) -> web.Response:
    """GET …/results: names of the outputs; the bytes are blobs. 409 while there are none."""
    payer = payer_of(node)
    job = payer.job(request.match_info["id"])
    if not job.result:
        raise CallerError("not_finished", f"Job {job.id} is {job.status}: it has no result yet.")
    if job.kind != "map":
        return json_answer(api.ResultsView(kind=job.kind, checkpoint=job.result))
    try:
        outputs = _results.decode(node.blobs.path(parse_id(job.result)).read_bytes())
    except (KeyError, OSError, *UNREADABLE) as error:
        raise LocalError("result_lost", f"The result of job {job.id} cannot be read: {error}") from None
    return json_answer(api.ResultsView(kind=job.kind, outputs=tuple(output.hex() for output in outputs)))


def rows_after(request: web.Request, rows: list[api.ReceiptView] | list[api.AuditView]) -> web.Response:
    """A page of a list that only grows; `next` is the `?after=` of the rest, or null."""
    text = request.query.get("after") or "0"
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise CallerError("bad_request", "`after` is a whole number.")
    start = int(text)
    end = start + MAX_ROWS
    return json_answer({"rows": rows[start:end], "next": end if end < len(rows) else None})


def _check_terms(terms: api.Terms) -> None:
    for name, text in (("budget_wei", terms.budget_wei), ("max_price_wei", terms.max_price_wei or "0")):
        if not (text.isascii() and text.isdecimal() and len(text) <= 29):  # uint96
            raise CallerError("bad_amount", f"{name} is wei as a decimal string.")
    if terms.verify not in api.VERIFY:
        raise CallerError(
            "bad_terms", f"There is no verify={terms.verify!r}.", remedy=f"Use one of {', '.join(api.VERIFY)}."
        )
    require = terms.require
    if require.cores < 1 or require.memory_gib <= 0 or require.disk_gib < 0 or require.gpu < 0:
        raise CallerError("bad_terms", "Requirements are positive.")
    if require.cores > MAX_CORES or max(require.memory_gib, require.disk_gib) > MAX_GIB or require.gpu > MAX_GPUS:
        raise CallerError("bad_terms", "No machine has as much as is required.")
    if terms.workers_max < 0 or terms.deadline_s <= 0:
        raise CallerError("bad_terms", "workers_max and deadline_s are positive.")
    if terms.workers_max > MAX_WORKERS or terms.deadline_s > MAX_DEADLINE_S:
        raise CallerError("bad_terms", f"At most {MAX_WORKERS} workers, and {MAX_DEADLINE_S} s.")
