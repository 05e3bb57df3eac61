"""The embedded chain as its clients see it: clock, logs, batches, refusals, faucet, restarts."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import trio

from tallymesh.errors import CallerError, ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts, Rpc, Sender
from tallymesh_ledger.chain.envelope import Fees, Plain, sign
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.embedded_chain import development_parameters, evm
from tallymesh_ledger.embedded_chain.evm import Evm
from tallymesh_ledger.embedded_chain.faucet import GIFTS_PER_ADDRESS, Faucet
from tallymesh_ledger.embedded_chain.methods import Methods
from tallymesh_ledger.embedded_chain.pool import WAITING_PER_SENDER
from tallymesh_ledger.embedded_chain.store import Store
from tallymesh_ledger.keys import AccountKey

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


HERE = b"\x52" * 20


@pytest.fixture(scope="session")
def chain(embedded):
    """No other one here."""
    return embedded


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Bench:
    """A chain in this process, on a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock(1_800_000_000.0)
        self.key = AccountKey.generate()
        self.store = Store(folder / "chain.sqlite", durable=False)
        self.evm = Evm(self.store, 777_000_777, {self.key.address: 10**24}, self.clock)
        self.methods = Methods(self.evm, self.store)

    def raw(
        self, nonce: int, *, chain_id: int = 777_000_777, value: int = 1, data: bytes = b"", to: bytes = HERE
    ) -> str:
        plain = Plain(
            chain_id=chain_id, nonce=nonce, gas=300_000, fees=Fees(10**10, 10**9), to=to, value=value, data=data
        )
        return "0x" + sign(self.key, plain).raw.hex()

    def send(self, nonce: int, **more) -> str:
        return self.methods.call("eth_sendRawTransaction", [self.raw(nonce, **more)])

    def receipt(self, hash_: str):
        return self.methods.call("eth_getTransactionReceipt", [hash_])


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path)
    yield made
    made.store.close()


# ---- the clock


async def test_newest_block_is_within_three_seconds_of_the_clock_after_a_burst(
    rpc: Rpc, contracts, account, until
) -> None:
    sender = await account()
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(contracts.token.transfer, sender, HERE, 1)
    assert (await rpc.block()).timestamp < time.time() + 3
    await until(partial(follows_the_clock, rpc))


async def follows_the_clock(rpc: Rpc) -> bool:
    """Whether the newest block is within 3 s of the clock; of a chain that stood still, a second after it goes on."""
    asked = time.time()
    return asked - 3 < (await rpc.block()).timestamp < time.time() + 3


async def test_an_idle_chain_mines_a_block_every_second(rpc: Rpc, until) -> None:
    first = await rpc.block()
    with trio.fail_after(240):
        while (await rpc.block()).number < first.number + 2:  # noqa: ASYNC110 - the event is the chain's
            await trio.sleep(0.1)
    await until(partial(follows_the_clock, rpc))
    newest = await rpc.block()
    blocks = [await rpc.block(number) for number in range(first.number, newest.number + 1)]
    assert all(after.timestamp > before.timestamp for before, after in itertools.pairwise(blocks)), "not more often"


def test_block_times_follow_the_clock_and_never_go_back(bench: Bench) -> None:
    for nonce in range(3):
        bench.send(nonce)
    bench.clock.now += 100
    bench.send(3)
    bench.clock.now -= 50
    bench.send(4)
    times = [bench.evm.header(number).timestamp - 1_800_000_000 for number in range(6)]
    assert times == [0, 0, 0, 0, 100, 100]


def test_a_contract_sees_the_time_and_hash_of_its_blocks(bench: Bench) -> None:
    # code: store TIMESTAMP at 0 and BLOCKHASH(NUMBER - 1) at 1
    code = "42600055600143034060015500"
    made = bench.receipt(bench.send(0, to=b"", value=0, data=bytes.fromhex("600d600c600039600d6000f3" + code)))
    bench.clock.now += 40
    bench.send(1, to=bytes.fromhex(made["contractAddress"][2:]), value=0)
    stored = [bench.methods.call("eth_getStorageAt", [made["contractAddress"], hex(i)]) for i in range(2)]
    assert int(stored[0], 16) == 1_800_000_040
    assert stored[1] == made["blockHash"]


