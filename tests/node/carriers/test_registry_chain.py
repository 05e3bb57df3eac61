"""Carrying on the real contracts: what the model does in the other tests, the embedded chain does here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from fakes.network import World as NetworkWorld
from fakes.virtual_chain import CHAIN_ID, STARTED, URL, VirtualChain
from tallymesh.messages import Order, PeerBinding
from tallymesh.network import Network
from tallymesh_ledger.chain import Rpc, Sender
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_ledger.deploy import deploy
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.embedded_chain import development_parameters
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_node.carriers.asking import Asking
from tallymesh_node.carriers.chain import RegistryChain
from tallymesh_node.carriers.serving import Carrier
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.market.envelope import Binding

SLOT, CREDIT, LEAST = 10**15, 3 * 10**15, 10**12
KEY = AccountKey(b"\7" * 32)


@pytest.fixture
async def rpc(tmp_path: Path) -> AsyncIterator[tuple[VirtualChain, Rpc]]:
    chain = VirtualChain(tmp_path)
    async with chain.rpc() as rpc:
        yield chain, rpc
    chain.close()


@pytest.mark.slow
async def test_bond_and_withdrawal_are_carried_to_the_wei(rpc: tuple[VirtualChain, Rpc]) -> None:
    chain, client = rpc
    parameters = msgspec.structs.replace(development_parameters(), slot_wei=SLOT)
    contracts = await deploy(Sender(client, chain.key), parameters)
    network = Network(name="virtual", chain_id=CHAIN_ID, rpc_urls=(URL,), contracts=contracts, parameters=parameters)
    domains = Domains.of(network)
    rich, mine = EscrowChain(client, network, chain.key), EscrowChain(client, network, KEY)
    await credit(chain, rich, mine, network)
    await mine.look()
    await rich.look()

    world = NetworkWorld()
    carrier = Carrier(world.join("carrier"), RegistryChain(rich), domains, GasPolicy(), LEAST)
    carrier.open()
    message = PeerBinding(peer_id_hash=b"\6" * 32, account=KEY.address, version=1)
    binding = Binding(message, KEY.sign_digest(domains.digest(message)), b"")
    sources = [world.networks["carrier"].source]
    asking = Asking(world.join("me"), RegistryChain(mine), domains, KEY, binding, lambda: sources)
    sent = chain.count(KEY.address)

    await asking.bond(SLOT + 5)
    registry, token = rich.contracts.registry, rich.contracts.token
    assert await registry.live_slots(KEY.address) == 1
    assert await registry.newcomers([KEY.address, chain.key.address]) == [Newcomer(0, 0, 5), Newcomer()]
    assert await registry.peer_of(KEY.address) == (b"\6" * 32, 1)
    before = await token.balance_of(KEY.address)
    done = await asking.withdraw(slots=1, deposit=True)
    assert len(done.transaction) == 32
    assert await token.balance_of(KEY.address) - before == CREDIT - SLOT - 5 - 2 * LEAST
    assert await rich.credits(chain.key.address) == 2 * LEAST
    assert (await registry.stake_of(KEY.address)).unbonding == SLOT + 5
    assert (await mine.credits(KEY.address), await registry.nonce_of(KEY.address)) == (0, 2)
    assert chain.count(KEY.address) == sent, "the account itself sent nothing"


async def credit(chain: VirtualChain, rich: EscrowChain, mine: EscrowChain, network: Network) -> None:
    """A refund of a job that was opened and not begun: the shortest way to credit on a real escrow."""
    await rich.contracts.token.transfer(rich.sender, KEY.address, CREDIT)
    await rich.sender.send(KEY.address, value=10**17)
    order = Order(
        payer=KEY.address, signer=KEY.address, template=b"\1" * 32, numeric_profile=bytes(32), cores=1, memory_mib=1,
        disk_mib=1, gpus=0, price_max=1, wages=CREDIT, audit_reserve=0, lock_per_seat=0, claim_bond=0,
        audit_rate_bp=400, tally_units=50, claim_window=network.parameters.claim_window_s,
        evidence_window=network.parameters.evidence_window_s, auditors=0, auditors_root=bytes(32), signer_seat_max=0,
        newcomers=True, deadline=STARTED + 10**6, salt=b"\2" * 32,
    )  # fmt: skip
    await mine.contracts.escrow.open(mine.sender, order, [])
    await mine.contracts.escrow.refund(mine.sender, order)
    assert await mine.credits(KEY.address) == CREDIT
