"""One HTTP round trip: what a URL and the environment say is done, and a connection is used again."""

from __future__ import annotations

import base64
import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
from trio.testing import MockClock

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import Rpc, http

ANSWER = b'{"jsonrpc": "2.0", "id": 1, "result": "0x7"}'
PATIENCE_S = 120.0


class Server:
    """Answers every POST with ANSWER, and keeps what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        unread = b""
        async for data in stream:
            unread += data
            head, end, body = unread.partition(b"\r\n\r\n")
            if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
                continue
            self.requests.append(head)
            unread = b""
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
            server.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            yield server
            nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without what the machine says of proxies, and without what was kept of it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    http._proxy.cache_clear()
    yield
    http._proxy.cache_clear()


async def test_calls_one_after_the_other_share_a_connection() -> None:
    async with serving() as server, Rpc([server.url], chain_id=7) as rpc:
        for _ in range(5):
            assert await rpc.chain_id() == 7
        assert server.connections == 1
        assert len(server.requests) == 6  # one of them asked which chain it is


async def test_a_public_url_is_asked_through_the_proxy_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with Rpc(["http://chain.test/key"], chain_id=7) as rpc:
            assert await rpc.chain_id() == 7
        assert proxy.requests[0].startswith(b"POST http://chain.test/key HTTP/1.1")


@pytest.mark.parametrize(
    "proxy", ["socks5://me:secret@proxy.test:1080", "ftp://me:secret@proxy.test", "http://[me:secret"]
)
async def test_a_proxy_that_cannot_be_used_is_a_chain_that_is_away(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it is called with is nobody's to read."""
    monkeypatch.setenv("all_proxy", proxy)
    async with Rpc(["http://chain.test/key"], chain_id=7, patience_s=0.2) as rpc:
        with pytest.raises(ChainError) as caught:
            await rpc.chain_id()
    assert caught.value.code == "chain_unavailable"
    assert "proxy" in caught.value.sentence
    assert "secret" not in caught.value.sentence


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_this_machine_is_never_asked_through_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    assert http._proxy(httpx.URL(f"http://{host}:8545")) is None


@pytest.mark.parametrize(
    ("said", "url", "proxy"),
    [
        ({"https_proxy": "proxy.test:3128"}, "https://chain.test/", "http://proxy.test:3128"),
        ({"https_proxy": "http://proxy.test:3128"}, "http://chain.test/", None),
        ({"all_proxy": "socks5://proxy.test:1080"}, "https://chain.test/", "socks5://proxy.test:1080"),
        ({"all_proxy": "http://proxy.test", "no_proxy": "chain.test"}, "https://chain.test/", None),
        ({"all_proxy": "http://proxy.test", "no_proxy": "chain.test"}, "https://node.chain.test/", None),
        ({"all_proxy": "http://proxy.test", "no_proxy": "*"}, "https://chain.test/", None),
        ({}, "https://chain.test/", None),
    ],
)
def test_which_proxy_is_used(
    said: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert http._proxy(httpx.URL(url)) == proxy


async def test_a_name_and_password_in_the_url_are_said_and_stay_out_of_the_host() -> None:
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200, content=ANSWER)

    url = "https://us%40er:pa%20ss@chain.test/v3"
    async with Rpc([url], chain_id=7, transport=httpx.MockTransport(answer)) as rpc:
        assert await rpc.chain_id() == 7
    assert seen[0]["authorization"] == "Basic " + base64.b64encode(b"us@er:pa ss").decode()
    assert seen[0]["host"] == "chain.test"


async def test_a_packed_answer_is_unpacked() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "gzip" in request.headers["accept-encoding"]
        return httpx.Response(200, content=gzip.compress(ANSWER), headers={"content-encoding": "gzip"})

    async with Rpc(["https://chain.test/"], chain_id=7, transport=httpx.MockTransport(answer)) as rpc:
        assert await rpc.chain_id() == 7


@pytest.mark.parametrize("packed", ["gzip, gzip", "zstd", "br"])
async def test_an_answer_that_is_packed_as_nobody_asked_for_is_not_unpacked(
    packed: str, autojump_clock: MockClock
) -> None:
    """64 kB of it may be gigabytes, which are there before they can be counted."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, stream=httpx.ByteStream(gzip.compress(gzip.compress(ANSWER))), headers={"content-encoding": packed}
        )

    transport = httpx.MockTransport(answer)
    async with Rpc(["https://chain.test/"], chain_id=7, transport=transport) as rpc:
        with pytest.raises(ChainError, match="packed as nobody asked for"):
            await rpc.chain_id()
