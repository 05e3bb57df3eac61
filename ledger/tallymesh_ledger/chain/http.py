"""One HTTP round trip to a chain's node: httpx's transports without its client.

The client costs as much again as the transport (0.85 ms of CPU a call, 0.45 without), for what nobody needs here:
cookies, redirects, flows of authentication; and a node at rest asks its chain once or twice a second. What is needed
stands here: timeouts, a name and password in the URL, the proxy that the environment names. This module knows no
JSON-RPC.
"""

from __future__ import annotations

import base64
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import NamedTuple, cast

import httpx
import trio

MAX_CONNECTIONS = 16  # to one node of ours or a public one: a task more waits for a free one
KEEP_S = 45.0  # that an unused connection stays open: nodes and their proxies close theirs after a minute or later
SHOWN = 40  # characters of a header in a sentence
MAX_RESPONSE_BYTES = 64 * 1024 * 1024  # 20,000 logs are about 12 MB
# Asked for, and believed: one of these makes at most a thousand times as much of a piece that came. An answer that is
# packed twice, or in another way, would take gigabytes of memory before it could be counted.
PACKED = ("gzip", "deflate")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HEADERS = {
    "accept": "application/json",
    "accept-encoding": ", ".join(PACKED),
    "content-type": "application/json",
    "user-agent": f"tallymesh python-httpx/{httpx.__version__}",
}


class Answer(NamedTuple):
    """`headers` are httpx's; `data` is decoded as they say."""

    status: int
    headers: httpx.Headers
    data: bytearray


class TooLong(Exception):
    """An answer of more than MAX_RESPONSE_BYTES."""


class Http:
    """`urls` are those that will be asked as a rule (another one works too). `transport` replaces the network."""

    def __init__(
        self, urls: Sequence[str], *, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._extensions = {"timeout": httpx.Timeout(timeout_s).as_dict()}
        self._replaced = transport
        # loading the certificates takes 20 ms and some megabytes: only where there is a URL that needs them
        secure = any(url.startswith("https:") for url in urls)
        self._tls = httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._transports: dict[str | None, httpx.AsyncBaseTransport] = {}  # by proxy

    async def post(self, url: str, body: bytes) -> Answer:
        """httpx.HTTPError, httpx.InvalidURL or OSError where there is no answer; TooLong."""
        place, headers = _parsed(url)
        request = httpx.Request("POST", place, headers=headers, content=body, extensions=self._extensions)
        request.stream = _Body(body)
        response = await self._transport(place).handle_async_request(request)
        async with aclosing(response):
            return Answer(response.status_code, response.headers, await _read(response))

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            for transport in (*self._transports.values(), *([self._replaced] if self._replaced else [])):
                await transport.aclose()

    def _transport(self, place: httpx.URL) -> httpx.AsyncBaseTransport:
        if self._replaced is not None:
            return self._replaced
        proxy = _proxy(place)
        if proxy not in self._transports:
            limits = httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS,
                keepalive_expiry=KEEP_S,
            )
            try:
                self._transports[proxy] = httpx.AsyncHTTPTransport(verify=self._tls, limits=limits, proxy=proxy)
            except (ValueError, ImportError, httpx.InvalidURL):  # its address may hold a password, and is not repeated
                kind = (proxy or "").partition("://")[0]
                raise httpx.UnsupportedProtocol(
                    f"the proxy of kind {kind[:SHOWN]!r} that the environment names cannot be used"
                ) from None
        return self._transports[proxy]


@lru_cache(maxsize=16)
def _parsed(url: str) -> tuple[httpx.URL, dict[str, str]]:
    place = httpx.URL(url)
    headers = dict(_HEADERS)
    if place.username or place.password:
        word = base64.b64encode(f"{place.username}:{place.password}".encode()).decode()
        headers["authorization"] = f"Basic {word}"
    return place, headers


@lru_cache(maxsize=16)
def _proxy(place: httpx.URL) -> str | None:
    """As the environment names it: right for a public node, wrong for one on this machine."""
    if place.host in LOOPBACK or urllib.request.proxy_bypass(place.host):
        return None
    named = urllib.request.getproxies()
    proxy = named.get(place.scheme) or named.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


class _Body(httpx.AsyncByteStream):
    """The bytes of a request. httpx's own is an async generator, which a request that is cancelled leaves suspended for
    the garbage collector: trio warns of those."""

    def __init__(self, data: bytes) -> None:
        self._left = [data]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _read(response: httpx.Response) -> bytearray:
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity", *PACKED):
        raise httpx.DecodingError(f"an answer that is packed as nobody asked for: {packed[:SHOWN]!r}")
    data = bytearray()
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_bytes())) as parts:
        async for part in parts:
            data += part
            if len(data) > MAX_RESPONSE_BYTES:
                raise TooLong(f"an answer of more than {MAX_RESPONSE_BYTES} bytes")
    return data
