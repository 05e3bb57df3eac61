"""What the API says: JSON bodies, and one table from errors to HTTP status codes.

An error of this project becomes its code, sentence and remedy. Anything else is a bug: 500 without a word about the
inside, and the traceback in the node's log under a number that the answer names.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

from aiohttp import web

from tallymesh import api
from tallymesh.errors import CallerError, ChainError, LocalError, RemoteError, TallymeshError

log = logging.getLogger("tallymesh.http")

STREAM: Final = web.RequestKey("stream", web.StreamResponse)  # set by a handler whose answer is about to begin

STALL_S: Final = 30.0  # a sender that gives no byte, or a reader that takes none, for this long is gone

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

_STATUS_BY_CODE: Final = {
    "unauthorised": 401,
    "wrong_host": 421,
    "no_route": 404,
    "no_job": 404,
    "no_blob": 404,
    "wrong_method": 405,
    "not_finished": 409,
    "no_submit_role": 409,
    "already_done": 409,
    "length_required": 411,
    "too_large": 413,
    "wrong_hash": 422,
    "wrong_blob": 422,
    "too_many_streams": 503,
    "not_ready": 503,
    "too_many_connections": 503,
    "too_slow": 408,
    "encoded": 415,
    "disk": 507,
    "disk_limit": 507,
    "disk_full": 507,
    "no_room": 507,
    "pinned": 409,
    "needed": 409,
    "too_many_pins": 409,
}
_KINDS: Final = ((CallerError, "caller", 400), (RemoteError, "remote", 502), (LocalError, "local", 503))


def status_of(error: TallymeshError) -> int:
    if error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    if isinstance(error, ChainError):
        return 502 if error.reverted else 503
    return next((status for kind, _, status in _KINDS if isinstance(error, kind)), 500)


def json_answer(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=api.encode(value), status=status, content_type="application/json")


def refusal(error: TallymeshError) -> web.Response:
    kind = "chain" if isinstance(error, ChainError) else ""
    kind = kind or next((name for known, name, _ in _KINDS if isinstance(error, known)), "local")
    body = api.Refusal(
        code=error.code,
        sentence=error.sentence,
        remedy=error.remedy,
        kind=kind,
        peer=getattr(error, "peer", ""),
        reverted=getattr(error, "reverted", False),
    )
    answer = json_answer(body, status_of(error))
    if answer.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


async def chunks(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """The body as it comes. CallerError `too_slow` where nothing comes for STALL_S: a sender that stops in the middle
    would else hold its connection, and what it has sent, for ever. CallerError `encoded` where it is packed."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise CallerError("encoded", "Bodies are taken as they are, not packed.", remedy="Send no Content-Encoding.")
    parts = request.content.iter_chunked(size)
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise CallerError("too_slow", f"Nothing more of the body came for {STALL_S:g} s.") from None
        yield part


async def in_time(writing: Awaitable[T]) -> T:
    """What is written to a reader. TimeoutError where it takes nothing for STALL_S."""
    async with asyncio.timeout(STALL_S):
        return await writing


@web.middleware
async def errors_to_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware. An answer that has begun cannot be replaced: then the connection is cut, so that the
    reader sees a broken answer and not a short one."""
    try:
        return await handler(request)
    except TallymeshError as error:
        return _replace(request, error)
    except web.HTTPException as error:
        return _replace(request, _from_aiohttp(error))
    except (ConnectionError, TimeoutError):
        # The reader went away, or takes nothing: nobody is left to be told, and aiohttp would wait for it once more.
        if request.transport is not None:
            request.transport.abort()
        raise
    except Exception:
        number = secrets.token_hex(4)
        log.exception("bug %s in %s %s", number, request.method, request.path)
        return _replace(request, LocalError("internal", f"The node failed (bug {number}); its log says more."))


def _replace(request: web.Request, error: TallymeshError) -> web.StreamResponse:
    begun: web.StreamResponse | None = request.get(STREAM)
    if begun is None:
        answer = refusal(error)
        if error.code == "internal":
            answer.set_status(500)
        return answer
    if request.transport is not None:
        request.transport.abort()
    return begun


def _from_aiohttp(error: web.HTTPException) -> TallymeshError:
    if error.status == 405:
        return CallerError("wrong_method", "This method is not known here.", remedy="See docs/API.md.")
    if error.status == 413:
        return CallerError("too_large", "The body is too large.")
    if error.status == 404:
        return CallerError("no_route", "There is nothing under this path.", remedy="See docs/API.md.")
    return CallerError("bad_request", error.reason or "The request cannot be read.")