# what a contract returns (a word), and how often five calls in blocks with and without a change of its state run it
VIEWS = {
    "TIMESTAMP": ("42", 5),
    "NUMBER": ("43", 5),
    "BLOCKHASH": ("6001430340", 5),
    "PREVRANDAO": ("44", 5),
    "SLOAD": ("600054", 2),
    "SELFBALANCE": ("47", 2),
}


@pytest.mark.parametrize("name", VIEWS)
def test_an_answer_is_kept_while_what_it_rests_on_is_the_same(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, runs = VIEWS[name]
    # called with data it stores the time in slot 0, without any it returns a word
    offset = len(bytes.fromhex(code)) + 12
    body = f"3660{offset:02x}57{code}60005260206000f35b4260005500"
    size = len(bytes.fromhex(body))
    made = bench.receipt(
        bench.send(0, to=b"", value=0, data=bytes.fromhex(f"60{size:02x}600c60003960{size:02x}6000f3" + body))
    )
    contract = made["contractAddress"]
    count = 0
    inner = Evm._run

    def counted(self, request, header):
        nonlocal count
        count += 1
        return inner(self, request, header)

    monkeypatch.setattr(Evm, "_run", counted)
    seen = []
    for step in range(5):
        bench.clock.now += 40
        if step == 3:
            bench.send(1, to=bytes.fromhex(contract[2:]), value=7, data=b"1")
        else:
            bench.methods.call("evm_mine", [])
        asked = [bench.methods.call("eth_call", [{"to": contract}]) for _ in range(2)]
        again = bench.evm._answers.copy()
        bench.evm._answers.clear()
        assert [bench.methods.call("eth_call", [{"to": contract}])] * 2 == asked, "what was kept is what would come out"
        bench.evm._answers = again
        count -= 1
        seen.append(asked[0])
    assert count == runs
    assert len(set(seen)) == runs


def test_kept_answers_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evm, "KEPT_CALLS", 3)
    for size in (1, 2, 3, 4, 5, evm.KEPT_BYTES + 1):
        bench.methods.call("eth_call", [{"to": "0x" + HERE.hex(), "data": "0x" + "11" * size}])
    assert [len(request.data) for _, request in bench.evm._answers] == [3, 4, 5]


# ---- transactions


def test_a_transaction_for_another_chain_is_refused(bench: Bench) -> None:
    with pytest.raises(Exception, match="invalid chain id"):
        bench.send(0, chain_id=1)
    assert bench.evm.head.block_number == 0


def test_a_used_nonce_is_refused_and_nothing_changes(bench: Bench) -> None:
    bench.send(0)
    head = bench.evm.head
    with pytest.raises(Exception, match="nonce too low"):
        bench.send(0, value=2)
    with pytest.raises(Exception, match="insufficient funds"):
        bench.send(1, value=10**25)
    with pytest.raises(Exception, match="already known"):
        bench.send(0)
    assert bench.evm.head == head


def test_transactions_that_overtook_each_other_are_mined_in_order(bench: Bench) -> None:
    late = [bench.send(nonce) for nonce in (2, 1)]
    assert [bench.receipt(hash_) for hash_ in late] == [None, None]
    first = bench.send(0)
    numbers = [int(bench.receipt(hash_)["blockNumber"], 16) for hash_ in (first, late[1], late[0])]
    assert numbers == [1, 2, 3]


def test_the_queue_of_early_transactions_is_bounded(bench: Bench) -> None:
    for nonce in range(1, WAITING_PER_SENDER + 1):
        bench.send(nonce)
    with pytest.raises(Exception, match="txpool is full"):
        bench.send(WAITING_PER_SENDER + 1)
    bench.send(0)
    assert bench.methods.call("eth_getTransactionCount", ["0x" + bench.key.address.hex()]) == hex(
        WAITING_PER_SENDER + 1
    )


