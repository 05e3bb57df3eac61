"""A network of one's own by one command, on both chains; what an old EVM lacks is found before anything is paid."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from fakes import hardhat as hardhats
from fakes.hardhat import Hardhat
from fakes.shell import CliRunner
from tallymesh import network as networks
from tallymesh.chain_facts import ChainFacts
from tallymesh.errors import ChainError
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import Contracts, Rpc, Sender, machine
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.cli.app import app

pytestmark = pytest.mark.slow  # ten contracts' creation a test


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("TALLYMESH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def call(*arguments: str, code: int = 0) -> dict:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


@pytest.fixture
def owner(home: Path, chain) -> bytes:
    """The wallet's account, with coin."""
    address = bytes.fromhex(call("wallet", "create")["address"][2:])
    trio.run(chain.give, address)
    return address


def test_one_command_puts_the_contracts_on_a_chain_and_records_where(chain, owner: bytes, tmp_path: Path) -> None:
    out, terms = tmp_path / "mine.json", tmp_path / "terms.json"
    terms.write_text(json.dumps({"unbonding_s": 77, "claim_window_s": 5, "evidence_window_s": 2}))
    asked = ["--rpc", chain.url, "--name", "mine", "--parameters", str(terms), "--out", str(out), "--yes"]
    told = call("network", "deploy", *asked)
    made = networks.load(out)
    assert made.name == "mine"
    assert made.chain_id == told["chain_id"] == chain.network.chain_id
    assert made.contracts.escrow == told["escrow"] != chain.network.contracts.escrow
    assert made.rpc_urls == (chain.url,)
    assert made.faucet == ""
    assert 0 < told["deployed_block"] == made.contracts.deployed_block

    async def look() -> None:
        async with Rpc(made.rpc_urls, chain_id=made.chain_id) as rpc:
            contracts = Contracts.of(rpc, made)
            assert await contracts.registry.read("escrow") == contracts.escrow.address
            assert await contracts.registry.read("unbondingDelay") == 77
            assert await contracts.token.balance_of(owner) > 0

    trio.run(look)
    again = call("network", "deploy", "--rpc", chain.url, "--out", str(out), "--yes", code=1)
    assert again["error"]["code"] == "file_exists"
    assert networks.load(out) == made


def test_a_deployment_that_breaks_off_is_gone_on_with(
    chain, owner: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mine.json"
    command = ["network", "deploy", "--rpc", chain.url, "--name", "mine", "--out", str(out), "--yes"]
    send, sent = Sender.send, []

    async def breaks(self: Sender, *arguments: Any, **options: Any) -> Any:
        if len(sent) == fails_at:
            raise ChainError("chain_unavailable", "The chain went away.", reverted=False)
        sent.append(await send(self, *arguments, **options))
        return sent[-1]

    monkeypatch.setattr(Sender, "send", breaks)
    for fails_at in (0, 3, 8):  # noqa: B007 - read by `breaks`; before the first, in the middle, before what is for rewards
        assert call(*command, code=1)["error"]["code"] == "chain_unavailable"
        assert not out.exists()
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({"unbonding_s": 77}))
    other = call(*command, "--parameters", str(terms), code=1)["error"]
    assert (other["code"], "was of another parameters" in other["sentence"]) == ("other_deployment", True)
    fails_at = -1
    told = call(*command)
    assert len(sent) == 9, "nothing is made twice"
    made = networks.load(out)
    assert [each.contract for each in sent[:3]] == [
        bytes.fromhex(told[name][2:]) for name in ("token", "registry", "escrow")
    ]
    assert made.contracts.deployed_block <= sent[0].block_number
    assert not out.with_name("mine.json.begun").exists()

    async def look() -> None:
        async with Rpc(made.rpc_urls, chain_id=made.chain_id) as rpc:
            contracts = Contracts.of(rpc, made)
            assert await contracts.token.balance_of(bytes.fromhex(told["rewards"][2:])) == made.parameters.rewards_wei
            assert await contracts.registry.read("escrow") == contracts.escrow.address

    trio.run(look)


