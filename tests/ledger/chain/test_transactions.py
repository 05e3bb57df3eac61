"""Sending: one account from several tasks and processes, lost and slow transactions, reasons of failures."""

from __future__ import annotations

import re

import httpx
import pytest
import trio
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from tallymesh.chain_facts import ANY_CHAIN
from tallymesh.errors import ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts, Rpc, Sender, courier, fees
from tallymesh_ledger.chain.envelope import Fees, Plain, contract_address, parse, sign
from tallymesh_ledger.chain.fees import NO_LIMITS
from tallymesh_ledger.chain.outbox import MemoryOutbox, Sent
from tallymesh_ledger.keys import AccountKey, checksum

HERE = b"\x51" * 20


@settings(max_examples=40, deadline=None)
@given(
    st.binary(min_size=32, max_size=32).filter(lambda secret: 0 < int.from_bytes(secret, "big") < 2**255),
    st.integers(1, 2**53),
    st.integers(0, 2**32),
    st.integers(0, 2**80),
    st.binary(max_size=100),
    st.booleans(),
)
def test_signed_bytes_are_those_of_eth_account(
    secret: bytes, chain_id: int, nonce: int, value: int, data: bytes, legacy: bool
) -> None:
    plain = Plain(
        chain_id=chain_id, nonce=nonce, gas=90_000, fees=Fees(7, 3, legacy=legacy), to=HERE, data=data, value=value
    )
    ours = sign(AccountKey(secret), plain)
    fees = {"gasPrice": 7} if legacy else {"maxFeePerGas": 7, "maxPriorityFeePerGas": 3, "type": 2}
    common = {"chainId": chain_id, "nonce": nonce, "gas": 90_000, "to": checksum(HERE), "value": value, "data": data}
    theirs = Account.sign_transaction({**common, **fees}, secret)
    assert ours.raw == bytes(theirs.raw_transaction)
    assert ours.hash == bytes(theirs.hash)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_salt_gives_other_bytes_of_the_same_transaction(legacy: bool) -> None:
    key = AccountKey(b"\7" * 32)
    plain = Plain(chain_id=5, nonce=1, gas=90_000, fees=Fees(7, 7 if legacy else 3, legacy=legacy), to=HERE, value=1)
    found = [sign(key, plain, salt=salt) for salt in (b"", b"\1" * 32, b"\2" * 32, b"\2" * 32)]
    assert len({each.raw for each in found}) == 3
    assert all(parse(each.raw) == plain for each in found)
    assert {Account.recover_transaction(each.raw) for each in found} == {checksum(key.address)}


async def test_two_processes_that_send_the_same_call_sign_different_bytes(network: Network, account, proxy) -> None:
    """Else "already known" would pass for success of both, and one transaction for two."""
    key = (await account())._key
    proxy.rule = Losing(proxy, lose=10**6)
    kept: list[Sent] = []
    for _ in range(2):
        outbox = MemoryOutbox()
        async with Rpc([proxy.url], chain_id=network.chain_id) as rpc, trio.open_nursery() as nursery:
            nursery.start_soon(Sender(rpc, key, outbox=outbox).send, HERE)
            while not await outbox.load(key.address, network.chain_id):  # noqa: ASYNC110 - until it is on disk
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        kept += await outbox.load(key.address, network.chain_id)
    one, two = kept
    assert one.nonce == two.nonce == 0
    assert parse(one.raw).gas == parse(two.raw).gas
    assert one.hash != two.hash


@pytest.mark.slow
async def test_tasks_of_one_sender_do_not_take_each_others_nonce(contracts: Contracts, account) -> None:
    sender = await account()
    before = await contracts.token.balance_of(HERE)
    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(contracts.token.transfer, sender, HERE, 1)
    assert await contracts.token.balance_of(HERE) == before + 30


async def test_two_processes_of_one_account_get_by(rpc: Rpc, contracts: Contracts, account) -> None:
    one = await account()
    two = Sender(rpc, one._key)
    async with trio.open_nursery() as nursery:
        for sender in (one, two) * 6:
            nursery.start_soon(sender.send, HERE)
    assert int(await rpc.call("eth_getTransactionCount", "0x" + one.address.hex(), "latest"), 16) == 12


async def test_a_restarted_process_goes_on_where_the_chain_says(rpc: Rpc, account) -> None:
    first = await account()
    await first.send(HERE)
    await first.send(HERE)
    again = Sender(rpc, first._key)
    await again.send(HERE)
    assert int(await rpc.call("eth_getTransactionCount", "0x" + first.address.hex(), "latest"), 16) == 3


async def test_a_call_that_would_revert_is_not_sent(rpc: Rpc, contracts: Contracts, account) -> None:
    sender = await account()
    with pytest.raises(ChainError) as caught:
        await contracts.token.transfer(sender, HERE, 10**30)
    assert caught.value.code == "erc20_insufficient_balance"
    assert int(await rpc.call("eth_getTransactionCount", "0x" + sender.address.hex(), "latest"), 16) == 0