def test_a_reverting_call_passes_the_contracts_data_on(bench: Bench) -> None:
    # code: revert with the four bytes 0xdeadbeef
    code = "63deadbeef6000526004601cfd"
    made = bench.receipt(bench.send(0, to=b"", value=0, data=bytes.fromhex("600d600c600039600d6000f3" + code)))
    for method in ("eth_call", "eth_estimateGas"):
        with pytest.raises(Exception, match="reverted") as caught:
            bench.methods.call(method, [{"to": made["contractAddress"]}])
        assert caught.value.shown() == {"code": 3, "message": "execution reverted", "data": "0xdeadbeef"}
    failed = bench.receipt(bench.send(1, to=bytes.fromhex(made["contractAddress"][2:]), value=0))
    assert failed["status"] == "0x0"


def test_an_estimate_suffices_and_is_close(bench: Bench) -> None:
    request = {"from": "0x" + bench.key.address.hex(), "to": "0x" + HERE.hex(), "value": "0x1"}
    estimate = int(bench.methods.call("eth_estimateGas", [request]), 16)
    assert estimate == 21_000


def test_old_states_can_be_asked(bench: Bench) -> None:
    bench.send(0, value=5)
    bench.send(1, value=6)
    shown = [bench.methods.call("eth_getBalance", ["0x" + HERE.hex(), hex(n)]) for n in range(3)]
    assert shown == ["0x0", "0x5", "0xb"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_getBalance", []),
        ("eth_getBalance", ["0x12"]),
        ("eth_getBalance", [["0x" + "11" * 20]]),
        ("eth_getBalance", ["0x" + "11" * 20, "0xfffffff"]),
        ("eth_getBlockByNumber", [{"a": 1}, 2, 3]),
        ("eth_getBlockByNumber", ["-0x5"]),
        ("eth_call", ["text"]),
        ("eth_call", [{"to": 5}]),
        ("eth_call", [{"to": "0x" + "11" * 20, "gas": "0x" + "f" * 70}]),
        ("eth_sendRawTransaction", ["0x"]),
        ("eth_sendRawTransaction", ["0x02c0"]),
        ("eth_sendRawTransaction", ["0xf8" + "ff" * 80]),
        ("eth_getLogs", []),
        ("eth_getLogs", [{"topics": "0x11"}]),
        ("eth_getLogs", [{"topics": [None] * 5}]),
        ("eth_getLogs", [{"blockHash": "0x" + "11" * 32}]),
        ("eth_getLogs", [{"fromBlock": "0x" + "f" * 40}]),
        ("eth_getStorageAt", ["0x" + "11" * 20, "0x" + "f" * 70]),
        ("eth_feeHistory", ["0x5", "latest", 7]),
        ("evm_revert", ["0x63"]),
        ("nonsense", []),
    ],
)
def test_nonsense_gets_an_answer_or_a_refusal_and_leaves_the_chain_alone(
    bench: Bench, method: str, params: list
) -> None:
    from tallymesh_ledger.embedded_chain.methods import RpcFailure

    try:
        assert bench.methods.call(method, params) in (None, False)
    except RpcFailure as error:
        json.dumps(error.shown())
    bench.send(0)
    assert bench.evm.head.block_number == 1


async def test_deeply_nested_requests_do_not_end_the_process(network: Network) -> None:
    async with httpx.AsyncClient(verify=False) as http:
        for body in (b"[" * 500_000, b'{"a":' * 200_000, b"", b"5", b"[]", b"[1]", b'{"method": 5}', b"\xff"):
            answer = await http.post(network.rpc_urls[0], content=body)
            assert "error" in (answer.json()[0] if isinstance(answer.json(), list) else answer.json())
        answer = await http.post(network.rpc_urls[0], json=[{"method": "eth_chainId", "id": 1}] * 1_001)
        assert answer.json()["error"]["code"] == -32600