def test_a_deployment_is_not_gone_on_with_after_something_else_was_sent(
    chain, owner: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mine.json"
    command = ["network", "deploy", "--rpc", chain.url, "--out", str(out), "--yes"]
    send, count = Sender.send, 0

    async def breaks(self: Sender, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            await send(self, b"\x11" * 20, value=1)
            raise ChainError("chain_unavailable", "The chain went away.", reverted=False)
        return await send(self, *arguments, **options)

    monkeypatch.setattr(Sender, "send", breaks)
    assert call(*command, code=1)["error"]["code"] == "chain_unavailable"
    assert call(*command, code=1)["error"]["code"] == "deploy_raced"
    assert networks.load(Path(call(*command)["network"])).contracts.escrow, "the next one begins anew"


def test_a_preset_of_another_chain_is_refused_before_anything_is_sent(chain, owner: bytes, tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    told = call("network", "deploy", "--preset", "sepolia", "--rpc", chain.url, "--out", str(out), "--yes", code=1)
    assert told["error"]["code"] == "wrong_chain"
    assert not out.exists()


def test_an_account_without_coin_is_told_so(chain, home: Path, tmp_path: Path) -> None:
    call("wallet", "create")
    told = call("network", "deploy", "--rpc", chain.url, "--out", str(tmp_path / "x.json"), "--yes", code=1)
    assert told["error"]["code"] == "no_gas_coin"
    assert told["error"]["remedy"].startswith("Send at least 0.")
    assert list(tmp_path.glob("x.json*")) == [], "nothing was sent: other terms may be given"


def test_coin_for_the_first_contracts_alone_is_too_little(
    chain, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("wallet", "create")
    real = Sender._nonce_balance_price
    whole = 0

    async def with_so_much(self: Sender) -> Any:
        nonce, _, price = await real(self)
        return nonce, whole, price

    async def never(self: Sender, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("something was sent")

    monkeypatch.setattr(Sender, "_nonce_balance_price", with_so_much)
    monkeypatch.setattr(Sender, "send", never)
    command = ["network", "deploy", "--rpc", chain.url, "--out", str(tmp_path / "x.json"), "--yes"]
    said = re.search(r"the deployment needs up to (\d+\.\d+)", call(*command, code=1)["error"]["sentence"])
    assert said is not None
    whole = int(float(said[1]) * 10**18) * 4 // 5
    assert call(*command, code=1)["error"]["code"] == "no_gas_coin"


def test_without_a_chain_nothing_is_asked_for(home: Path) -> None:
    assert call("network", "deploy", "--yes", code=1)["error"]["code"] == "no_rpc"
    assert call("network", "deploy", "--preset", "nowhere", "--yes", code=1)["error"]["code"] == "unknown_preset"
    assert len(call("network", "presets")) >= 10  # type: ignore[arg-type]


async def test_both_chains_know_every_instruction_that_the_contracts_hold(rpc: Rpc) -> None:
    assert await machine.missing(rpc, machine.bytecodes()) == []
    assert await machine.missing(rpc, [bytes(sorted(machine._YOUNG))]) == []


# ---- a chain of before London, as Theta's is


@pytest.fixture(scope="module")
def berlin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hardhat]:
    if not hardhats.installed():
        pytest.skip("hardhat is not installed: scripts/contracts build")
    made = Hardhat(tmp_path_factory.mktemp("berlin"), Parameters(), hardfork="berlin")
    yield made
    made.stop()


async def test_a_chain_without_a_base_fee_is_noticed_and_paid_one_price(berlin: Hardhat) -> None:
    here = AccountKey.generate().address
    async with Rpc([berlin.url], chain_id=berlin.chain_id) as rpc:
        assert (await rpc.block()).base_fee is None
        mined = await Sender(rpc, berlin.key).send(here, value=3)
        found = await rpc.call("eth_getTransactionByHash", "0x" + mined.hash.hex())
        assert found["type"] == "0x0"
        assert "maxFeePerGas" not in found
        assert await rpc.balance(here) == 3
        with pytest.raises(ChainError) as caught:
            await Sender(rpc, berlin.key, facts=ChainFacts(fees="eip1559")).send(here, value=3)
        assert caught.value.code == "wrong_fee_model"


async def test_what_a_real_old_evm_lacks_is_found(berlin: Hardhat) -> None:
    async with Rpc([berlin.url], chain_id=berlin.chain_id) as rpc:
        lacks = await machine.missing(rpc, [bytes(sorted(machine._YOUNG))])
    assert [name.split()[0] for name in lacks] == ["BASEFEE", "TLOAD", "TSTORE", "MCOPY", "PUSH0"]


def test_deploying_there_is_refused_before_anything_is_paid(berlin: Hardhat, home: Path, tmp_path: Path) -> None:
    """What can be made there is another kind of network, and has to be asked for (test_old_machine)."""
    call("wallet", "create")
    told = call("network", "deploy", "--rpc", berlin.url, "--out", str(tmp_path / "x.json"), "--yes", code=1)
    assert told["error"]["code"] == "no_randomness"
    assert "older than Cancun" in told["error"]["sentence"]


class OldChain:
    """Knows what `known` names; `silent` does not understand a call without a receiver."""

    def __init__(self, *known: int, silent: bool = False) -> None:
        self.known, self.silent = known, silent

    def rpc(self) -> Rpc:
        return Rpc(["http://old.test/"], chain_id=361, transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if isinstance(body, dict):
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], "result": "0x169"})
        return httpx.Response(200, json=[self._one(each) for each in body])

    def _one(self, body: dict) -> dict:
        data = bytes.fromhex(body["params"][0]["data"][2:])
        unknown = (machine.instructions(data) & machine._YOUNG.keys()) - set(self.known)
        if unknown or self.silent:
            return {"jsonrpc": "2.0", "id": body["id"], "error": {"code": -32000, "message": "invalid opcode"}}
        return {"jsonrpc": "2.0", "id": body["id"], "result": "0x01"}


async def test_code_for_old_machines_is_chosen_where_nothing_else_runs() -> None:
    async with OldChain(0x46, 0x47).rpc() as rpc:  # as Theta's, which has Istanbul's and no BLOCKHASH
        assert await machine.choose(rpc) == "istanbul"
    async with OldChain(*machine._YOUNG).rpc() as rpc:
        assert await machine.choose(rpc) == "cancun"
    async with OldChain().rpc() as rpc:
        with pytest.raises(ChainError) as caught:
            await machine.choose(rpc)
    assert caught.value.code == "old_machine"
    assert "CHAINID" in caught.value.sentence


async def test_what_an_old_evm_lacks_is_named_before_anything_is_sent() -> None:
    async with OldChain(0x46, 0x47).rpc() as rpc:
        with pytest.raises(ChainError) as caught:
            await machine.check(rpc, machine.bytecodes())
    assert caught.value.code == "old_machine"
    assert "PUSH0" in caught.value.sentence
    assert "CHAINID" not in caught.value.sentence


async def test_only_what_the_contracts_hold_is_asked_for() -> None:
    async with OldChain().rpc() as rpc:
        assert await machine.missing(rpc, [bytes.fromhex("600160005260206000f3")]) == []
        assert await machine.missing(rpc, [bytes.fromhex("625f5e5c50")]) == []  # pushed as data
        assert await machine.missing(rpc, [bytes.fromhex("5f5e")]) == ["MCOPY (EIP-5656)", "PUSH0 (EIP-3855)"]


async def test_a_node_that_cannot_be_asked_this_way_is_no_reason_to_refuse() -> None:
    async with OldChain(silent=True).rpc() as rpc:
        assert await machine.missing(rpc, machine.bytecodes()) == []
