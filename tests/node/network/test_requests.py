"""What a request and its answer are: one suite for the real network and for the fake one."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from fakes.network import World
from fakes.peers import PATIENCE_S, peers, until
from tallymesh.errors import CallerError, ChainError, LocalError, RemoteError
from tallymesh.exchange import MAX_BODY_BYTES, Source
from tallymesh_node.network import requests
from tallymesh_node.network.keys import generate

Pair = Callable[[], AbstractAsyncContextManager[tuple[Any, Any]]]


@asynccontextmanager
async def real() -> AsyncIterator[tuple[Any, Any]]:
    async with peers(2) as (server, client):
        yield server, client


@asynccontextmanager
async def fake() -> AsyncIterator[tuple[Any, Any]]:
    world = World()
    yield world.join(), world.join()


@pytest.fixture(params=[real, fake], ids=["libp2p", "memory"])
def pair(request: pytest.FixtureRequest) -> Pair:
    chosen: Pair = request.param
    return chosen


async def echo(peer: str, body: bytes) -> bytes:
    return body


async def test_handler_sees_the_caller_and_its_body(pair: Pair) -> None:
    async with pair() as (server, client):

        async def handler(peer: str, body: bytes) -> bytes:
            return f"{peer} said {body.decode()}".encode()

        server.serve("say", handler)
        answer = await client.request(server.source, "say", b"hello", timeout_s=PATIENCE_S)
        assert answer == f"{client.peer_id} said hello".encode()


@pytest.mark.parametrize("size", [0, 1, 70_000, MAX_BODY_BYTES])
async def test_bodies_arrive_whole(pair: Pair, size: int) -> None:
    async with pair() as (server, client):
        server.serve("echo", echo)
        body = bytes(range(256)) * (size // 256 + 1)
        assert await client.request(server.source, "echo", body[:size], timeout_s=PATIENCE_S) == body[:size]


async def test_body_over_the_limit_is_the_callers_error(pair: Pair) -> None:
    async with pair() as (server, client):
        server.serve("echo", echo)
        with pytest.raises(CallerError) as error:
            await client.request(server.source, "echo", bytes(MAX_BODY_BYTES + 1), timeout_s=PATIENCE_S)
        assert error.value.code == "too_large"


@pytest.mark.parametrize(
    "raised",
    [
        RemoteError("wrong_position", "Position 3 is assigned already."),
        CallerError("wrong_position", "Position 3 is assigned already."),
        LocalError("wrong_position", "Position 3 is assigned already."),
        ChainError("wrong_position", "Position 3 is assigned already.", reverted=True),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_refusal_carries_code_sentence_and_peer(pair: Pair, raised: Exception) -> None:
    async with pair() as (server, client):

        async def refuse(peer: str, body: bytes) -> bytes:
            raise raised

        server.serve("assign", refuse)
        with pytest.raises(RemoteError) as error:
            await client.request(server.source, "assign", b"", timeout_s=PATIENCE_S)
        assert (error.value.code, error.value.sentence) == ("wrong_position", "Position 3 is assigned already.")
        assert error.value.peer == server.peer_id


async def test_handler_that_raises_answers_internal_and_the_host_goes_on(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (server, client):

        async def broken(peer: str, body: bytes) -> bytes:
            raise ZeroDivisionError("secret detail")

        server.serve("broken", broken)
        server.serve("echo", echo)
        with caplog.at_level(logging.ERROR), pytest.raises(RemoteError) as error:
            await client.request(server.source, "broken", b"", timeout_s=PATIENCE_S)
        assert error.value.code == "internal"
        assert "secret" not in error.value.sentence
        assert "secret detail" in caplog.text
        assert await client.request(server.source, "echo", b"still here", timeout_s=PATIENCE_S) == b"still here"


async def test_handler_that_is_cancelled_from_within_does_not_end_the_host(pair: Pair) -> None:
    async with pair() as (server, client):

        async def impatient(peer: str, body: bytes) -> bytes:
            with trio.fail_after(0):
                await trio.sleep(1)
            return b""

        server.serve("impatient", impatient)
        server.serve("echo", echo)
        with pytest.raises(RemoteError) as error:
            await client.request(server.source, "impatient", b"", timeout_s=PATIENCE_S)
        assert error.value.code == "internal"
        assert await client.request(server.source, "echo", b"x", timeout_s=PATIENCE_S) == b"x"


async def test_unknown_request_is_refused(pair: Pair) -> None:
    async with pair() as (server, client):
        with pytest.raises(RemoteError) as error:
            await client.request(server.source, "nonsense", b"", timeout_s=PATIENCE_S)
        assert error.value.code == "unknown_request"


async def test_answer_over_the_limit_is_not_sent(pair: Pair) -> None:
    async with pair() as (server, client):

        async def chatty(peer: str, body: bytes) -> bytes:
            return bytes(MAX_BODY_BYTES + 1)

        server.serve("chatty", chatty)
        with pytest.raises(RemoteError) as error:
            await client.request(server.source, "chatty", b"", timeout_s=PATIENCE_S)
        assert error.value.code == "internal"


async def test_slow_answer_is_a_timeout_and_its_handler_is_cancelled(pair: Pair) -> None:
    async with pair() as (server, client):
        cancelled = trio.Event()
        begun = False

        async def slow(peer: str, body: bytes) -> bytes:
            nonlocal begun
            begun = True
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
            return b""

        server.serve("slow", slow)
        patience_s = 0.1
        while not begun:  # a busy machine may not even ask within that
            with pytest.raises(RemoteError) as error:
                await client.request(server.source, "slow", b"", timeout_s=patience_s)
            assert error.value.code == "timeout"
            patience_s *= 2
        with trio.fail_after(PATIENCE_S):
            await cancelled.wait()


async def test_handler_is_cut_when_it_takes_too_long(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "HANDLE_S", 0.05)
    async with pair() as (server, client):

        async def slow(peer: str, body: bytes) -> bytes:
            await trio.sleep(60)
            return b""

        server.serve("slow", slow)
        with pytest.raises(RemoteError) as error:
            await client.request(server.source, "slow", b"", timeout_s=PATIENCE_S)
        assert error.value.code == "internal"


async def test_peer_with_too_many_requests_under_way_is_told_busy(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "HANDLED_PER_PEER", 2)
    async with pair() as (server, client):
        release = trio.Event()
        running = 0

        async def hold(peer: str, body: bytes) -> bytes:
            nonlocal running
            running += 1
            await release.wait()
            return b"done"

        server.serve("hold", hold)
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await client.request(server.source, "hold", b"", timeout_s=PATIENCE_S))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await until(lambda: running == 2)
            with pytest.raises(RemoteError) as error:
                await client.request(server.source, "hold", b"", timeout_s=PATIENCE_S)
            assert error.value.code == "busy"
            release.set()
        assert answers == [b"done", b"done"]
        assert await client.request(server.source, "hold", b"", timeout_s=PATIENCE_S) == b"done"


async def test_many_requests_at_once_are_all_answered(pair: Pair) -> None:
    async with pair() as (server, client):
        server.serve("echo", echo)
        answers: dict[int, bytes] = {}

        async def ask(number: int) -> None:
            answers[number] = await client.request(server.source, "echo", b"%d" % number, timeout_s=PATIENCE_S)

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(ask, number)
        assert answers == {number: b"%d" % number for number in range(60)}
        assert client.counters.requests_sent == 60
        assert server.counters.requests_served == 60


async def test_peer_that_is_not_there_is_unreachable(pair: Pair) -> None:
    async with pair() as (_, client):
        nobody = Source(peer_id=generate().peer_id, addresses=("/ip4/127.0.0.1/tcp/1",))
        with pytest.raises(RemoteError) as error:
            await client.request(nobody, "echo", b"", timeout_s=PATIENCE_S)
        assert error.value.code == "unreachable"
        assert error.value.peer == nobody.peer_id


async def test_peer_does_not_ask_itself(pair: Pair) -> None:
    async with pair() as (server, _):
        with pytest.raises(RemoteError) as error:
            await server.request(server.source, "echo", b"", timeout_s=PATIENCE_S)
        assert error.value.code == "unreachable"
