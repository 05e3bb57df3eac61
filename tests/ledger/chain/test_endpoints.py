"""Several URLs for one chain: which is asked, how often one that fails, who lags, who speaks for another chain."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import Rpc, endpoint
from tallymesh_ledger.chain import rpc as module

VIRTUAL_TIME = True  # nobody here waits for a real second

CHAIN = 4_242
GOOD, OTHER = "http://good.test/", "http://other.test/"


class Nodes:
    """Answers for several URLs without a socket. `heads` are their newest blocks; `say` may replace an answer."""

    def __init__(self, **heads: int) -> None:
        self.heads = {f"http://{name}.test/": head for name, head in heads.items()}
        self.chain_ids: dict[str, int] = {}
        self.say: dict[str, Callable[[], httpx.Response]] = {}
        self.asked: list[tuple[float, str, str]] = []

    def rpc(self, **options: Any) -> Rpc:
        return Rpc(list(self.heads), chain_id=CHAIN, transport=httpx.MockTransport(self._answer), **options)

    def count(self, url: str, method: str = "") -> int:
        return sum(where == url and what.startswith(method) for _, where, what in self.asked)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        url, body = str(request.url), json.loads(request.content)
        self.asked.append((trio.current_time(), url, body["method"]))
        if url in self.say:
            return self.say[url]()
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], "result": self._result(url, body)})

    def _result(self, url: str, body: dict[str, Any]) -> Any:
        if body["method"] == "eth_chainId":
            return hex(self.chain_ids.get(url, CHAIN))
        if body["method"] == "eth_blockNumber":
            return hex(self.heads[url])
        if body["method"] == "eth_getBlockByNumber":
            number, hash_ = self.heads[url], "0x" + "11" * 32
            return {"number": hex(number), "hash": hash_, "parentHash": hash_, "timestamp": hex(number)}
        return url


def unreachable() -> httpx.Response:
    raise httpx.ConnectError("refused")


# ---- a URL that fails


async def test_a_url_that_fails_is_passed_over_and_tried_again_later() -> None:
    nodes = Nodes(good=100, other=100)
    nodes.say[GOOD] = unreachable
    async with nodes.rpc() as rpc:
        for _ in range(20):
            assert await rpc.call("eth_gasPrice") == OTHER
        assert nodes.count(GOOD) == 1
        del nodes.say[GOOD]
        nodes.say[OTHER] = unreachable
        await trio.sleep(3)
        assert await rpc.call("eth_gasPrice") == GOOD


@pytest.mark.slow
async def test_many_tasks_ask_a_chain_that_is_away_no_more_often_than_one() -> None:
    nodes = Nodes(good=100)
    nodes.say[GOOD] = unreachable
    refused = 0

    async def ask(rpc: Rpc) -> None:
        nonlocal refused
        while trio.current_time() < 600:
            with pytest.raises(ChainError, match="did not answer within 15 s"):
                await rpc.call("eth_gasPrice")
            refused += 1

    async with nodes.rpc() as rpc, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask, rpc)
    assert refused >= 50 * (600 // 15 - 1)
    assert nodes.count(GOOD) <= 50 + 600 / endpoint.REST_S[-1] + 10  # all fifty at first, then one at a time


async def test_whoever_waits_is_answered_as_soon_as_the_chain_is_back() -> None:
    nodes = Nodes(good=100)
    nodes.say[GOOD] = unreachable
    answered: list[float] = []

    async def ask(rpc: Rpc) -> None:
        await rpc.call("eth_gasPrice")
        answered.append(trio.current_time())

    async with nodes.rpc() as rpc, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask, rpc)
        await trio.sleep(8)
        del nodes.say[GOOD]
    assert len(answered) == 20
    assert max(answered) <= 8 + endpoint.REST_S[-1] + 0.01


async def test_a_refusal_with_another_status_is_still_the_chains_word() -> None:
    nodes = Nodes(good=100)
    async with nodes.rpc() as rpc:
        await rpc.chain_id()
        error = {"code": -32602, "message": "eth_getLogs is limited to a 500 block range"}
        nodes.say[GOOD] = lambda: httpx.Response(400, json={"jsonrpc": "2.0", "id": 1, "error": error})
        with pytest.raises(ChainError, match="500 block range"):
            await rpc.call("eth_getLogs", {})


# ---- limits


def limited(seconds: str) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(429, headers={"retry-after": seconds})


async def test_a_provider_that_asks_for_a_pause_gets_it() -> None:
    nodes = Nodes(good=100, other=100)
    async with nodes.rpc() as rpc:
        await rpc.chain_id()
        nodes.say[GOOD] = limited("40")
        for _ in range(50):
            assert await rpc.call("eth_gasPrice") == OTHER
        assert nodes.count(GOOD, "eth_gasPrice") == 1
        nodes.say[OTHER] = unreachable
        del nodes.say[GOOD]
        await trio.sleep(20)
        with pytest.raises(ChainError) as caught:
            await rpc.call("eth_gasPrice")
        assert caught.value.code == "chain_unavailable"
        assert nodes.count(GOOD, "eth_gasPrice") == 1
        await trio.sleep(10)
        assert await rpc.call("eth_gasPrice") == GOOD


async def test_nothing_waits_for_a_pause_longer_than_its_patience() -> None:
    nodes = Nodes(good=100)
    async with nodes.rpc() as rpc:
        await rpc.chain_id()
        nodes.say[GOOD] = limited("60")
        started = trio.current_time()
        for _ in range(10):
            with pytest.raises(ChainError, match="429"):
                await rpc.call("eth_gasPrice")
        assert trio.current_time() == started
        assert nodes.count(GOOD, "eth_gasPrice") == 1


@pytest.mark.parametrize("wish", ["", "-5", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT", "99999999999"])
async def test_a_strange_wish_for_a_pause_is_bounded(wish: str) -> None:
    nodes = Nodes(good=100)
    async with nodes.rpc(patience_s=1.0) as rpc:
        await rpc.chain_id()
        nodes.say[GOOD] = limited(wish)
        with pytest.raises(ChainError):
            await rpc.call("eth_gasPrice")
        del nodes.say[GOOD]
        await trio.sleep(endpoint.RETRY_AFTER_MAX_S)
        assert await rpc.call("eth_gasPrice") == GOOD


# ---- which chain, whose blocks


async def test_a_url_of_another_chain_is_never_asked_anything_else_and_seldom_that() -> None:
    nodes = Nodes(good=100, other=100)
    nodes.chain_ids[GOOD] = 1
    async with nodes.rpc() as rpc:
        for _ in range(10):
            assert await rpc.call("eth_sendRawTransaction", "0x00") == OTHER
            await trio.sleep(1)
        assert {what for _, where, what in nodes.asked if where == GOOD} == {"eth_chainId"}
        assert nodes.count(GOOD) == 1


async def test_where_every_url_is_of_another_chain_the_reason_is_told_at_once() -> None:
    nodes = Nodes(good=100, other=100)
    nodes.chain_ids = {GOOD: 1, OTHER: 1}
    async with nodes.rpc() as rpc:
        for _ in range(3):
            with pytest.raises(ChainError) as caught:
                await rpc.call("eth_gasPrice")
            assert caught.value.code == "wrong_chain"
        assert trio.current_time() == 0
        nodes.chain_ids = {}
        await trio.sleep(endpoint.WRONG_CHAIN_S)
        assert await rpc.call("eth_gasPrice") in (GOOD, OTHER)


async def test_a_url_that_lags_behind_is_asked_only_where_no_other_answers(caplog: pytest.LogCaptureFixture) -> None:
    nodes = Nodes(good=100, other=100)
    async with nodes.rpc() as rpc:
        assert await rpc.call("eth_gasPrice") == GOOD
        nodes.heads[OTHER] = 200
        for _ in range(30):
            await trio.sleep(1)
            await rpc.call("eth_gasPrice")
        assert await rpc.call("eth_gasPrice") == OTHER
        assert [record.levelname for record in caplog.records if "100 blocks behind" in record.message] == ["WARNING"]
        nodes.say[OTHER] = unreachable
        assert await rpc.call("eth_gasPrice") == GOOD
        del nodes.say[OTHER]
        nodes.heads[GOOD] = 202  # it caught up
        await trio.sleep(module.HEADS_S)
        await rpc.call("eth_gasPrice")
        nodes.say[OTHER] = unreachable
        assert await rpc.call("eth_gasPrice") == GOOD
        assert sum("behind" in record.message for record in caplog.records) == 1


async def test_a_newest_block_older_than_one_seen_before_is_not_believed_where_another_url_knows_better() -> None:
    nodes = Nodes(good=100, other=100)
    async with nodes.rpc() as rpc:
        assert (await rpc.block()).number == 100
        nodes.heads[GOOD], nodes.heads[OTHER] = 90, 101  # the balancer sends us to another machine
        assert (await rpc.block()).number == 101


async def test_a_reorganisation_that_all_urls_see_is_believed() -> None:
    nodes = Nodes(good=100, other=100)
    async with nodes.rpc() as rpc:
        assert (await rpc.block()).number == 100
        nodes.heads = {GOOD: 90, OTHER: 90}
        assert (await rpc.block()).number == 90


async def test_one_url_alone_is_believed_whatever_it_says() -> None:
    nodes = Nodes(good=100)
    async with nodes.rpc() as rpc:
        assert (await rpc.block()).number == 100
        nodes.heads[GOOD] = 3
        assert (await rpc.block()).number == 3
        assert nodes.count(GOOD, "eth_blockNumber") == 0
