"""Talks to a node's HTTP API (docs/API.md): requests, blobs and event streams, without threads.

Refusals come back as the errors that the node raised. A stream that breaks goes on where it was; a node that came back
under another port is looked up again. This module does not know what jobs are made of.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import httpx
import msgspec

from tallymesh import api
from tallymesh.client.discover import Address, find
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError, ChainError, LocalError, RemoteError, TallymeshError
from tallymesh.ids import BlobId, blob_id

CONNECT_S: Final = 5.0
ONCE: Final = {  # requests that are not sent again by themselves, and what to do instead
    "/v1/jobs": "See 'tallymesh ls' whether it took the job.",
    "/v1/withdraw": "See 'tallymesh balance' whether it was carried.",
}
ANSWER_S: Final = 60.0  # the slowest answer is `submit`, which waits for nothing but the node's disk
SILENCE_S: Final = 35.0  # three heartbeats of an event stream
# Of a stream that broke, with 0.1 s, 0.2 s, … 3.2 s between them, a minute in all: a node that was started again on a
# busy machine is back by then.
RETRIES: Final = 22
PAUSE_MAX_S: Final = 3.2
BUNDLE_BYTES: Final = 4 * 1024 * 1024  # of small blobs in one request; the node takes twice that
BUNDLE_BLOBS: Final = 2048
SMALL_BYTES: Final = 256 * 1024  # a bigger blob goes up by itself, in a stream
ASK_IDS: Final = 50_000  # in one question about what is missing

T = TypeVar("T")
_ROWS_MAX: Final = 1_000_000  # receipts or audits of one job that a list may hold


class _Ids(msgspec.Struct):
    ids: list[str]


class _Missing(msgspec.Struct):
    missing: list[int]


class _Page(msgspec.Struct):
    rows: msgspec.Raw
    next: int | None = None


class Session:
    """One node as the client sees it. `finder` is asked again after the line broke."""

    def __init__(self, finder: Callable[[], Address] = find) -> None:
        self._finder = finder
        self.address = finder()
        self._http = _open(self.address)

    def __repr__(self) -> str:
        return f"<Session {self.address.url}>"

    def another(self) -> Session:
        """A line of its own to the same node, for another thread."""
        return Session(self._finder)

    def close(self) -> None:
        self._http.close()

    def __del__(self) -> None:
        http = getattr(self, "_http", None)  # missing where no node was found
        if http is not None and not sys.is_finalizing():  # else httpx is half gone, and the system closes the line
            http.close()

    def get(self, path: str, kind: type[T]) -> T:
        return _decode(self._send("GET", path), kind)

    def post(self, path: str, body: bytes, kind: type[T], *, timeout_s: float = ANSWER_S) -> T:
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
        return _decode(self._send("POST", path, content=body, timeout=timeout), kind)

    def put(self, path: str, kind: type[T]) -> T:
        return _decode(self._send("PUT", path), kind)

    def delete(self, path: str, kind: type[T]) -> T:
        return _decode(self._send("DELETE", path), kind)

    def rows(self, path: str, kind: type[T]) -> list[T]:
        """All pages of a list that only grows."""
        rows: list[T] = []
        after: int | None = 0
        while after is not None and len(rows) < _ROWS_MAX:
            page = _decode(self._send("GET", path, params={"after": after}), _Page)
            rows += _decode(bytes(page.rows), list[kind])  # type: ignore[valid-type]
            after = page.next
        return rows

    # -- blobs

    def blob(self, name: str) -> bytes:
        """The bytes of a blob, checked against its name."""
        data = self._send("GET", f"/v1/blobs/{name}")
        if blob_id(data).hex() != name:
            raise LocalError("wrong_blob", f"What the node gave as blob {name[:8]}… is something else.")
        return data

    def upload(self, blobs: Mapping[BlobId, bytes]) -> None:
        """Make all of them present at the node, sending only what it lacks."""
        names = list(blobs)
        small: list[bytes] = []
        for start in range(0, len(names), ASK_IDS):
            asked = names[start : start + ASK_IDS]
            answer = self.post("/v1/blobs/missing", msgspec.msgpack.encode(asked), _Missing)
            for at in answer.missing:
                data = blobs[asked[at]]
                if len(data) > SMALL_BYTES:
                    self._send("PUT", f"/v1/blobs/{asked[at].hex()}", content=data)
                else:
                    small.append(data)
        for bundle in _bundles(small):
            self.post("/v1/blobs", msgspec.msgpack.encode(bundle), _Ids)

    # -- events

    def events(self, job_id: str, after: int = 0, *, follow: bool = True) -> Iterator[api.EventView]:
        """Every event after that sequence, then each as it happens; ends with the job, or with what there is."""
        failures = 0
        while True:
            try:
                with self._stream(job_id, after, follow) as answer:
                    for event in parse(answer.iter_lines()):
                        failures = 0
                        after = event.sequence
                        yield event
                return
            except (httpx.TransportError, LocalError) as error:
                failures += 1
                if failures > RETRIES or (isinstance(error, LocalError) and error.code != "node_unreachable"):
                    raise _unreachable(self.address, error) from None
            time.sleep(_pause_s(failures))
            self._reopen()

    async def wait_ended(self, job_id: str) -> None:
        """Return when the job has ended; for asyncio and trio alike. Nothing is read but the stream's end."""
        after, failures = 0, 0
        while True:
            try:
                async with (
                    _open_async(self.address) as session,
                    session.stream("GET", f"/v1/jobs/{job_id}/events", params={"after": after}) as answer,
                ):
                    if answer.status_code != 200:
                        raise refusal(answer.status_code, await answer.aread())
                    async for line in answer.aiter_lines():
                        if line.startswith("id: "):
                            after, failures = int(line[4:]), 0
                return
            except httpx.TransportError as error:
                failures += 1
                if failures > RETRIES:
                    raise _unreachable(self.address, error) from None
            await _sleep(_pause_s(failures))
            self._reopen()

    @contextmanager
    def _stream(self, job_id: str, after: int, follow: bool) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        path, asked = f"/v1/jobs/{job_id}/events", {"after": after, "follow": int(follow)}
        with self._http.stream("GET", path, params=asked, timeout=timeout) as answer:
            if answer.status_code != 200:
                raise refusal(answer.status_code, answer.read())
            yield answer

    # -- the line

    def _send(self, method: str, path: str, **more: Any) -> bytes:
        try:
            answer = self._http.request(method, path, **more)
        except httpx.TransportError as error:
            # An idle connection was closed, or the node came back elsewhere. Every request is idempotent but these:
            # their second sending would be a second job, or a second withdrawal.
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if method == "POST" and path in ONCE and not unsent:
                raise LocalError(
                    "node_unreachable", f"The node at {self.address.url} did not answer.", remedy=ONCE[path]
                ) from None
            self._reopen()
            try:
                answer = self._http.request(method, path, **more)
            except httpx.TransportError as again:
                raise _unreachable(self.address, again) from None
        if answer.status_code >= 300:
            raise refusal(answer.status_code, answer.content)
        return answer.content

    def _reopen(self) -> None:
        try:
            address = self._finder()
        except CallerError:
            return  # the node is gone for now: the next try says so
        if address != self.address:
            self.address = address
            self._http.close()
            self._http = _open(address)