# ---- reorganisations


def test_wound_back_blocks_are_gone_and_others_take_their_place(bench: Bench) -> None:
    bench.send(0)
    snapshot = bench.methods.call("evm_snapshot", [])
    gone = bench.send(1, value=7)
    lost = bench.receipt(gone)
    assert bench.methods.call("evm_revert", [snapshot]) is True
    assert bench.receipt(gone) is None
    assert bench.methods.call("eth_getBlockByHash", [lost["blockHash"], False]) is None
    assert bench.methods.call("eth_getBalance", ["0x" + HERE.hex()]) == "0x1"
    bench.send(1, value=9)
    assert bench.methods.call("eth_getBlockByNumber", [lost["blockNumber"]])["hash"] != lost["blockHash"]
    assert bench.methods.call("evm_revert", [snapshot]) is False


# ---- logs


async def test_logs_over_hundreds_of_blocks_come_at_once(embedded, rpc: Rpc, contracts: Contracts, account) -> None:
    sender = await account()
    start = (await rpc.block()).number + 1
    for _ in range(300):
        await rpc.call("evm_mine")
    for _ in range(5):
        await contracts.token.transfer(sender, HERE, 1)
    end = (await rpc.block()).number
    topics = [contracts.token.interface.topics["Transfer"], sender.address.rjust(32, b"\0")]
    worker = psutil.Process(embedded.process.pid)
    before = sum(worker.cpu_times()[:2])
    logs = await read_logs(rpc, contracts.token.address, topics, start, end)
    assert sum(worker.cpu_times()[:2]) - before < 1  # of CPU: 7.8 s where every block is opened; 3 ms from the index
    assert len(logs) == 5
    values = [contracts.token.interface.event(log).values["value"] for log in logs]
    assert values == [1] * 5
    by_hash = await rpc.call("eth_getLogs", {"blockHash": logs[0]["blockHash"]})
    assert by_hash == [logs[0]]
    assert await read_logs(rpc, HERE, topics, start, end) == []
    assert await read_logs(rpc, contracts.token.address, [topics[0], None, topics[1]], start, end) == []


async def test_pages_are_made_smaller_where_the_node_asks_for_it(network: Network, contracts, account, proxy) -> None:
    sender = await account()
    await contracts.token.transfer(sender, HERE, 1)

    def rule(request):
        if request["method"] != "eth_getLogs":
            return proxy.PASS
        wanted = request["params"][0]
        if int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) >= 100:
            error = {"code": -32005, "message": "query returned more than 10000 results"}
            return {"jsonrpc": "2.0", "id": request["id"], "error": error}
        return proxy.PASS

    async with Rpc([*network.rpc_urls], chain_id=network.chain_id) as rpc:
        while (end := (await rpc.block()).number) < 150:
            await rpc.call("evm_mine")
        topics = [contracts.token.interface.topics["Transfer"]]
        whole = await read_logs(rpc, contracts.token.address, topics, 0, end)
        proxy.rule = rule
        async with Rpc([proxy.url], chain_id=network.chain_id) as limited:
            assert await read_logs(limited, contracts.token.address, topics, 0, end) == whole


# ---- any client


