"""The sources of randomness: what they give of which block, and from when on they know it no more."""

from __future__ import annotations

import pyrevm
import pytest

from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.randomness import HISTORY
from tallymesh_ledger.eip712 import word
from tallymesh_ledger.keys import checksum

HEAD = 100_000
SENDER = checksum(b"\x51" * 20)
SYSTEM = checksum(bytes.fromhex("fffffffffffffffffffffffffffffffffffffffe"))  # whose calls store a hash
# The contract's code as EIP-2935 gives it.
CODE = bytes.fromhex(
    "3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f35600143038111604257611fff81430311604257611fff"
    "9006545f5260205ff35b5f5ffd5b5f35611fff60014303065500"
)


class Chain:
    """An EVM at block HEAD; the history contract knows the hashes of the blocks in `stored`."""

    def __init__(self, name: str, *, stored: range = range(0), history: bool = True) -> None:
        self.evm = pyrevm.EVM(spec_id="CANCUN")
        self._at(1)
        if history:
            self.evm.insert_account_info(checksum(HISTORY), pyrevm.AccountInfo(code=CODE))
        for number in stored:
            self._at(number + 1)
            self.evm.message_call(SYSTEM, checksum(HISTORY), calldata=hash_of(number))
        self._at(HEAD)
        self.interface = abi.load(name)
        self.address = self.evm.deploy(SENDER, abi.creation_code(name))

    def _at(self, number: int) -> None:
        self.evm.set_block_env(pyrevm.BlockEnv(number=number, timestamp=number))

    def ask(self, function: str, *arguments: int) -> bytes:
        return bytes(
            self.evm.message_call(SENDER, self.address, calldata=self.interface.functions[function].encode(*arguments))
        )


def hash_of(number: int) -> bytes:
    return word(number + 7)


FIRST = HEAD - 8191  # that the contract keeps


@pytest.mark.parametrize("number", [FIRST, FIRST + 1, HEAD - 5000, HEAD - 257])
def test_blocks_that_blockhash_forgot_are_still_known(number: int) -> None:
    chain = Chain("HistoryRandomness", stored=range(number, number + 1))
    assert chain.ask("valueAt", number) == hash_of(number)
    assert int.from_bytes(chain.ask("kept"), "big") == 8191
    assert Chain("BlockhashRandomness").ask("valueAt", number) == bytes(32)


@pytest.mark.parametrize("name", ["BlockhashRandomness", "HistoryRandomness"])
@pytest.mark.parametrize("number", [HEAD, HEAD + 1, 2**256 - 1])
def test_a_block_that_is_not_over_has_no_value(name: str, number: int) -> None:
    assert Chain(name).ask("valueAt", number) == bytes(32)


@pytest.mark.parametrize("number", [0, FIRST - 1])
def test_what_the_history_keeps_no_more_is_nothing_and_no_error(number: int) -> None:
    """Claims that come too late have to see a zero: they end by it."""
    chain = Chain("HistoryRandomness", stored=range(number, number + 1))
    assert chain.ask("valueAt", number) == bytes(32)


def test_blockhash_says_how_many_blocks_it_knows() -> None:
    chain = Chain("BlockhashRandomness")
    kept = int.from_bytes(chain.ask("kept"), "big")
    assert any(chain.ask("valueAt", HEAD - kept))
    assert not any(chain.ask("valueAt", HEAD - kept - 1))


@pytest.mark.parametrize("number", [HEAD - 1, HEAD - 256])
def test_the_newest_blocks_have_one_value_in_both(number: int) -> None:
    value = Chain("BlockhashRandomness").ask("valueAt", number)
    assert any(value)
    assert Chain("HistoryRandomness").ask("valueAt", number) == value


def test_a_block_from_before_the_history_began_is_nothing() -> None:
    assert Chain("HistoryRandomness").ask("valueAt", HEAD - 3000) == bytes(32)


def test_it_cannot_be_made_where_there_is_no_history() -> None:
    with pytest.raises(RuntimeError):
        Chain("HistoryRandomness", history=False)
