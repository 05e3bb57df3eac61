"""How calls and refusals are laid out; schema and ABI that drift apart are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import eth_abi
import msgspec
import pytest

from tallymesh import messages
from tallymesh.errors import ChainError
from tallymesh.schema import U16, Address, Bytes32, Message
from tallymesh_ledger.chain import abi, contract
from tallymesh_ledger.chain.rpc import error_of
from tallymesh_ledger.eip712 import keccak

ROOT = Path(__file__).parents[3]


def test_each_custom_error_of_the_contracts_gets_a_sentence_with_its_values() -> None:
    seen = 0
    for name in abi.CONTRACTS:
        for selector, entry in abi.load(name)._errors.items():
            types = [abi._type(each) for each in entry["inputs"]]
            values = [{"address": "0x" + "11" * 20, "bytes32": b"\x22" * 32, "string": "text"}.get(t, 7) for t in types]
            refusal = abi.explain(selector + eth_abi.encode(types, values))
            assert refusal.sentence.split(" refused: ")[0] in abi.CONTRACTS
            assert refusal.code == abi.snake(entry["name"])
            for each in entry["inputs"]:
                assert each["name"] in refusal.sentence
            seen += 1
    assert seen > 20


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (keccak(b"Error(string)")[:4] + eth_abi.encode(["string"], ["too late"]), "reverted", "refused: too late."),
        (keccak(b"Panic(uint256)")[:4] + eth_abi.encode(["uint256"], [0x11]), "panic", "arithmetic overflow"),
        (keccak(b"Panic(uint256)")[:4] + eth_abi.encode(["uint256"], [0x99]), "panic", "0x99"),
        (b"\xde\xad\xbe\xef", "reverted", "unknown error 0xdeadbeef"),
        (keccak(b"Error(string)")[:4] + b"\x01", "reverted", "unknown error 0x08c379a0"),
        (b"", "reverted", "without a reason"),
    ],
)
def test_reasons_that_are_no_custom_errors(data: bytes, code: str, words: str) -> None:
    refusal = abi.explain(data)
    assert refusal.code == code
    assert words in refusal.sentence


@pytest.mark.parametrize(
    "data",
    ["0xdeadbeef", {"data": "0xdeadbeef"}, {"data": {}, "result": "0xdeadbeef"}, "Reverted 0xdeadbeef"],
    ids=["geth", "hardhat", "ganache", "openethereum"],
)
def test_every_nodes_way_to_pass_a_reason_on_is_understood(data: object) -> None:
    error = error_of({"code": -32000, "message": "execution failed", "data": data}, "eth_call")
    assert isinstance(error, ChainError)
    assert error.reverted
    assert "0xdeadbeef" in error.sentence


def test_a_message_goes_in_as_it_is() -> None:
    release = messages.Release(seat=b"\x01" * 32, units=5)
    lease = messages.Lease(
        job=bytes(32), worker=b"\x02" * 20, positions=5, price=7, work_ms=1, numeric_class=bytes(32), lock=1, until=2,
        seat_by=3, secret_1=bytes(32), secret_2=bytes(32), nonce=4,
    )  # fmt: skip
    data = abi.load("JobEscrow").functions["close"].encode([(lease, release, contract.compact(bytes(64) + b"\x1b"))])
    assert release.seat in data
    assert lease.worker in data


def test_a_message_that_does_not_fit_its_types_is_not_encoded() -> None:
    release = messages.Release(seat=b"\x01" * 32, units=1 << 40)
    with pytest.raises(ValueError, match="uint40"):
        abi._lower(release, {"type": "tuple", "components": []})


def test_a_schema_that_drifted_from_the_abi_is_found() -> None:
    class PeerBinding(Message, frozen=True, kw_only=True):
        TYPE = 1
        DOMAIN = "registry"
        peer_id_hash: Bytes32
        account: Address
        version: U16  # the contract's has 32 bits

    drifted = PeerBinding(peer_id_hash=bytes(32), account=bytes(20), version=1)
    with pytest.raises(TypeError, match="differ"):
        abi.load("Registry").functions["bind"].encode(drifted, (bytes(32), bytes(32)))


def test_a_struct_that_drifted_from_ours_is_found() -> None:
    class Pair(msgspec.Struct):
        one: int

    assert contract.struct(Pair, {"one": 1}) == Pair(1)
    with pytest.raises(TypeError):
        contract.struct(Pair, {"one": 1, "openSeats": 2})


def test_compact_signatures_carry_the_parity_in_the_top_bit() -> None:
    r, s = b"\x01" * 32, b"\x02" * 32
    assert contract.compact(r + s + b"\x1b") == (r, s)
    assert contract.compact(r + s + b"\x1c") == (r, b"\x82" + s[1:])
    assert contract.compact(b"") == (bytes(32), bytes(32))


def test_names_become_words() -> None:
    assert abi.snake("ERC20InsufficientBalance") == "erc20_insufficient_balance"
    assert abi.snake("NotYourSlot") == "not_your_slot"
    assert abi.snake("bySigner") == "by_signer"


def test_logs_of_others_are_not_taken_for_ours() -> None:
    interface = abi.load("Registry")
    log = {
        "address": "0x" + "11" * 20, "topics": [], "data": "0x", "blockNumber": "0x1", "blockHash": "0x" + "22" * 32,
        "transactionHash": "0x" + "33" * 32, "logIndex": "0x0",
    }  # fmt: skip
    assert interface.event(log) is None
    assert interface.event({**log, "topics": ["0x" + "44" * 32]}) is None
    assert interface.event({**log, "topics": ["0x" + interface.topics["Bound"].hex()]}) is None


def test_the_embedded_chains_abi_matches_the_interfaces() -> None:
    for name in ("Registry", "JobEscrow"):
        source = (ROOT / f"contracts/src/interfaces/I{name}.sol").read_text()
        for function in abi.load(name).functions:
            assert f"function {function}(" in source or function == "eip712Domain"


@pytest.mark.slow
def test_the_client_loads_nothing_that_raises_the_recursion_limit() -> None:
    """py_ecc (below eth-account, web3 and py-evm) allows 100,000 frames: with that a peer's nested message ends the
    process by a stack overflow instead of a RecursionError."""
    code = (
        "import sys; import tallymesh_ledger.chain.registry_view, tallymesh_ledger.balances, tallymesh_ledger.deploy,"
        " tallymesh_ledger.keystore, tallymesh_ledger.embedded_chain; print(sys.getrecursionlimit(), *sys.modules)"
    )
    limit, *loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert int(limit) == 1_000
    assert not {"py_ecc", "web3", "eth_account", "eth"} & set(loaded)
