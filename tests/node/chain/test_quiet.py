"""What a node at rest asks its chain, and what it must hear of all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from fakes.chain_node import BLOCK_S, Node, a_node
from fakes.contract_chain import Chain, job_done
from fakes.virtual_chain import VirtualChain
from tallymesh_ledger.chain import Contracts, Sender
from tallymesh_node import beats, newest
from tallymesh_node.newest import FRESH_S, SKIP_TRUE_S

REST_S = 120.0
KEPT = 32  # fewer blocks than a node keeps, but as many as come in SKIP_TRUE_S
LATER_S = BLOCK_S * (KEPT + 2)  # by then nothing of the beginning is among them


@pytest.fixture
async def virtual_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VirtualChain]:
    monkeypatch.setattr(newest, "KEPT", KEPT)
    made = VirtualChain(tmp_path)
    yield made
    made.close()


def asked(chain: VirtualChain, since: float) -> Counter[str]:
    return Counter(method for at, methods in chain.asked if at >= since for method in methods)


async def fresh(node: Node) -> int:
    """The account's free stake as the chain says it now."""
    return (await node.chain.contracts.registry.stake_of(node.chain.account)).free


@pytest.mark.slow
async def test_a_node_at_rest_asks_for_the_newest_block_and_little_else(virtual_chain: VirtualChain) -> None:
    async with a_node(virtual_chain, class_delay_s=3600) as node:
        await trio.sleep(0.37)  # it is told so when nobody else looks
        node.enrolment.set_class(b"\1" * 32)
        await trio.sleep(LATER_S)
        assert not node.enrolment.done, "its class counts in an hour"
        since = trio.current_time()
        await trio.sleep(REST_S)
        found = asked(virtual_chain, since)
        assert found["eth_getLogs"] <= REST_S / SKIP_TRUE_S + 1, "a market that reads the registry each two seconds"
        assert found["eth_call"] <= 40, found  # the account's own look each half a minute, six questions
        assert found["eth_getBlockByNumber"] <= REST_S + 20, found
        moments = {at for at, _ in virtual_chain.asked if at >= since}
        assert len(moments) <= REST_S / beats.BEAT_S + 1, "loops that wake each by itself"
        assert node.book.registry is not None
        head = int(virtual_chain.call("eth_blockNumber"), 16)
        assert head - node.book.registry.block_number <= 3, "and it is as new as ever"


@pytest.mark.slow
async def test_a_change_by_somebody_else_is_known_as_soon_as_ever(virtual_chain: VirtualChain) -> None:
    async with a_node(virtual_chain) as node:
        await trio.sleep(LATER_S)
        account = node.chain.account
        before = await node.chain.free_stake(account)
        assert node.book.registry is not None
        slots = node.book.registry.slots_of(account)
        contracts, bank = node.chain.contracts, Sender(node.chain.rpc, virtual_chain.key)
        await contracts.registry.buy_slots(bank, account, 1)
        await trio.sleep(5)
        assert node.book.registry.slots_of(account) == slots + 1
        assert await node.chain.free_stake(account) == await fresh(node) > before


@pytest.mark.slow
async def test_nothing_kept_is_believed_after_an_own_transaction_or_without_a_newest_block(
    virtual_chain: VirtualChain,
) -> None:
    async with a_node(virtual_chain) as node:
        await trio.sleep(LATER_S)
        chain = node.chain
        before = await chain.free_stake(chain.account)
        virtual_chain.away = True
        await trio.sleep(FRESH_S + 1)
        assert chain.newest.number is None
        virtual_chain.away = False
        since = trio.current_time()
        assert await chain.free_stake(chain.account) == before
        assert asked(virtual_chain, since)["eth_call"] == 1

        await trio.sleep(REST_S / 4)
        await chain.free_stake(chain.account)
        await chain.contracts.registry.buy_slots(chain.sender, chain.account, 1)
        assert await chain.free_stake(chain.account) > before, "the loop has not seen that block yet"


@pytest.mark.slow
async def test_the_registry_of_a_chain_that_was_taken_back_is_read_again(virtual_chain: VirtualChain) -> None:
    async with a_node(virtual_chain) as node:
        await trio.sleep(LATER_S)
        chain, registry = node.chain, node.chain.contracts.registry
        slots = await registry.live_slots(chain.account)
        snapshot = virtual_chain.call("evm_snapshot")
        await registry.buy_slots(Sender(chain.rpc, virtual_chain.key), chain.account, 1)
        await chain.view.at(*await latest(node))  # a look at a block that the loop has not seen
        assert virtual_chain.call("evm_revert", snapshot)
        virtual_chain.call("evm_mine")  # of the same number, without the event
        await chain.look()
        assert (await chain.registry_at(*await latest(node))).slots_of(chain.account) == slots


async def latest(node: Node) -> tuple[int, bytes]:
    block = await node.chain.rpc.block()
    return block.number, block.hash


@pytest.mark.slow
async def test_headers_that_deny_what_was_logged_are_believed_no_more(
    virtual_chain: VirtualChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = virtual_chain._one

    def without_filters(body: dict) -> dict:
        answer = one(body)
        if body["method"] == "eth_getBlockByNumber" and answer.get("result"):
            answer["result"]["logsBloom"] = "0x" + "00" * 256
        return answer

    monkeypatch.setattr(virtual_chain, "_one", without_filters)
    async with a_node(virtual_chain) as node:
        await trio.sleep(LATER_S)
        since = trio.current_time()
        await trio.sleep(REST_S)
        assert asked(virtual_chain, since)["eth_getLogs"] >= REST_S / 2 - 5, "as often as blocks come"
        assert not node.chain.newest.silent(b"\x11" * 20, 10**6, trio.current_time())


@pytest.mark.slow
async def test_whatever_changes_a_kept_answer_is_logged_by_a_contract() -> None:
    chain = Chain()
    job = job_done(chain)
    rpc = chain.rpc()
    contracts = Contracts.of(rpc, chain.network)
    accounts = [job.payer.address, *(worker.address for worker in job.workers)]
    logs = await rpc.call("eth_getLogs", {"fromBlock": "0x1", "toBlock": "latest"})
    named = {
        bytes.fromhex(address[2:]) for address in (chain.network.contracts.registry, chain.network.contracts.escrow)
    }
    spoke = {int(log["blockNumber"], 16) for log in logs if bytes.fromhex(log["address"][2:]) in named}

    async def answers(block: int) -> list[object]:
        found: list[object] = list(await contracts.registry.newcomers(accounts, at=block))
        for account in accounts:
            found.append(await contracts.registry.read("stakeOf", account, at=block))
            found.append(await contracts.escrow.read("creditOf", account, at=block))
        return found

    first = min(spoke)
    before, changes = await answers(first), 0
    for number in range(first + 1, chain.head + 1):
        after = await answers(number)
        if after != before:
            assert number in spoke, f"block {number} changed something in silence"
            changes += 1
        before = after
    assert changes > 8
