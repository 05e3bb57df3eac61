"""A job's events as server-sent events: `id:` is the sequence, so a reader that lost the line goes on where it was. Of
what it cannot be given any more it is told, by an event like the others.

The stream pulls: it holds one batch and asks for the next when the reader has taken it. A slow reader costs a batch of
memory, a silent one is dropped after a while, and nobody's slowness reaches the job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio
import trio_asyncio
from aiohttp import web

from tallymesh import api
from tallymesh.errors import CallerError, LocalError
from tallymesh_node.http.answers import STREAM, in_time
from tallymesh_node.http.facade import PayerService

HEARTBEAT_S: Final = 10.0  # a comment this often tells readers and proxies that the line is alive
MAX_STREAMS: Final = 64  # open at a time: each holds a connection and a batch
MAX_BATCH: Final = 256  # events written before the reader must have taken them
MISSING: Final = "events_missing"
ENDED: Final = ("done", "failed", "cancelled")


class Streams:
    """Counts the open streams, so that a program that forgets to close them cannot exhaust the node."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def open(self) -> int:
        return len(self._tasks)

    def cut(self) -> None:
        """The node ends: break them off, so that their readers look for it again instead of believing in an end."""
        for task in self._tasks:
            task.cancel()

    @contextmanager
    def one(self) -> Iterator[None]:
        if self.open >= self._limit:
            raise LocalError(
                "too_many_streams", f"{self.open} event streams are open.", remedy="Close some of them, then try again."
            )
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)


def line(event: api.EventView) -> bytes:
    """One event on the wire. JSON has no raw line breaks, so `data:` is always one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.sequence, event.kind.encode(), api.encode(event))


def start_after(request: web.Request) -> int:
    """From `Last-Event-ID` (a reconnecting reader) or `?after=`; 0 for all."""
    text = request.headers.get("Last-Event-ID") or request.query.get("after") or "0"
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise CallerError("bad_request", "An event's sequence is a whole number.")
    return int(text)


async def stream(request: web.Request, payer: PayerService, streams: Streams) -> web.StreamResponse:
    """Everything after the sequence asked for, then what happens, until the job has ended; with `?follow=0` only what
    there is."""
    job_id = request.match_info["id"]
    after = start_after(request)
    follow = request.query.get("follow", "1") != "0"
    payer.job(job_id)
    with streams.one():
        answer = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        answer.content_type = "text/event-stream"
        request[STREAM] = answer
        await in_time(answer.prepare(request))
        async for batch in _batches(payer, job_id, after, follow):
            await in_time(answer.write(b"".join(map(line, batch)) or b": alive\n\n"))
        await in_time(answer.write_eof())
        return answer


async def _batches(
    payer: PayerService, job_id: str, after: int, follow: bool
) -> AsyncIterator[Sequence[api.EventView]]:
    """Batches of at most MAX_BATCH; an empty one is a heartbeat. Ends with the job."""
    wait = trio_asyncio.trio_as_aio(_wait)
    while True:
        # The status is read first: events that it followed from are in the log already when it says that all is over.
        over = payer.job(job_id).status in ENDED
        batch = payer.events(job_id, after)
        if not batch and _missing(payer, job_id, after) is None:
            if over or not follow:
                return
            batch = await wait(payer, job_id, after)
        if (notice := _missing(payer, job_id, after)) is not None:
            after = notice.sequence
            yield [notice]
            continue
        batch = batch[:MAX_BATCH]
        if batch:
            after = batch[-1].sequence
        yield batch


def _missing(payer: PayerService, job_id: str, after: int) -> api.EventView | None:
    """What to tell a reader whose next events are not here. It goes on from the notice's sequence."""
    dropped, newest = payer.events_kept(job_id)
    if after < dropped:
        where, sentence = dropped, f"The events from {after + 1} to {dropped} are missing: only the newest are kept."
    elif after > newest:
        where = newest
        sentence = f"There is no event {after} here, the newest is {newest}: the node lost what it said last."
    else:
        return None
    data = {"code": MISSING, "sentence": sentence, "remedy": ""}
    return api.EventView(sequence=where, at=time.time(), kind="warning", data=data)


async def _wait(payer: PayerService, job_id: str, after: int) -> Sequence[api.EventView]:
    """Runs in a trio task: waits for news or for the next heartbeat."""
    with trio.move_on_after(HEARTBEAT_S):
        return await payer.wait_events(job_id, after)
    return ()
