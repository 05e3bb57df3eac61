"""An account with nothing at all works: no faucet, no token, no gas, no transaction of its own, exact to the wei.
`scripts/probation` goes on from there to a slot and a withdrawal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest

import tallymesh
from end_to_end import functions
from end_to_end.scene import SMALL, Market, wait_until
from tallymesh import network as network_file
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.eip712 import word
from tallymesh_node.local_network import NODES, NodeProcess

pytestmark = pytest.mark.end_to_end

UNITS = 5
WAIT_S = 300.0


@pytest.fixture
def newcomer(market: Market) -> Iterator[NodeProcess]:
    """Cheaper than all others; its network file names no faucet."""
    local = market.local
    bare = local.folder / "without-faucet.json"
    network_file.save(msgspec.structs.replace(local.network, faucet=""), bare)
    settings = {**SMALL, "ask_price": "0.005"}
    node = NodeProcess("newcomer", local.folder / "newcomer", bare, roles=("worker",), settings=settings)
    local.nodes[node.name] = node
    local._start(node, NODES)
    local.wait_ready([node])
    account = market.account("newcomer")

    def listed() -> bool:
        return any(o["account"] == account and not o["provisional"] for o in market.payer.get("/v1/offers"))

    node.wait("its offer was known", listed, timeout_s=WAIT_S)
    yield node
    market.drop(node)


class Figures(NamedTuple):
    """Of one account, from the chain, at one block."""

    units: int  # that were paid
    earned: int  # for them, after the fee, in wei
    deposit: int
    coin: int
    transactions: int


def figures(market: Market, account: str) -> Figures:
    address, network = bytes.fromhex(account[2:]), market.local.network

    async def read(rpc: Rpc, contracts: Contracts) -> Figures:
        interface = contracts.escrow.interface
        topics = [interface.topics["Settled"], None, word(address)]
        at = (await rpc.block()).number
        logs = await read_logs(rpc, contracts.escrow.address, topics, network.contracts.deployed_block, at)
        paid = [event.values for event in map(interface.event, logs) if event is not None]
        return Figures(
            units=sum({v["seat"]: v["units"] for v in paid}.values()),  # of a seat the last says all
            earned=sum(v["amount"] - v["fee"] for v in paid),
            deposit=await contracts.registry.deposit_of(address, at=at),
            coin=int(await rpc.call("eth_getBalance", account, hex(at)), 16),
            transactions=int(await rpc.call("eth_getTransactionCount", account, hex(at)), 16),
        )

    found: Figures = market.ask(read)
    return found


def test_an_account_with_nothing_works_is_audited_and_its_pay_is_its_stake(
    market: Market, newcomer: NodeProcess
) -> None:
    market.connect()
    account = market.account("newcomer")
    assert figures(market, account) == (0, 0, 0, 0, 0)
    job = tallymesh.map(functions.square, range(UNITS), budget="1.0", max_price="0.01", newcomers=True)
    assert job.results() == [functions.square(n) for n in range(UNITS)]
    assert {peer.account for peer in job.view.peers} == {account}
    accepted = {(receipt.seat, receipt.position) for receipt in job.receipts if receipt.accepted and not receipt.void}
    audited = {(audit.seat, audit.position) for audit in job.audits if audit.result == "match"}
    assert len(accepted) == UNITS
    assert accepted <= audited, "every unit"
    found = wait_until(
        "its pay is on chain", lambda: (f := figures(market, account)).units >= UNITS and f, timeout_s=WAIT_S
    )
    assert found.units == UNITS, "each once"
    assert found.earned == found.deposit > 0, "to the wei"
    assert (found.coin, found.transactions) == (0, 0)

    def shown() -> bool:
        probation = market.view("newcomer").probation
        return probation is not None and int(probation.earned_wei) == found.deposit

    wait_until("its owner sees how far it is", shown, timeout_s=WAIT_S)
