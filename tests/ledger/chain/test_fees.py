"""What is offered for gas, and what is refused: two fee models, an owner's limit, a loss, an account that is short."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymesh.chain_facts import ANY_CHAIN, ChainFacts
from tallymesh.errors import ChainError
from tallymesh_ledger.chain import fees
from tallymesh_ledger.chain.envelope import Fees
from tallymesh_ledger.chain.fees import NO_LIMITS, GasPolicy, Quote

GWEI = 10**9
NO_METHOD = ChainError("rpc_error", "The chain refused it: no such method.", reverted=False)
LEGACY = ChainFacts(fees="legacy", coin="TFUEL")


def block(base_fee: int | None) -> dict[str, Any]:
    found = {"number": "0x5", "hash": "0x" + "11" * 32, "parentHash": "0x" + "22" * 32, "timestamp": "0x9"}
    return found if base_fee is None else {**found, "baseFeePerGas": hex(base_fee)}


def history(next_base_fee: int, *paid: int | None) -> dict[str, Any]:
    """None is an empty block."""
    return {
        "baseFeePerGas": ["0x1"] * len(paid) + [hex(next_base_fee)],
        "gasUsedRatio": [0.0 if tip is None else 0.5 for tip in paid],
        "reward": [[hex(tip or 0)] for tip in paid],
    }


def ask(
    base_fee: int | None = 100,
    price: Any = "0x70",
    tip: Any = "0x3",
    past: Any = NO_METHOD,
    facts: ChainFacts = ANY_CHAIN,
    policy: GasPolicy = NO_LIMITS,
) -> Quote:
    return fees.quote([block(base_fee), price, tip, past], facts, policy)


# ---- two models


def test_a_chain_with_a_base_fee_gets_room_for_it_to_double_and_a_tip() -> None:
    assert ask() == Quote(Fees(203, 3), 103)


def test_a_chain_without_a_base_fee_gets_one_price() -> None:
    assert ask(base_fee=None) == Quote(Fees(0x70, 0x70, legacy=True), 0x70)


def test_the_network_file_may_say_legacy_where_blocks_say_otherwise() -> None:
    assert ask(facts=LEGACY) == Quote(Fees(0x70, 0x70, legacy=True), 0x70)


def test_a_network_file_that_is_wrong_about_the_model_is_named() -> None:
    with pytest.raises(ChainError) as caught:
        ask(base_fee=None, facts=ChainFacts(fees="eip1559"))
    assert caught.value.code == "wrong_fee_model"


def test_the_base_fee_is_that_of_the_block_to_come() -> None:
    assert ask(past=history(112)).expected_wei == 112 + 3


def test_a_history_cannot_say_less_than_one_block_can_fall() -> None:
    assert ask(base_fee=800, past=history(1)).expected_wei == 700 + 3


def test_the_tip_follows_what_full_blocks_were_paid() -> None:
    assert ask(past=history(100, 9, None, None, 20, 11)).fees.tip == 11
    assert ask(past=history(100, 1, 1, 1)).fees.tip == 3  # no less than the node suggests
    assert ask(past=history(100, None, None)).fees.tip == 3


def test_a_node_without_an_opinion_still_gets_an_offer() -> None:
    assert ask(tip=NO_METHOD).fees.tip == fees.TIP_WEI
    assert ask(tip=None).fees.tip == fees.TIP_WEI
    assert ask(tip=NO_METHOD, past=history(100, 7)).fees.tip == 7


@pytest.mark.parametrize(
    "nonsense", [None, {}, {"baseFeePerGas": []}, {"baseFeePerGas": "no"}, [], "0x", {"reward": 5}]
)
def test_a_strange_history_is_no_history(nonsense: Any) -> None:
    assert ask(past=nonsense) == ask()


def test_a_chain_whose_validators_want_a_least_tip_gets_it() -> None:
    assert ask(facts=ChainFacts(tip_min_wei=25 * GWEI)).fees.tip == 25 * GWEI
    assert ask(base_fee=None, facts=ChainFacts(tip_min_wei=25 * GWEI)).fees.max_fee == 25 * GWEI


@pytest.mark.parametrize("missing", [0, 1])
def test_what_cannot_be_asked_is_the_chains_error(missing: int) -> None:
    answers: list[Any] = [block(None), "0x70", "0x3", NO_METHOD]
    answers[missing] = ChainError("chain_unavailable", "It is away.", reverted=False)
    with pytest.raises(ChainError, match="away"):
        fees.quote(answers, ANY_CHAIN, NO_LIMITS)


# ---- the owner's limit


def test_the_limit_bounds_the_offer() -> None:
    assert ask(policy=GasPolicy(price_max_wei=150)).fees == Fees(150, 3)


@pytest.mark.parametrize("base_fee", [100, None])
def test_gas_over_the_limit_is_refused_with_both_numbers(base_fee: int | None) -> None:
    with pytest.raises(ChainError) as caught:
        ask(base_fee=base_fee, price=hex(103), policy=GasPolicy(price_max_wei=102))
    assert caught.value.code == "gas_too_dear"
    assert not caught.value.reverted
    assert "1.03e-07 gwei" in caught.value.sentence


@given(
    st.integers(1, 10**12), st.integers(0, 10**12), st.integers(1, 10**12), st.integers(0, 10**12), st.booleans(),
    st.integers(0, 10**13),
)  # fmt: skip
def test_a_replacement_is_enough_for_nodes_and_never_over_the_limit(
    most: int, tip: int, fresh_most: int, fresh_tip: int, legacy: bool, limit: int
) -> None:
    tip, fresh_tip = (most, fresh_most) if legacy else (min(tip, most), min(fresh_tip, fresh_most))
    old, policy = Fees(most, tip, legacy=legacy), GasPolicy(price_max_wei=limit)
    found = fees.bump_up(old, Quote(Fees(fresh_most, fresh_tip, legacy=legacy), 1), policy)
    if found is None:
        assert limit
        assert limit * 10 < most * 11 or limit * 10 < tip * 11
        return
    assert found.max_fee * 10 >= most * 11
    assert found.tip * 10 >= tip * 11
    assert found.tip <= found.max_fee
    assert not limit or found.max_fee <= limit
    assert limit or (found.max_fee >= fresh_most and found.tip >= fresh_tip)
    assert found.legacy == legacy
    assert not legacy or found.tip == found.max_fee


# ---- an account that is short


def test_an_account_offers_less_room_before_it_gives_up() -> None:
    price = ask(base_fee=100 * GWEI, tip=hex(GWEI))
    assert fees.affordable(price, 1_000, 201_000 * GWEI) == price.fees
    assert fees.affordable(price, 1_000, 150_000 * GWEI) == Fees(150 * GWEI, GWEI)
    assert fees.affordable(price, 1_000, 1_000 * fees.least_up(price)) == Fees(fees.least_up(price), GWEI)
    assert fees.affordable(price, 1_000, 1_000 * fees.least_up(price) - 1) is None
    assert fees.affordable(price, 1_000, -5) is None


def test_one_price_leaves_no_room() -> None:
    price = ask(base_fee=None)
    assert fees.affordable(price, 1_000, 0x70 * 1_000 - 1) is None
    assert fees.affordable(price, 1_000, 0x70 * 1_000) == price.fees


def test_an_account_that_is_short_is_told_which_coin_and_how_much() -> None:
    error = fees.short(LEGACY, "0xAbc", 1_500_000_000_000_000_000, 2_000_000_000_000_000_001)
    assert error.code == "no_gas_coin"
    assert error.sentence == "The account 0xAbc has 1.5 of TFUEL, and this transaction needs up to 2.000001."
    assert error.remedy == "Send at least 0.500001 of TFUEL to it."


# ---- a loss


def test_a_call_that_brings_less_than_its_gas_is_worth_is_refused() -> None:
    policy = GasPolicy(coin_price_wei=3 * 10**18)  # 3 MESH a coin
    fees.refuse_loss(policy, LEGACY, 10**18, 3 * 10**18)
    with pytest.raises(ChainError) as caught:
        fees.refuse_loss(policy, LEGACY, 10**18, 3 * 10**18 - 1)
    assert caught.value.code == "not_worth_gas"
    assert not caught.value.reverted
    assert "1 of TFUEL, worth 3 MESH" in caught.value.sentence
    with pytest.raises(ChainError):
        fees.refuse_loss(policy, LEGACY, 10**18 + 1, 3 * 10**18)


def test_without_a_price_of_the_coin_nothing_is_a_loss() -> None:
    fees.refuse_loss(NO_LIMITS, LEGACY, 10**30, 0)
