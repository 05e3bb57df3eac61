"""The chain away for ten minutes, on a virtual clock: nothing lost or doubled, one warning, few tries, a code."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio

from fakes.chain_node import BLOCK_S, Node, a_node
from fakes.virtual_chain import CHAIN_ID, STARTED, URL, VirtualChain
from tallymesh.errors import ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain import endpoint
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.embedded_chain import development_parameters
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.enrolment import Enrolment
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.market.envelope import bind
from tallymesh_node.network.keys import generate

AWAY_S = 600.0
HERE = b"\x77" * 20


@pytest.fixture
async def virtual_chain(tmp_path: Path) -> AsyncIterator[VirtualChain]:
    made = VirtualChain(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_ten_minutes_without_the_chain_lose_and_double_nothing(
    virtual_chain: VirtualChain, caplog: pytest.LogCaptureFixture, cut: str
) -> None:
    caplog.set_level(logging.INFO)
    chain = virtual_chain
    async with a_node(chain) as node:
        sent = chain.count(chain.key.address)
        caplog.clear()
        chain.cut = cut
        started, asked = trio.current_time(), len(chain.asked)
        with pytest.raises(ChainError) as caught:
            await node.chain.sender.send(HERE, value=5)
        assert caught.value.code == "not_mined"
        for _ in range(3):  # its caller tries again and again
            with pytest.raises(ChainError) as caught:
                await node.chain.sender.send(HERE, value=5, deadline_s=60)
            assert caught.value.code == "not_mined"
        with pytest.raises(ChainError) as caught:
            await node.chain.sender.send(HERE, value=1)  # nothing is signed of what cannot even be estimated
        assert caught.value.code == "chain_unavailable"
        await trio.sleep_until(started + AWAY_S)

        assert "did not answer" in node.chain.unavailable
        assert [each.code for each in node.enrolment.problems] == ["chain_unavailable"] or node.enrolment.done
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.message.split(":")[0] for record in warnings] == ["the chain cannot be used"]
        assert len(chain.asked) - asked <= AWAY_S / endpoint.REST_S[-1] + 20
        assert len(await node.box.load(chain.key.address, CHAIN_ID)) == 1

        chain.away = False
        await trio.sleep(endpoint.REST_S[-1] + 5 + 2 * BLOCK_S)
        assert node.chain.unavailable == ""
        assert int(chain.call("eth_getBalance", "0x" + HERE.hex()), 16) == 5
        assert chain.count(chain.key.address) == sent + 1
        await trio.sleep(60)
        assert await node.box.load(chain.key.address, CHAIN_ID) == []
        assert "the chain is back" in [record.message for record in caplog.records]


@pytest.mark.slow
async def test_the_owner_is_told_within_seconds_that_the_chain_is_away(virtual_chain: VirtualChain) -> None:
    async with a_node(virtual_chain) as node:
        virtual_chain.away = True
        await trio.sleep(5)
        assert node.chain.unavailable == "The chain has not answered for 3 s.", "calls are still patient"
        await trio.sleep(20)
        assert "did not answer" in node.chain.unavailable, "then it is known why"
        virtual_chain.away = False
        await trio.sleep(endpoint.REST_S[-1] + 5)
        assert node.chain.unavailable == ""


@pytest.mark.slow
async def test_a_caller_that_waits_long_enough_is_answered_when_the_chain_is_back(virtual_chain: VirtualChain) -> None:
    chain = virtual_chain
    async with a_node(chain) as node:
        chain.cut = "before"
        async with trio.open_nursery() as nursery:

            async def back() -> None:
                await trio.sleep(AWAY_S)
                chain.away = False

            nursery.start_soon(back)
            await node.chain.sender.send(HERE, value=5, deadline_s=2 * AWAY_S)
        assert int(chain.call("eth_getBalance", "0x" + HERE.hex()), 16) == 5


@pytest.mark.slow
async def test_a_node_that_stands_still_is_told_though_it_answers(
    virtual_chain: VirtualChain, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_node(virtual_chain) as node:
        virtual_chain.evm._clock = lambda: STARTED  # its blocks are of the past from now on
        await trio.sleep(200)
        assert node.chain.unavailable == ""
        await trio.sleep(400)
        assert "has stopped following the chain" in node.chain.unavailable
        assert sum("stopped following" in record.message for record in caplog.records) == 1


@pytest.mark.slow
async def test_an_account_without_coin_says_which_and_how_much_and_asks_no_faucet_that_is_not_there(
    virtual_chain: VirtualChain,
) -> None:
    chain = virtual_chain
    async with a_node(chain) as node:
        key = AccountKey.generate()
        network = msgspec.structs.replace(
            Network(
                name="virtual", chain_id=CHAIN_ID, rpc_urls=(URL,), contracts=contracts_of(node),
                parameters=development_parameters(),
            ),
            chain=msgspec.structs.replace(node.chain.facts, coin="TFUEL"),
        )  # fmt: skip
        await node.chain.contracts.token.transfer(node.chain.sender, key.address, 10**22)
        poor = EscrowChain(node.chain.rpc, network, key)
        enrolment = Enrolment(poor, network, bind(Domains.of(network), key, generate(), 1), slots=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(enrolment.run)
            with trio.fail_after(30):
                while not enrolment.problems:  # noqa: ASYNC110
                    await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
    (problem,) = enrolment.problems
    assert problem.code == "no_gas_coin"
    assert "TFUEL" in problem.sentence
    assert problem.remedy.startswith("Send at least 0.")


def contracts_of(node: Node):
    from tallymesh.network import Contracts
    from tallymesh_ledger.keys import checksum

    found = node.chain.contracts
    return Contracts(
        token=checksum(found.token.address),
        registry=checksum(found.registry.address),
        escrow=checksum(found.escrow.address),
    )