def parse(lines: Iterable[str]) -> Iterator[api.EventView]:
    """Events out of the lines of a server-sent stream; comments and fields that we do not use are skipped."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield _decode("\n".join(data).encode(), api.EventView)
            data = []


def _pause_s(failures: int) -> float:
    return min(PAUSE_MAX_S, 0.1 * 2.0 ** min(failures - 1, 16))


def refusal(status: int, body: bytes) -> TallymeshError:
    """The error that the node raised, as it raised it."""
    try:
        told = msgspec.json.decode(body, type=api.Refusal)
    except UNREADABLE:
        return LocalError("bad_answer", f"The node answered {status} and something that is not its own.")
    if told.kind == "chain":
        return ChainError(told.code, told.sentence, reverted=told.reverted, remedy=told.remedy)
    if told.kind == "remote":
        return RemoteError(told.code, told.sentence, peer=told.peer, remedy=told.remedy)
    return (LocalError if told.kind == "local" else CallerError)(told.code, told.sentence, remedy=told.remedy)


def _bundles(blobs: Iterable[bytes]) -> Iterator[list[bytes]]:
    bundle: list[bytes] = []
    size = 0
    for data in blobs:
        if bundle and (size + len(data) > BUNDLE_BYTES or len(bundle) == BUNDLE_BLOBS):
            yield bundle
            bundle, size = [], 0
        bundle.append(data)
        size += len(data)
    if bundle:
        yield bundle


def _open(address: Address) -> httpx.Client:
    return httpx.Client(**_options(address))


def _open_async(address: Address) -> httpx.AsyncClient:
    return httpx.AsyncClient(**{**_options(address), "timeout": httpx.Timeout(SILENCE_S, connect=CONNECT_S)})


def _options(address: Address) -> dict[str, Any]:
    return {
        "base_url": address.url,
        "headers": {"Authorization": f"Bearer {address.token}"},
        "timeout": httpx.Timeout(ANSWER_S, connect=CONNECT_S),
        "trust_env": False,  # a proxy that serves the web has no business between a program and its own node
        # Loading the certificate store takes longer than a whole request on loopback.
        "verify": address.url.startswith("https:"),
    }


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise LocalError(
            "bad_answer", f"The node's answer is not a {getattr(kind, '__name__', kind)}: {error}."
        ) from None


def _unreachable(address: Address, error: Exception) -> LocalError:
    return LocalError(
        "node_unreachable",
        f"The node at {address.url} (from {address.source}) does not answer: {type(error).__name__}.",
        remedy="See 'tallymesh node status'.",
    )


async def _sleep(seconds: float) -> None:
    import anyio

    await anyio.sleep(seconds)


_current: tuple[int, Session] | None = None


def current() -> Session:
    """The session of this process; a forked child opens its own. Looked up again where the address changed."""
    global _current
    if _current is not None and _current[0] == os.getpid() and _current[1].address == find():
        return _current[1]
    _current = (os.getpid(), Session())
    return _current[1]