async def test_web3_gets_along_with_it(network: Network, account) -> None:
    limit = sys.getrecursionlimit()
    from web3 import HTTPProvider, Web3

    sys.setrecursionlimit(limit)
    sender = await account()

    def use() -> int:
        web3 = Web3(HTTPProvider(network.rpc_urls[0]))
        who = web3.eth.account.from_key(sender._key.secret)
        assert web3.eth.chain_id == network.chain_id
        transaction = {
            "from": who.address, "to": web3.to_checksum_address(HERE), "value": 1, "chainId": network.chain_id,
            "nonce": web3.eth.get_transaction_count(who.address),
            "gas": 21_000, "maxFeePerGas": web3.eth.gas_price * 2, "maxPriorityFeePerGas": web3.eth.max_priority_fee,
        }  # fmt: skip
        hash_ = web3.eth.send_raw_transaction(who.sign_transaction(transaction).raw_transaction)
        receipt = web3.eth.wait_for_transaction_receipt(hash_)
        block = web3.eth.get_block(receipt["blockNumber"], full_transactions=True)
        assert block["transactions"][0]["hash"] == hash_
        assert web3.eth.fee_history(4, "latest", [50])["baseFeePerGas"]
        assert web3.eth.get_transaction(hash_)["from"] == who.address
        return int(receipt["status"])

    assert await trio.to_thread.run_sync(use) == 1


# ---- faucet


async def test_the_faucet_is_bounded_for_each_address(network: Network, rpc: Rpc, contracts: Contracts) -> None:
    someone = AccountKey.generate().address
    async with httpx.AsyncClient(verify=False) as http:
        for _ in range(GIFTS_PER_ADDRESS):
            assert (await http.post(network.faucet, json={"address": "0x" + someone.hex()})).status_code == 200
        had = await contracts.token.balance_of(someone)
        refused = await http.post(network.faucet, json={"address": "0x" + someone.hex()})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "faucet_limit"
        for nonsense in ({}, {"address": "0x12"}, {"address": 5}, [1]):
            assert (await http.post(network.faucet, json=nonsense)).status_code == 400
    assert await contracts.token.balance_of(someone) == had > 0
    assert await rpc.balance(someone) > 0


def test_the_faucet_is_bounded_in_total(monkeypatch: pytest.MonkeyPatch) -> None:
    from tallymesh_ledger.embedded_chain import faucet

    monkeypatch.setattr(faucet, "GIFTS_MAX", 2)
    made = Faucet(AccountKey.generate(), 5, HERE, lambda method, params: "0x1")
    made.give(b"\1" * 20)
    made.give(b"\2" * 20)
    with pytest.raises(CallerError) as caught:
        made.give(b"\3" * 20)
    assert caught.value.code == "faucet_empty"


# ---- life


async def test_a_kept_chain_is_found_again_after_kill_nine(start_chain) -> None:
    first = start_chain("--state")
    key = AccountKey.generate()
    async with httpx.AsyncClient(verify=False) as http:
        await http.post(first.network.faucet, json={"address": "0x" + key.address.hex()})
    async with Rpc(first.network.rpc_urls, chain_id=first.network.chain_id) as rpc:
        mined = await Sender(rpc, key).send(HERE, value=3)
    first.stop(signal.SIGKILL)
    second = start_chain("--state")
    assert second.network.chain_id == first.network.chain_id
    assert second.network.contracts == first.network.contracts
    async with Rpc(second.network.rpc_urls, chain_id=second.network.chain_id) as rpc:
        assert (await rpc.block(mined.block_number)).hash == mined.block_hash
        assert await rpc.balance(HERE) == 3
        assert await Contracts.of(rpc, second.network).token.balance_of(key.address) > 0
        await Sender(rpc, key).send(HERE)
    assert second.stop(signal.SIGINT) == 0
    assert set(os.listdir(second.folder)) >= {"network.json", "chain.sqlite", "chain.json"}


async def test_a_new_chain_is_another_chain(chain, other_chain) -> None:
    assert other_chain.network.chain_id != chain.network.chain_id
    async with Rpc(other_chain.network.rpc_urls, chain_id=chain.network.chain_id) as rpc:
        with pytest.raises(ChainError, match="network file"):
            await rpc.block()


def test_development_parameters_are_seconds_in_their_proper_order() -> None:
    made = development_parameters()
    assert made.unbonding_s >= 2 * (made.claim_window_s + made.evidence_window_s + made.lock_tail_s)
    assert made.offer_lifetime_s > made.offer_period_s
    assert made.lease_max_s > made.unbonding_s
