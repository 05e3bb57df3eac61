"""One case for each check of the chain client that the other tests pass by."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio

from tallymesh.errors import ChainError
from tallymesh.parameters import Parameters
from tallymesh_ledger import deploy
from tallymesh_ledger.chain import Rpc, abi, http, transactions
from tallymesh_ledger.chain.contract import Contract
from tallymesh_ledger.chain.envelope import Envelope
from tallymesh_ledger.keys import AccountKey

VIRTUAL_TIME = True  # nobody here waits for a real second

CHAIN = 4_242


class Escrow(Contract):
    NAME = "JobEscrow"


def answered(request: httpx.Request) -> httpx.Response:
    """A node that answers each batch but for its last request."""
    body = json.loads(request.content)
    asked = body[:-1] if isinstance(body, list) else [body]
    said = [{"jsonrpc": "2.0", "id": each["id"], "result": hex(CHAIN)} for each in asked]
    return httpx.Response(200, json=said if isinstance(body, list) else said[0])


async def test_an_answer_that_is_left_out_of_a_batch_is_missed_and_not_made_up() -> None:
    async with Rpc(["http://good.test/"], chain_id=CHAIN, transport=httpx.MockTransport(answered)) as rpc:
        with pytest.raises(ChainError, match="left eth_gasPrice out") as caught:
            await rpc.batch([("eth_chainId", []), ("eth_gasPrice", [])])
    assert caught.value.code == "chain_unavailable"


@pytest.mark.parametrize("arguments", [(), (bytes(20),), (bytes(20), 1, 2)])
def test_a_call_with_too_few_or_too_many_values_is_a_bug_of_ours_and_named(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match=f"takes 2 arguments, got {len(arguments)}"):
        abi.load("Registry").functions["buySlots"].encode(*arguments)


@pytest.mark.parametrize("parts", [(), (bytes(32),), (bytes(32), bytes(32), bytes(32))])
def test_a_struct_with_too_few_or_too_many_values_is_a_bug_of_ours_and_named(parts: tuple[bytes, ...]) -> None:
    signature = {"type": "tuple", "components": [{"name": "r", "type": "bytes32"}, {"name": "vs", "type": "bytes32"}]}
    with pytest.raises(TypeError, match=f"expected 2 values, got {len(parts)}"):
        abi._lower(parts, signature)


async def test_one_answer_to_a_batch_is_no_answer() -> None:
    def one(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": 0, "result": hex(CHAIN)})

    async with Rpc(["http://good.test/"], chain_id=CHAIN, transport=httpx.MockTransport(one)) as rpc:
        with pytest.raises(ChainError, match="did not answer"):
            await rpc.batch([("eth_chainId", []), ("eth_chainId", [])])


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 10)
    async with Rpc(["http://good.test/"], chain_id=CHAIN, transport=httpx.MockTransport(answered)) as rpc:
        with pytest.raises(ChainError, match="more than 10 bytes"):
            await rpc.chain_id()


def test_an_address_without_code_is_no_contract() -> None:
    escrow = Escrow(Rpc(["http://good.test/"], chain_id=CHAIN), bytes(20))
    with pytest.raises(ChainError, match="There is no JobEscrow at 0x0000") as caught:
        escrow._decode(escrow.interface.functions["creditOf"], "0x")
    assert caught.value.code == "no_contract"


@pytest.mark.parametrize("bound", ["IN_FLIGHT_MAX", "KEPT_MAX"])
async def test_an_account_sends_no_more_than_it_can_look_after(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked before anything is read or signed: nothing answers here."""
    monkeypatch.setattr(transactions, bound, 0)
    async with Rpc(["http://good.test/"], chain_id=CHAIN, transport=httpx.MockTransport(answered)) as rpc:
        with pytest.raises(ChainError) as caught:
            await transactions.Sender(rpc, AccountKey(b"\x01" * 32))._submit(bytes(20), b"", 0, 1, 1, b"", None)
    assert caught.value.code == "too_many_pending"


@pytest.mark.parametrize(
    "said", ["nonce too low", "Replacement transaction underpriced", "the nonce has already been used"]
)
async def test_a_nonce_that_another_transaction_took_is_named_so_that_the_next_one_is_tried(said: str) -> None:
    class Node:
        async def call(self, method: str, *_: object) -> None:
            await trio.lowlevel.checkpoint()
            if method == "eth_sendRawTransaction":
                raise ChainError("refused", said, reverted=False)

    node: Any = Node()
    sender = transactions.Sender(node, AccountKey(b"\x01" * 32))
    with pytest.raises(ChainError) as caught:
        await sender._courier._broadcast(Envelope(b"\x01", b"\x02" * 32))
    assert caught.value.code == "nonce_taken"


# ---- a deployment that something else was sent between


class Deployer:
    """A rich account on a chain that says what it is told: its next nonce, and which addresses have code."""

    def __init__(self, nonce: int, made: str) -> None:
        self.address = bytes(20)
        self.rpc = self
        self._nonce, self._codes = nonce, [("0x", "0x60")[letter == "1"] for letter in made]

    async def call(self, method: str, *_: object) -> str:
        await trio.lowlevel.checkpoint()
        return hex(self._nonce) if method == "eth_getTransactionCount" else self._codes.pop(0)

    async def refuse_short(self, *_: object) -> None:
        """It can pay for everything."""
        await trio.lowlevel.checkpoint()

    async def send(self, *_: object) -> Any:
        await trio.lowlevel.checkpoint()
        return SimpleNamespace(contract=b"\x09" * 20)


@pytest.mark.parametrize(
    ("nonce", "made", "left"),
    [(5, "00", 2), (6, "10", 1), (7, "11", 0), (8, "11", 0), (6, "01", None), (6, "00", None), (9, "11", None)],
)
async def test_a_deployment_goes_on_only_where_nothing_else_was_sent(nonce: int, made: str, left: int | None) -> None:
    """It began at nonce 5; the last transaction funds Rewards."""
    sender: Any = Deployer(nonce, made)
    addresses = [b"\x01" * 20, b"\x02" * 20]
    if left is not None:
        assert await deploy._missing(sender, deploy.Begun(5, 1), addresses) == left
        return
    with pytest.raises(ChainError) as caught:
        await deploy._missing(sender, deploy.Begun(5, 1), addresses)
    assert caught.value.code == "deploy_raced"


async def test_a_contract_that_is_made_elsewhere_ends_the_deployment() -> None:
    sender: Any = Deployer(5, "0" * 20)
    with pytest.raises(ChainError) as caught:
        await deploy.deploy(sender, Parameters(), begun=deploy.Begun(5, 1))
    assert caught.value.code == "deploy_raced"
