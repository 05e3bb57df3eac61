"""JSON-RPC over a line that fails: other URLs, later tries, wrong chains, nonsense."""

from __future__ import annotations

import gc
import socket

import pytest
import trio
import trio.testing

from tallymesh.errors import ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain import Rpc

PATIENCE_S = 240.0  # for what comes back within a second, on a machine of one's own


def dead_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_chain_that_is_away_is_reported_after_the_patience() -> None:
    async with Rpc([dead_url()], chain_id=1, patience_s=0.3) as rpc:
        started = trio.current_time()
        with pytest.raises(ChainError) as caught:
            await rpc.call("eth_blockNumber")
        assert 0.25 < trio.current_time() - started < PATIENCE_S
    assert caught.value.code == "chain_unavailable"
    assert not caught.value.reverted


async def test_the_next_url_answers_where_the_first_is_dead(network: Network) -> None:
    async with Rpc([dead_url(), *network.rpc_urls], chain_id=network.chain_id) as rpc:
        assert await rpc.chain_id() == network.chain_id


async def test_a_url_that_answered_is_asked_first_from_then_on(network: Network, proxy) -> None:
    proxy.rule = lambda request: 503
    async with Rpc([proxy.url, *network.rpc_urls], chain_id=network.chain_id) as rpc:
        await rpc.chain_id()
        asked = len(proxy.log)
        await rpc.chain_id()
        assert len(proxy.log) == asked


async def test_a_chain_that_comes_back_answers_the_same_call(network: Network, proxy) -> None:
    proxy.rule = lambda request: 503
    async with (
        Rpc([proxy.url], chain_id=network.chain_id, patience_s=PATIENCE_S) as rpc,
        trio.open_nursery() as nursery,
    ):

        async def comes_back() -> None:
            await trio.sleep(0.2)
            proxy.rule = lambda request: proxy.PASS

        nursery.start_soon(comes_back)
        assert int(await rpc.call("eth_blockNumber"), 16) > 0


async def test_another_chain_is_refused_before_anything_is_asked_of_it(network: Network, proxy) -> None:
    async with Rpc([proxy.url], chain_id=network.chain_id + 1) as rpc:
        with pytest.raises(ChainError) as caught:
            await rpc.call("eth_sendRawTransaction", "0x00")
    assert caught.value.code == "wrong_chain"
    assert str(network.chain_id) in caught.value.sentence
    assert set(proxy.log) == {"eth_chainId"}


async def test_a_url_of_another_chain_does_not_spoil_the_right_one(network: Network, proxy) -> None:
    proxy.rule = lambda request: {"jsonrpc": "2.0", "id": request["id"], "result": "0x1"}
    async with Rpc([proxy.url, *network.rpc_urls], chain_id=network.chain_id) as rpc:
        assert await rpc.chain_id() == network.chain_id


async def test_a_node_that_comes_back_as_another_chain_is_noticed(network: Network, proxy) -> None:
    async with Rpc([proxy.url], chain_id=network.chain_id, patience_s=PATIENCE_S) as rpc:
        await rpc.call("eth_blockNumber")
        proxy.close()
        strange = type(proxy)(network.rpc_urls[0])
        strange.rule = lambda request: {"jsonrpc": "2.0", "id": request["id"], "result": "0x1"}
        rpc._endpoints[0].url, rpc._patience_s = dead_url(), 0.05
        with pytest.raises(ChainError, match="did not answer"):
            await rpc.call("eth_blockNumber")
        rpc._patience_s = PATIENCE_S
        rpc._endpoints[0].url = strange.url  # the same name now leads there
        with pytest.raises(ChainError, match="is chain 1,"):
            await rpc.call("eth_blockNumber")
        strange.close()


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"<html>", b"[]", b"{}", b'{"result"', b'{"error": "text"}', b"[1]", b"null", b"[" * 100_000],
    ids=["empty", "html", "list", "object", "cut", "error text", "numbers", "null", "deep"],
)
async def test_nonsense_is_an_unavailable_chain_and_nothing_else(network: Network, proxy, nonsense: bytes) -> None:
    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc:
        await rpc.chain_id()
        rpc._patience_s = 0.05
        proxy.rule = lambda request: nonsense
        with pytest.raises(ChainError, match="did not answer"):
            await rpc.call("eth_blockNumber")
        with pytest.raises(ChainError):
            await rpc.batch([("eth_blockNumber", [])])


async def test_a_node_that_is_busy_is_asked_again(network: Network, proxy) -> None:
    async with Rpc([proxy.url], chain_id=network.chain_id, patience_s=PATIENCE_S) as rpc:
        await rpc.chain_id()
        answers = [429, {"jsonrpc": "2.0", "id": 0, "error": {"code": -32005, "message": "daily request limit"}}]
        proxy.rule = lambda request: answers.pop() if answers else proxy.PASS
        assert int(await rpc.call("eth_blockNumber"), 16) > 0
        assert answers == []


async def test_a_batch_keeps_its_order_and_its_refusals(network: Network, rpc: Rpc) -> None:
    good, bad, last = await rpc.batch(
        [("eth_chainId", []), ("eth_nonsense", []), ("eth_getBlockByNumber", ["0x0", False])]
    )
    assert int(good, 16) == network.chain_id
    assert isinstance(bad, ChainError)
    assert "eth_nonsense" in bad.sentence
    assert last["number"] == "0x0"


async def test_a_large_batch_goes_out_in_parts(rpc: Rpc) -> None:
    answers = await rpc.batch([("eth_chainId", [])] * 1_201)
    assert len(answers) == 1_201
    assert len(set(answers)) == 1


async def test_many_tasks_may_ask_at_once(rpc: Rpc) -> None:
    numbers: list[int] = []

    async def ask() -> None:
        numbers.append((await rpc.block()).number)

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(ask)
    assert len(numbers) == 40


async def test_a_block_that_does_not_exist_is_named(rpc: Rpc) -> None:
    with pytest.raises(ChainError) as caught:
        await rpc.block(10**9)
    assert caught.value.code == "no_block"


async def test_a_request_that_is_cancelled_while_it_is_sent_leaves_nothing_to_the_collector() -> None:
    """Nobody accepts, so a large body fills the sockets and stops half-way; a warning here is an error."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with Rpc([url], patience_s=0.2) as rpc:
            endpoint = rpc._endpoints[0]
            endpoint.checked = True
            with pytest.raises(ChainError, match="did not answer"):
                await rpc.call("eth_sendRawTransaction", "0x" + "00" * 8_000_000)
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()
