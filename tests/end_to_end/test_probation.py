"""An account with nothing at all works: no faucet, no token, no gas, no transaction of its own, exact to the wei.
`scripts/probation` goes on from there to a slot and a withdrawal."""

from __future__ import annotations

from collections.abc import Iterator

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

    node.wait("its offer was known", listed)
    yield node
    market.drop(node)


def figures(market: Market, account: str) -> tuple[int, int, int, int]:
    """(settled pay after fees, deposit, coin, transactions) of the account, from the chain."""
    address, network = bytes.fromhex(account[2:]), market.local.network

    async def read(rpc: Rpc, contracts: Contracts) -> tuple[int, int, int, int]:
        interface = contracts.escrow.interface
        topics = [interface.topics["Settled"], None, word(address)]
        head = (await rpc.block()).number
        logs = await read_logs(rpc, contracts.escrow.address, topics, network.contracts.deployed_block, head)
        paid = [event.values for event in map(interface.event, logs) if event is not None]
        (standing,) = await contracts.registry.newcomers([address])
        count = int(await rpc.call("eth_getTransactionCount", account, "latest"), 16)
        return sum(v["amount"] - v["fee"] for v in paid), standing.deposit, await rpc.balance(address), count

    found: tuple[int, int, int, int] = market.ask(read)
    return found


def test_an_account_with_nothing_works_is_audited_and_its_pay_is_its_stake(
    market: Market, newcomer: NodeProcess
) -> None:
    market.connect()
    account = market.account("newcomer")
    assert figures(market, account) == (0, 0, 0, 0)
    job = tallymesh.map(functions.square, range(UNITS), budget="1.0", max_price="0.01", newcomers=True)
    assert job.results() == [functions.square(n) for n in range(UNITS)]
    assert {peer.account for peer in job.view.peers} == {account}
    audited = {(audit.seat, audit.position) for audit in job.audits if audit.result == "match"}
    assert len(audited) == UNITS, "every unit"
    earned, deposit, coin, transactions = wait_until(
        "its pay is on chain", lambda: (found := figures(market, account))[0] and found
    )
    assert earned == deposit > 0, "to the wei"
    assert (coin, transactions) == (0, 0)

    def shown() -> bool:
        probation = market.view("newcomer").probation
        return probation is not None and int(probation.earned_wei) == deposit

    wait_until("its owner sees how far it is", shown)
