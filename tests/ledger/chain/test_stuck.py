"""Transactions that are not mined at once: known to the pool, dropped, replaced, taken back, left by a dead process."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from fakes.hardhat import Hardhat
from tallymesh.chain_facts import ANY_CHAIN, ChainFacts
from tallymesh.errors import ChainError, LocalError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts, Mined, Rpc, Sender, courier, fees, transactions
from tallymesh_ledger.chain.fees import NO_LIMITS, GasPolicy
from tallymesh_ledger.chain.outbox import FileOutbox, MemoryOutbox, Sent
from tallymesh_ledger.keys import AccountKey

GWEI = 10**9
PATIENCE_S = 240.0  # for what takes a tenth of a second on a machine of one's own


@pytest.fixture
def here() -> bytes:
    """An address that nobody ever sent anything to."""
    return AccountKey.generate().address


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[FileOutbox]:
    made = FileOutbox(tmp_path / "sent.sqlite")
    yield made
    made.close()


@pytest.fixture
async def held(rpc: Rpc, account, chain) -> AsyncIterator[Sender]:
    """An account with coin, on a chain that takes transactions and mines none until it is told to."""
    sender = await account()
    await rpc.call("evm_setAutomine", False)
    if isinstance(chain, Hardhat):  # its blocks by the clock hold transactions, the embedded chain's are empty
        await rpc.call("evm_setIntervalMining", 0)
    yield sender
    await rpc.call("evm_setAutomine", True)
    if isinstance(chain, Hardhat):
        await rpc.call("evm_setIntervalMining", chain.INTERVAL)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "RESEND_S", 0.1)
    monkeypatch.setattr(courier, "BUMP_S", 0.3)
    monkeypatch.setattr(transactions, "WATCH_S", 0.05)


async def count(rpc: Rpc, address: bytes, tag: str = "latest") -> int:
    return int(await rpc.call("eth_getTransactionCount", "0x" + address.hex(), tag), 16)


async def give_up(
    sender: Sender, to: bytes, data: bytes = b"", *, deadline_s: float = 0.3, arrives: bool = True, **call: Any
) -> None:
    """A caller that leaves before its transaction is mined, as one in a process that is killed: as soon as it was
    signed and, where it `arrives`, some node has it."""
    with trio.fail_after(PATIENCE_S):
        while True:
            with pytest.raises(ChainError) as caught:
                await sender.send(to, data, **{"value": 1, **call}, deadline_s=deadline_s)
            assert caught.value.code in ("not_mined", "chain_unavailable"), "a busy machine answers late, too"
            assert not caught.value.reverted
            signed = [each.envelopes[-1] for each in sender._pending.values()]
            if signed and (not arrives or all([await known(sender.rpc, each.hash) for each in signed])):
                return


async def replaced(sender: Sender, times: int) -> None:
    """Until the one transaction that it sent was replaced so often, at least, and a node has the newest."""
    with trio.fail_after(PATIENCE_S):
        while True:
            found = [pending.envelopes for pending in sender._pending.values()]
            if found and len(found[0]) > times and await known(sender.rpc, found[0][-1].hash):
                return
            await trio.sleep(0.02)


async def known(rpc: Rpc, hash_: bytes) -> bool:
    return await rpc.call("eth_getTransactionByHash", "0x" + hash_.hex()) is not None


@asynccontextmanager
async def running(sender: Sender) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.run)
        yield
        nursery.cancel_scope.cancel()


# ---- restarts


async def test_what_an_earlier_life_left_in_the_pool_is_waited_for_and_not_sent_twice(
    rpc: Rpc, here: bytes, outbox: FileOutbox, held: Sender
) -> None:
    key = held._key
    await give_up(Sender(rpc, key, outbox=outbox), here, value=7)
    again = Sender(rpc, key, outbox=outbox)
    mined: list[Mined] = []

    async def send() -> None:
        mined.append(await again.send(here, value=7))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with trio.fail_after(PATIENCE_S):
            while not again.unmined:  # noqa: ASYNC110 - until it has read what was left
                await trio.sleep(0.02)
        await trio.sleep(0.2)
        assert await count(rpc, key.address, "pending") == 1
        await rpc.call("evm_mine")
    assert len(mined) == 1
    assert await count(rpc, key.address) == 1
    assert await rpc.balance(here) == 7
    assert await outbox.load(key.address, await rpc.chain_id()) == []


async def test_bytes_that_never_left_the_dead_process_are_sent_by_the_next_one(
    network: Network, rpc: Rpc, account, here: bytes, outbox: FileOutbox, proxy, quick: None
) -> None:
    key = (await account())._key
    proxy.rule = lambda request: 503 if request["method"] == "eth_sendRawTransaction" else proxy.PASS
    async with Rpc([proxy.url], chain_id=network.chain_id, patience_s=0.2) as bad:
        await give_up(Sender(bad, key, outbox=outbox), here, deadline_s=1.0, arrives=False)
    assert await count(rpc, key.address) == 0
    again = Sender(rpc, key, outbox=outbox)
    async with running(again):
        with trio.fail_after(PATIENCE_S):
            while again.unmined or not await rpc.balance(here):  # noqa: ASYNC110 - the event is the chain's
                await trio.sleep(0.02)
    assert await count(rpc, key.address) == 1
    assert await rpc.balance(here) == 1


async def test_the_next_call_of_a_restarted_process_carries_what_was_lost_before_it(
    network: Network, rpc: Rpc, account, here: bytes, outbox: FileOutbox, proxy
) -> None:
    """Without `run`, and without a gap: the older nonce must reach the chain for the newer one to be mined."""
    key = (await account())._key
    proxy.rule = lambda request: 503 if request["method"] == "eth_sendRawTransaction" else proxy.PASS
    async with Rpc([proxy.url], chain_id=network.chain_id, patience_s=0.2) as bad:
        await give_up(Sender(bad, key, outbox=outbox), here, value=3, deadline_s=1.0, arrives=False)
    await Sender(rpc, key, outbox=outbox).send(here, value=5)
    assert await rpc.balance(here) == 8
    assert await count(rpc, key.address) == 2


async def test_what_was_mined_while_the_process_was_gone_may_be_asked_for_again(
    rpc: Rpc, here: bytes, outbox: FileOutbox, held: Sender
) -> None:
    key = held._key
    await give_up(Sender(rpc, key, outbox=outbox), here)
    await rpc.call("evm_mine")
    await rpc.call("evm_setAutomine", True)
    again = Sender(rpc, key, outbox=outbox)
    await again.send(here, value=1)  # its caller has seen the first one on the chain, and wants another
    assert await rpc.balance(here) == 2
    assert await outbox.load(key.address, await rpc.chain_id()) == []


@pytest.mark.slow
async def test_every_envelope_is_on_disk_before_it_is_sent(
    network: Network, account, here: bytes, outbox: FileOutbox, proxy, quick: None
) -> None:
    key = (await account())._key
    unkept: list[str] = []
    sent: list[str] = []

    def rule(request) -> object:
        if request["method"] != "eth_sendRawTransaction":
            return proxy.PASS
        sent.append(request["params"][0])
        kept = FileOutbox(outbox._path)._execute("SELECT raw FROM sent", ())
        if bytes.fromhex(sent[-1][2:]) not in [raw for (raw,) in kept]:
            unkept.append(sent[-1])
        lost = len(set(sent)) < 3  # two replacements
        return {"jsonrpc": "2.0", "id": request["id"], "result": "0x" + "00" * 32} if lost else proxy.PASS

    proxy.rule = rule
    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc:
        await Sender(rpc, key, outbox=outbox).send(here, deadline_s=PATIENCE_S)
    assert len(set(sent)) == 3
    assert unkept == []


async def test_a_disk_that_refuses_holds_the_transaction_back(rpc: Rpc, account, here: bytes) -> None:
    class Full(MemoryOutbox):
        async def keep(self, sent: Sent) -> None:
            raise LocalError("disk", "The disk is full.")

    sender = Sender(rpc, (await account())._key, outbox=Full())
    with pytest.raises(LocalError):
        await sender.send(here, value=1)
    assert await count(rpc, sender.address, "pending") == 0
    assert sender.unmined == 0


async def test_a_caller_that_tries_again_waits_for_its_first_try(rpc: Rpc, here: bytes, held: Sender) -> None:
    sender = held
    for _ in range(3):
        await give_up(sender, here)
    assert await count(rpc, sender.address, "pending") == 1
    await rpc.call("evm_mine")
    await sender.send(here, value=1)
    assert await rpc.balance(here) == 1


async def test_two_callers_of_the_same_call_at_once_are_two_calls(rpc: Rpc, account, here: bytes) -> None:
    sender = await account()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(functools.partial(sender.send, here, value=1))
    assert await rpc.balance(here) == 4


async def test_an_intent_finds_a_call_whose_bytes_differ(rpc: Rpc, here: bytes, held: Sender) -> None:
    sender = held
    await give_up(sender, here, b"one", gas=40_000, intent=b"pay the seat")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(sender.send, here, b"two", value=1, gas=40_000, intent=b"pay the seat"))
        await trio.sleep(0.1)
        await rpc.call("evm_mine")
    assert await count(rpc, sender.address, "pending") == 1


# ---- several processes of one account


async def test_two_processes_of_one_account_share_a_pool(rpc: Rpc, here: bytes, held: Sender) -> None:
    one = held
    two = Sender(rpc, one._key)
    async with trio.open_nursery() as nursery:
        for sender in (one, two, one):
            nursery.start_soon(functools.partial(sender.send, here, value=1))
        with trio.fail_after(PATIENCE_S):
            while await count(rpc, one.address, "pending") < 3:  # noqa: ASYNC110 - the event is the chain's
                await trio.sleep(0.02)
        await rpc.call("evm_mine")
        await rpc.call("evm_mine")
        await rpc.call("evm_setAutomine", True)
    assert await rpc.balance(here) == 3


async def test_a_nonce_that_another_process_used_up_is_noticed(
    network: Network, rpc: Rpc, account, here: bytes, proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "OUTRUN_S", 0.2)
    key = (await account())._key
    proxy.rule = lambda request: (
        {"jsonrpc": "2.0", "id": request["id"], "result": "0x" + "00" * 32}
        if request["method"] == "eth_sendRawTransaction"
        else proxy.PASS
    )
    async with Rpc([proxy.url], chain_id=network.chain_id) as losing, trio.open_nursery() as nursery:
        one = Sender(losing, key)

        async def other() -> None:
            while not one.unmined:  # noqa: ASYNC110 - until it has chosen its nonce
                await trio.sleep(0.02)
            await Sender(rpc, key).send(here, value=5)

        nursery.start_soon(other)
        with pytest.raises(ChainError) as caught:
            await one.send(here, value=9, deadline_s=PATIENCE_S)
    assert caught.value.code == "outrun"
    assert one.unmined == 0
    proxy.rule = lambda request: proxy.PASS
    assert await rpc.balance(here) == 5


# ---- replacing


async def test_a_replacement_that_the_pool_takes_is_the_only_one_mined(
    rpc: Rpc, here: bytes, held: Sender, quick: None
) -> None:
    sender = held
    mined: list[Mined] = []

    async def send() -> None:
        mined.append(await sender.send(here, value=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await replaced(sender, 1)
        await rpc.call("evm_mine")
    found = await rpc.call("eth_getTransactionByHash", "0x" + mined[0].hash.hex())
    assert int(found["nonce"], 16) == 0
    assert int(found["maxPriorityFeePerGas"], 16) >= GWEI * 125 // 100
    assert await rpc.balance(here) == 1
    assert await count(rpc, sender.address) == 1


@pytest.mark.slow
async def test_replacing_ends_after_some_times(
    rpc: Rpc, here: bytes, held: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "BUMP_S", 0.05)
    key = held._key
    box = MemoryOutbox()
    sender = Sender(rpc, key, outbox=box)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(sender.send, here, value=1))
        await replaced(sender, courier.BUMPS_MAX)
        await trio.sleep(1.2)  # it looks once a second by then
        nursery.cancel_scope.cancel()
    assert len(await box.load(key.address, await rpc.chain_id())) == 1 + courier.BUMPS_MAX


@pytest.mark.slow
async def test_a_stuck_transaction_is_not_replaced_over_the_owners_limit(
    rpc: Rpc, here: bytes, held: Sender, quick: None
) -> None:
    key = held._key
    asked = fees.quote(await rpc.batch(fees.questions()), ANY_CHAIN, NO_LIMITS).expected_wei
    limit = asked + asked // 20  # less than a replacement needs
    box = MemoryOutbox()
    await give_up(Sender(rpc, key, outbox=box, policy=GasPolicy(price_max_wei=limit)), here, deadline_s=1.0)
    kept = await box.load(key.address, await rpc.chain_id())
    assert len(kept) == 1
    found = await rpc.call("eth_getTransactionByHash", "0x" + kept[0].hash.hex())
    assert int(found["maxFeePerGas"], 16) <= limit


@pytest.mark.slow
async def test_a_chain_without_a_base_fee_is_paid_one_price(rpc: Rpc, here: bytes, held: Sender, quick: None) -> None:
    sender = Sender(rpc, held._key, facts=ChainFacts(fees="legacy"))
    mined: list[Mined] = []

    async def send() -> None:
        mined.append(await sender.send(here, value=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await replaced(sender, 1)
        await rpc.call("evm_mine")
    found = await rpc.call("eth_getTransactionByHash", "0x" + mined[0].hash.hex())
    assert found["type"] == "0x0"
    assert int(found["gasPrice"], 16) >= int(await rpc.call("eth_gasPrice"), 16)


# ---- looking after what was sent


async def test_who_looks_after_what_was_sent_rests_while_that_is_nothing(
    rpc: Rpc, here: bytes, held: Sender, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = 0
    load = Sender._load

    async def counted(self: Sender) -> None:
        nonlocal loads
        loads += 1
        await load(self)

    monkeypatch.setattr(Sender, "_load", counted)
    async with running(held):
        with trio.fail_after(PATIENCE_S):
            while not held._loaded:  # noqa: ASYNC110 - the event is the chain's
                await trio.sleep(0.02)
        looked = loads
        await trio.sleep(4 * transactions.WATCH_S)
        assert loads <= looked + 1, "it was at its first look"
        await give_up(held, here)  # … and is awake as soon as something is on its way
        await rpc.call("evm_mine")
        with trio.fail_after(PATIENCE_S):
            while held._pending:  # noqa: ASYNC110 - the event is the chain's
                await trio.sleep(0.02)


# ---- reorganisations


@pytest.mark.slow
async def test_a_transaction_that_a_reorganisation_took_back_is_sent_again(
    windable, here: bytes, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "BUMP_S", 2 * PATIENCE_S)  # else other bytes, for more, might be first
    key = AccountKey.generate()
    await windable.give(key.address)
    async with Rpc(windable.network.rpc_urls, chain_id=windable.network.chain_id) as rpc:
        sender = Sender(rpc, key, confirmations=3)
        snapshot = await rpc.call("evm_snapshot")
        first = await sender.send(here, value=4)
        assert await rpc.call("evm_revert", snapshot)
        assert await rpc.balance(here) == 0
        async with running(sender):
            with trio.fail_after(PATIENCE_S):  # the same bytes, in another block
                while not await rpc.call("eth_getTransactionReceipt", "0x" + first.hash.hex()):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            assert await rpc.balance(here) == 4
            for _ in range(3):
                await rpc.call("evm_mine")
            with trio.fail_after(PATIENCE_S):
                while sender._pending:  # noqa: ASYNC110 - the event is the chain's
                    await trio.sleep(0.02)
        assert await count(rpc, key.address) == 1


async def test_waiting_for_depth_starts_over_where_the_block_is_gone(windable, here: bytes, quick: None) -> None:
    key = AccountKey.generate()
    await windable.give(key.address)
    mined: list[Mined] = []
    async with Rpc(windable.network.rpc_urls, chain_id=windable.network.chain_id) as rpc:
        sender = Sender(rpc, key)
        snapshot = await rpc.call("evm_snapshot")

        async def send() -> None:
            mined.append(await sender.send(here, value=4, confirmations=4))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.fail_after(PATIENCE_S):
                while not await rpc.balance(here):  # noqa: ASYNC110 - the event is the chain's
                    await trio.sleep(0.02)
            first = (await rpc.block()).hash
            assert await rpc.call("evm_revert", snapshot)
            with trio.fail_after(PATIENCE_S):
                while not mined:
                    await rpc.call("evm_mine")
                    await trio.sleep(0.05)
        assert mined[0].block_hash != first
        assert (await rpc.block(mined[0].block_number)).hash == mined[0].block_hash
        assert (await rpc.block()).number >= mined[0].block_number + 4


# ---- what gas costs


async def test_gas_over_the_limit_is_not_bought(rpc: Rpc, account, here: bytes) -> None:
    sender = Sender(rpc, (await account())._key, policy=GasPolicy(price_max_wei=5))
    with pytest.raises(ChainError) as caught:
        await sender.send(here, value=1)
    assert caught.value.code == "gas_too_dear"
    assert await count(rpc, sender.address, "pending") == 0


async def test_redeeming_at_a_loss_is_refused_before_anything_is_sent(contracts: Contracts, account) -> None:
    key = (await account())._key
    dear = Sender(contracts.token.rpc, key, policy=GasPolicy(coin_price_wei=10**18))
    data = contracts.token.interface.functions["transfer"].encode(key.address, 1)
    used = await dear._estimate(contracts.token.address, data, 0)
    with pytest.raises(ChainError) as caught:
        await dear.send(contracts.token.address, data, brings_wei=used)  # a wei a gas, and gas costs more than a wei
    assert caught.value.code == "not_worth_gas"
    assert await count(contracts.token.rpc, key.address, "pending") == 0
    await dear.send(contracts.token.address, data, brings_wei=10**18)
    await Sender(contracts.token.rpc, key).send(contracts.token.address, data, brings_wei=0)  # no price, no loss
    assert await count(contracts.token.rpc, key.address) == 2


async def test_an_account_that_is_short_is_told_which_coin_and_how_much(rpc: Rpc, account, here: bytes) -> None:
    key = (await account())._key
    sender = Sender(rpc, key, facts=ChainFacts(coin="TFUEL"))
    has = await rpc.balance(key.address)
    with pytest.raises(ChainError) as caught:
        await sender.send(here, value=has, gas=21_000)
    assert caught.value.code == "no_gas_coin"
    assert "TFUEL" in caught.value.sentence
    assert "TFUEL" in caught.value.remedy
    assert await count(rpc, key.address, "pending") == 0


async def test_a_fee_for_the_bytes_is_counted_in(rpc: Rpc, account, here: bytes) -> None:
    patron = await account()
    # code: return 2 ** 96 whatever is asked, as a roll-up's oracle that asks too much for anybody
    code = "600d600c600039600d6000f3" + "600160601b60005260206000f3"
    made = await patron.send(b"", bytes.fromhex(code), gas=200_000)
    oracle = "0x" + (made.contract or b"").hex()
    assert int(await rpc.call("eth_call", {"to": oracle}, "latest"), 16) == 1 << 96
    sender = Sender(rpc, patron._key, facts=ChainFacts(data_fee_oracle=oracle))
    with pytest.raises(ChainError) as caught:
        await sender.send(here, value=1)
    assert caught.value.code == "no_gas_coin"
    assert ANY_CHAIN.coin_name in caught.value.sentence
