"""The ground that the model stands on: a call that reverts leaves nothing behind, permits that fail are forgiven, old
block hashes are gone."""

from __future__ import annotations

import pytest

from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.model.machine import BLOCKHASHES, ZERO_WORD, Machine, Revert, Store
from tallymesh_ledger.model.signatures import HALF_ORDER, Signature, recovered, says
from tallymesh_ledger.model.token import Permit, Token

KEY = AccountKey(b"\x07" * 32)
OTHER = AccountKey(b"\x08" * 32)
PLACE = b"\x11" * 20
SPENDER = b"\x22" * 20


def token() -> tuple[Machine, Token]:
    machine = Machine(chain_id=5, block_number=300, now=1_000)
    made = Token(machine, PLACE, KEY.address, 1_000)
    machine.settle()
    return machine, made


def permit(made: Token, key: AccountKey, value: int, deadline: int = 1_000) -> Permit:
    signed = key.sign_digest(made.permit_digest(KEY.address, SPENDER, value, deadline))
    return Permit(value, deadline, signed[64], signed[:32], signed[32:64])


def test_a_call_that_reverts_leaves_no_change_and_no_event() -> None:
    machine = Machine(chain_id=1)
    store: Store[str, int] = Store(machine, 0)

    def change(fail: bool) -> None:
        store["a"] += 1
        machine.emit(PLACE, "Changed")
        if fail:
            raise Revert("Refused")

    assert [event.name for event in machine.call(change, False).events] == ["Changed"]
    with pytest.raises(Revert):
        machine.call(change, True)
    assert store["a"] == 1
    assert [event.name for event in machine.call(change, False).events] == ["Changed"]


def test_a_transfer_that_cannot_be_takes_nothing() -> None:
    machine, made = token()
    machine.call(made.approve, KEY.address, SPENDER, 2_000)
    with pytest.raises(Revert) as caught:
        machine.call(made.transfer_from, SPENDER, KEY.address, OTHER.address, 1_001)
    assert caught.value.name == "ERC20InsufficientBalance"
    assert made.allowance(KEY.address, SPENDER) == 2_000


def test_a_permit_that_was_used_is_no_error_and_one_that_is_good_counts_once() -> None:
    machine, made = token()
    good = permit(made, KEY, 70)
    machine.call(made.use_permit, KEY.address, SPENDER, good)
    assert (made.allowance(KEY.address, SPENDER), made.nonces(KEY.address)) == (70, 1)
    assert machine.call(made.use_permit, KEY.address, SPENDER, good).events == ()
    assert made.nonces(KEY.address) == 1


def test_a_permit_of_another_key_or_past_its_deadline_is_refused() -> None:
    machine, made = token()
    for given, name in (
        (permit(made, OTHER, 70), "ERC2612InvalidSigner"),
        (permit(made, KEY, 70, deadline=999), "ERC2612ExpiredSignature"),
        (permit(made, KEY, 70)._replace(v=29), "ECDSAInvalidSignature"),
        (permit(made, KEY, 70)._replace(s=(HALF_ORDER + 1).to_bytes(32, "big")), "ECDSAInvalidSignatureS"),
    ):
        with pytest.raises(Revert) as caught:
            machine.call(made.permit, OTHER.address, KEY.address, SPENDER, *given)
        assert caught.value.name == name


def test_a_signature_that_nobody_gave_is_of_nobody() -> None:
    digest = keccak(b"said")
    assert recovered(digest, bytes(32), bytes(32)) == bytes(20)
    assert not says(bytes(20), digest, Signature(bytes(32), bytes(32)), bytes(20)), "the zero account says nothing"
    assert says(KEY.address, digest, Signature(bytes(32), bytes(32)), KEY.address), "who calls needs no signature"


def test_hashes_of_blocks_are_kept_for_256_blocks() -> None:
    machine = Machine(chain_id=1, block_number=300)
    assert machine.block_hash(300) == machine.block_hash(301) == ZERO_WORD
    assert machine.block_hash(299) != ZERO_WORD
    assert machine.block_hash(300 - BLOCKHASHES) != ZERO_WORD
    assert machine.block_hash(299 - BLOCKHASHES) == ZERO_WORD