async def test_the_reason_of_a_transaction_that_failed_in_its_block_is_found(contracts: Contracts, account) -> None:
    sender = await account()
    data = contracts.token.interface.functions["transfer"].encode(HERE, 10**30)
    with pytest.raises(ChainError) as caught:
        await sender.send(contracts.token.address, data, gas=200_000)
    assert caught.value.code == "erc20_insufficient_balance"


async def test_too_little_gas_is_named(contracts: Contracts, account) -> None:
    sender = await account()
    data = contracts.token.interface.functions["transfer"].encode(HERE, 1)
    with pytest.raises(ChainError) as caught:
        await sender.send(contracts.token.address, data, gas=30_000)
    assert caught.value.code == "out_of_gas"


async def test_an_account_without_gas_coin_is_told_so(rpc: Rpc) -> None:
    with pytest.raises(ChainError) as caught:
        await Sender(rpc, AccountKey.generate()).send(HERE, gas=21_000)
    assert caught.value.code == "no_gas_coin"
    needs = 21_000 * fees.least_up(fees.quote(await rpc.batch(fees.questions()), ANY_CHAIN, NO_LIMITS))
    said = re.match(r"Send at least (\d+\.\d+) ", caught.value.remedy)
    assert said is not None, caught.value.remedy
    assert needs / 2 < float(said[1]) * 10**18 < needs * 2, "the base fee may have moved since"


async def test_confirmations_are_waited_for(rpc: Rpc, account) -> None:
    sender = await account()
    mined = await sender.send(HERE, confirmations=1)
    assert (await rpc.block()).number >= mined.block_number + 1


async def test_a_created_contract_is_where_it_was_computed(rpc: Rpc, account) -> None:
    sender = await account()
    await sender.send(HERE)
    mined = await sender.send(b"", bytes.fromhex("600160005360016000f3"))  # code: one byte 0x01
    assert mined.contract == contract_address(sender.address, 1)
    assert await rpc.call("eth_getCode", "0x" + mined.contract.hex(), "latest") == "0x01"


class Losing:
    """A node that says yes to transactions and loses them."""

    def __init__(self, proxy, lose: int) -> None:
        self.proxy, self.lose, self.seen = proxy, lose, 0

    def __call__(self, request) -> object:
        if request["method"] != "eth_sendRawTransaction":
            return self.proxy.PASS
        self.seen += 1
        if self.seen > self.lose:
            return self.proxy.PASS
        return {"jsonrpc": "2.0", "id": request["id"], "result": "0x" + "00" * 32}


async def test_a_lost_transaction_is_sent_again_as_it_was(
    network: Network, account, proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "RESEND_S", 0.2)
    key = (await account())._key
    proxy.rule = Losing(proxy, lose=1)
    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc:
        await Sender(rpc, key).send(HERE, deadline_s=60)
        count = await rpc.call("eth_getTransactionCount", "0x" + key.address.hex(), "latest")
    assert int(count, 16) == 1


async def test_a_stuck_transaction_is_replaced_by_one_that_pays_more(
    network: Network, account, proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "BUMP_S", 0.2)
    key = (await account())._key
    proxy.rule = Losing(proxy, lose=1)
    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc:
        mined = await Sender(rpc, key).send(HERE, deadline_s=60)
        found = await rpc.call("eth_getTransactionByHash", "0x" + mined.hash.hex())
    assert int(found["maxPriorityFeePerGas"], 16) > 10**9


async def test_a_transaction_that_is_never_mined_ends_at_its_deadline(network: Network, account, proxy) -> None:
    key = (await account())._key
    proxy.rule = Losing(proxy, lose=10**6)
    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc:
        with pytest.raises(ChainError) as caught:
            await Sender(rpc, key).send(HERE, deadline_s=0.5)
    assert caught.value.code == "not_mined"
    assert not caught.value.reverted


async def test_a_send_survives_a_chain_that_is_away_for_a_moment(network: Network, account, proxy) -> None:
    key = (await account())._key
    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc, trio.open_nursery() as nursery:
        sender = Sender(rpc, key)
        await sender.send(HERE)
        proxy.rule = lambda request: 503

        async def comes_back() -> None:
            await trio.sleep(0.2)
            proxy.rule = lambda request: proxy.PASS

        nursery.start_soon(comes_back)
        await sender.send(HERE)


async def test_an_answer_lost_after_the_node_took_it_is_no_second_transaction(network: Network, account, proxy) -> None:
    key = (await account())._key
    lost: list[str] = []

    def rule(request) -> object:
        if request["method"] == "eth_sendRawTransaction" and not lost:
            lost.append(request["params"][0])
            answer = httpx.post(network.rpc_urls[0], json=request)
            assert "result" in answer.json()
            return 502
        return proxy.PASS

    proxy.rule = rule
    async with Rpc([proxy.url], chain_id=network.chain_id) as rpc:
        await Sender(rpc, key).send(HERE)
        count = await rpc.call("eth_getTransactionCount", "0x" + key.address.hex(), "latest")
    assert int(count, 16) == 1
