"""The loops of a node that ask the chain and nothing else, on a chain in the same process and on trio's clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from fakes.virtual_chain import CHAIN_ID, STARTED, URL, VirtualChain
from tallymesh.network import Network
from tallymesh_ledger.chain import Rpc
from tallymesh_ledger.chain.outbox import MemoryOutbox
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.embedded_chain import development_parameters
from tallymesh_node.enrolment import Enrolment
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.market.book import OfferBook
from tallymesh_node.market.envelope import Opener, bind
from tallymesh_node.network.keys import generate

BLOCK_S = 2.0


class Node:
    """The loops of a node that ask the chain, and nothing else of it."""

    def __init__(self, chain: VirtualChain, rpc: Rpc, network: Network, **options) -> None:
        self.box = MemoryOutbox()
        now = lambda: STARTED + trio.current_time()  # noqa: E731
        self.chain = EscrowChain(rpc, network, chain.key, outbox=self.box, clock=now, **options)
        domains = Domains.of(network)
        self.enrolment = Enrolment(self.chain, network, bind(domains, chain.key, generate(), 1), slots=1)
        self.book = OfferBook(Opener(domains, now), self.chain, now)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for loop in (self.chain.run, self.enrolment.run, self.book.run):
                nursery.start_soon(loop)


async def tick(chain: VirtualChain) -> None:
    while True:
        await trio.sleep(BLOCK_S)
        chain.call("evm_mine")


@asynccontextmanager
async def a_node(chain: VirtualChain, class_delay_s: int = 0, **options) -> AsyncIterator[Node]:
    """Enrolled, with a slot bought, and every transaction of that final."""
    parameters = msgspec.structs.replace(development_parameters(), class_delay_s=class_delay_s)
    async with chain.rpc() as rpc:
        contracts = await chain.contracts(parameters)
        network = Network(
            name="virtual", chain_id=CHAIN_ID, rpc_urls=(URL,), contracts=contracts, parameters=parameters
        )
        node = Node(chain, rpc, network, **options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick, chain)
            nursery.start_soon(node.run)
            with trio.fail_after(60):
                while not node.enrolment.done or await node.box.load(chain.key.address, CHAIN_ID):  # noqa: ASYNC110
                    await trio.sleep(1)
            yield node
            nursery.cancel_scope.cancel()
