"""The registry as of a block: rebuilt from events, the same as the contract says, through reorganisations and gaps."""

from __future__ import annotations

import pytest

from tallymesh.errors import ChainError, RemoteError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts, Rpc, Sender, registry_view
from tallymesh_ledger.chain.registry_view import RegistryView
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.registry import RegistryAt

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


CLASS = b"\x0c" * 32


@pytest.fixture
def view(rpc: Rpc, network: Network, contracts: Contracts) -> RegistryView:
    return RegistryView(rpc, contracts.registry, deployed_block=network.contracts.deployed_block)


async def agrees(contracts: Contracts, found: RegistryAt) -> bool:
    """Slot for slot what the contract itself says at that block."""
    theirs = await contracts.registry.slots_from(0, 10_000, at=found.block_number)
    return len(theirs) == len(found.slots) and all(
        ours == (None if slot.released_block else slot.account)
        and found.owner_of(slot.account) == slot.owner
        and found.classes.get(slot.account, bytes(32)) == slot.numeric_class
        for ours, slot in zip(found.slots, theirs, strict=True)
    )


async def test_a_past_block_shows_what_was_and_not_what_came_later(
    rpc: Rpc, contracts: Contracts, account, view: RegistryView, until
) -> None:
    one, two = await account(), await account()
    bought = await contracts.registry.buy_slots(one, one.address, 2)
    first = bought.of("SlotsBought")[0].values["first"]
    await contracts.registry.set_class(one, CLASS)

    async def in_force() -> bool:
        return (await contracts.registry.class_of(one.address))[0] == CLASS

    await until(in_force)
    before = await rpc.block()
    await contracts.registry.buy_slots(two, two.address, 1)
    await contracts.registry.release_slots(one, one.address, [first])
    await contracts.registry.propose_owner(two, two.address, one.address)
    await contracts.registry.accept_owner(one, two.address)
    await contracts.registry.set_class(one, b"\x0d" * 32)

    old = await view.at(before.number, before.hash)
    assert (old.block_time, old.slots[first : first + 2]) == (before.timestamp, (one.address, one.address))
    assert old.slots_of(two.address) == 0
    assert old.owner_of(two.address) == two.address
    assert old.classes[one.address] == CLASS
    new = await view.newest(0)
    assert new.slots[first : first + 2] == (None, one.address)
    assert new.slots_of(two.address) == 1
    assert new.owner_of(two.address) == one.address
    assert await agrees(contracts, old)
    assert await agrees(contracts, new)


async def test_every_block_agrees_with_the_contract(
    rpc: Rpc, contracts: Contracts, account, view: RegistryView
) -> None:
    staker = await account()
    start = (await rpc.block()).number
    await contracts.registry.buy_slots(staker, staker.address, 1)
    for numeric_class in (CLASS, b"\x0d" * 32, bytes(32), CLASS):  # set again before the one before counts
        await contracts.registry.set_class(staker, numeric_class)
    end = (await rpc.block()).number
    for number in range(start, end + 1):
        block = await rpc.block(number)
        assert await agrees(contracts, await view.at(number, block.hash))


async def test_a_class_that_comes_into_force_after_the_estimate_has_gas_to_be_written(
    rpc: Rpc, contracts: Contracts, account
) -> None:
    staker = await account()
    done = await contracts.registry.set_class(staker, CLASS)
    sent = await rpc.call("eth_getTransactionByHash", "0x" + done.mined.hash.hex())
    assert int(sent["gas"], 16) >= done.mined.gas_used * 5 // 4 + 22_100


async def test_a_waiting_class_counts_when_its_time_comes_without_any_event(
    rpc: Rpc, contracts: Contracts, account, view: RegistryView, until
) -> None:
    staker = await account()
    await contracts.registry.buy_slots(staker, staker.address, 1)
    said = (await contracts.registry.set_class(staker, CLASS)).mined.block_number
    assert staker.address not in (await view.at(said, (await rpc.block(said)).hash)).classes

    async def counts() -> bool:
        return (await view.newest(0)).classes.get(staker.address) == CLASS

    await until(counts)


async def test_a_block_of_another_chain_is_refused(rpc: Rpc, view: RegistryView) -> None:
    block = await rpc.block()
    for number, block_hash in ((block.number, b"\x01" * 32), (block.number + 1_000, block.hash), (10**12, block.hash)):
        with pytest.raises(RemoteError) as caught:
            await view.at(number, block_hash)
        assert caught.value.code == "wrong_block"


async def test_a_reorganisation_takes_back_what_it_took_from_the_chain(windable) -> None:
    own = windable
    async with Rpc(own.network.rpc_urls, chain_id=own.network.chain_id) as rpc:
        key = AccountKey.generate()
        await own.give(key.address)
        contracts = Contracts.of(rpc, own.network)
        view = RegistryView(rpc, contracts.registry, deployed_block=own.network.contracts.deployed_block)
        staker = Sender(rpc, key)
        await contracts.registry.buy_slots(staker, key.address, 1)
        snapshot = await rpc.call("evm_snapshot")
        await contracts.registry.buy_slots(staker, key.address, 3)
        lost = await rpc.block()
        seen = await view.at(lost.number, lost.hash)
        assert seen.slots_of(key.address) == 4
        assert await rpc.call("evm_revert", snapshot)
        assert (await view.newest(0)).slots_of(key.address) == 1
        with pytest.raises(RemoteError, match="another block"):
            await view.at(lost.number, lost.hash)  # also from what was kept ready
        await contracts.registry.buy_slots(staker, key.address, 1)
        assert (await view.newest(0)).slots_of(key.address) == 2


async def test_a_node_that_leaves_out_events_is_found_out(
    network: Network, contracts: Contracts, account, proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_view, "RETRY_S", 0.01)
    staker = await account()
    await contracts.registry.buy_slots(staker, staker.address, 1)

    def rule(request):
        if request["method"] != "eth_getLogs":
            return proxy.PASS
        return {"jsonrpc": "2.0", "id": request["id"], "result": []}

    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc:
        theirs = Contracts.of(rpc, network)
        view = RegistryView(rpc, theirs.registry, deployed_block=network.contracts.deployed_block)
        proxy.rule = rule
        with pytest.raises(ChainError) as caught:
            await view.newest(0)
        assert caught.value.code == "chain_unsettled"
        proxy.rule = lambda request: proxy.PASS
        assert (await view.newest(0)).slots_of(staker.address) == 1


async def test_looking_again_reads_only_what_is_new(network: Network, contracts, account, proxy) -> None:
    staker = await account()
    await contracts.registry.buy_slots(staker, staker.address, 1)
    starts: list[int] = []

    def rule(request):
        if request["method"] == "eth_getLogs":
            starts.append(int(request["params"][0]["fromBlock"], 16))
        return proxy.PASS

    proxy.rule = rule
    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc:
        view = RegistryView(rpc, Contracts.of(rpc, network).registry, deployed_block=network.contracts.deployed_block)
        await view.newest(0)
        head = (await rpc.block()).number
        await contracts.registry.buy_slots(staker, staker.address, 1)
        assert (await view.newest(0)).slots_of(staker.address) == 2
        asked = len(proxy.log)
        block = await rpc.block()
        await view.at(block.number, block.hash)
        await view.at(block.number, block.hash)  # kept ready: one look at the block's hash is all
        assert proxy.log.count("eth_getLogs") <= 3
        assert len(proxy.log) - asked < 12
    assert starts[0] == network.contracts.deployed_block
    assert min(starts[1:]) >= head - 1
