"""Event pages against providers that each allow something else."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import httpx
import pytest
import trio

from fakes.seldom import seldom
from tallymesh.errors import ChainError
from tallymesh_ledger.chain import Rpc, logs
from tallymesh_ledger.chain.logs import pages, read_logs

VIRTUAL_TIME = True  # no waiting for a provider that is busy

ADDRESS, TOPIC = b"\x01" * 20, b"\x02" * 32


class Provider:
    """Logs at the blocks `at`, several a block; refuses ranges of more than `blocks`, or more than `results` logs."""

    def __init__(self, at: list[int], *, blocks: int = 10**9, results: int = 10**9, status: int = 200) -> None:
        self.at, self.blocks, self.results, self.status = at, blocks, results, status
        self.asked: list[tuple[int, int]] = []
        self.refused = 0
        self.code = -32602

    def rpc(self) -> Rpc:
        return Rpc(["http://provider.test/"], chain_id=7, transport=httpx.MockTransport(self._answer))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        body = json.loads(request.content)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": body["id"]}
        if body["method"] == "eth_chainId":
            return httpx.Response(200, json={**answer, "result": "0x7"})
        wanted = body["params"][0]
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        assert wanted["address"] == "0x" + ADDRESS.hex()
        assert wanted["topics"] == ["0x" + TOPIC.hex(), None]
        self.asked.append((first, last))
        found = [block for block in self.at if first <= block <= last]
        if last - first + 1 > self.blocks or len(found) > self.results:
            self.refused += 1
            error = {"code": self.code, "message": "block range too large or too many results"}
            return httpx.Response(self.status, json={**answer, "error": error})
        shown = [{"blockNumber": hex(block), "logIndex": hex(i)} for i, block in enumerate(found)]
        return httpx.Response(200, json={**answer, "result": shown[::-1]})


async def read(provider: Provider, end: int, **options: Any) -> list[int]:
    async with provider.rpc() as rpc:
        found = await read_logs(rpc, ADDRESS, [TOPIC, None], 5, end, **options)
    return [int(log["blockNumber"], 16) for log in found]


EVENTS = [5, 5, 6, 700, 701, 30_000, 30_001, 30_001, 99_999, 100_000]


@pytest.mark.parametrize("blocks", seldom([10**9, 10_000, 500, 100], always=3))
@pytest.mark.parametrize("status", [200, 400])
async def test_every_log_is_read_once_and_in_order_whatever_range_is_allowed(blocks: int, status: int) -> None:
    provider = Provider(EVENTS, blocks=blocks, status=status)
    assert await read(provider, 100_000) == EVENTS
    passed = [(first, last) for first, last in provider.asked if last - first < blocks]
    assert [first for first, _ in passed] == [5, *(last + 1 for _, last in passed[:-1])]
    assert passed[-1][1] == 100_000


async def test_a_limit_on_results_is_met_with_smaller_pages_and_larger_ones_where_it_is_quiet() -> None:
    busy = [block for block in range(1_000, 1_400) for _ in range(3)]
    provider = Provider(busy, results=40)
    assert await read(provider, 100_000) == busy
    sizes = [last - first + 1 for first, last in provider.asked]
    assert min(sizes) <= 13
    assert max(sizes[-20:]) > 1_000


async def test_what_is_known_of_a_provider_spares_its_refusals() -> None:
    provider = Provider(EVENTS, blocks=500)
    assert await read(provider, 20_000, page_blocks=500) == [each for each in EVENTS if each <= 20_000]
    assert provider.refused == 0
    assert len(provider.asked) == 40


async def test_a_provider_that_refuses_the_smallest_page_is_told_about() -> None:
    provider = Provider(EVENTS, blocks=0)
    with pytest.raises(ChainError, match="block range too large"):
        await read(provider, 100_000)
    assert len(provider.asked) < 20


async def test_an_overfull_block_ends_in_its_refusal_and_not_in_a_loop() -> None:
    provider = Provider([50] * 100, results=40)
    with pytest.raises(ChainError):
        await read(provider, 60)
    assert len(provider.asked) < 20


async def test_a_provider_that_is_away_is_no_reason_for_smaller_pages() -> None:
    provider = Provider(EVENTS)
    provider.blocks, provider.status = 0, 503
    with pytest.raises(ChainError) as caught:
        await read(provider, 100_000)
    assert caught.value.code == "chain_unavailable"
    assert {first for first, _ in provider.asked} == {5}
    assert {last for _, last in provider.asked} == {5 + logs.PAGE_BLOCKS - 1}


async def test_a_reader_may_stop_between_pages_and_go_on_there() -> None:
    provider = Provider(EVENTS, blocks=50_000)
    async with provider.rpc() as rpc:
        async with aclosing(pages(rpc, ADDRESS, [TOPIC, None], 5, 100_000)) as reading:
            page = await anext(reading)
        assert (page.first, page.last) == (5, 50_004)
        rest = await read_logs(rpc, ADDRESS, [TOPIC, None], page.last + 1, 100_000)
    assert [int(log["blockNumber"], 16) for log in [*page.logs, *rest]] == EVENTS


async def test_no_blocks_are_no_question() -> None:
    provider = Provider(EVENTS)
    assert await read(provider, 4) == []
    assert provider.asked == []
