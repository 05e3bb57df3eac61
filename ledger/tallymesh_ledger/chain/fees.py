"""What gas costs now, what its owner allows, and whether a call is worth it.

Two fee models: EIP-1559 (a base fee that follows the load, and a tip), and one price for everything (legacy). Which one
a chain has is read from its blocks unless the network file says it. This module sends nothing.
"""

from __future__ import annotations

import statistics
from typing import Any

import msgspec

from tallymesh.amounts import show, show_up
from tallymesh.chain_facts import ChainFacts
from tallymesh.errors import ChainError
from tallymesh_ledger.chain.envelope import Fees
from tallymesh_ledger.chain.rpc import block_of

BASE_FEE_ROOM = 2  # the base fee may double before a transaction is mined (six full blocks)
BASE_FEE_ROOM_MIN_UP = 9, 8  # with less than one full block's rise a transaction may be refused at once
TIP_WEI = 10**9  # where neither the node nor its last blocks have an opinion
HISTORY_BLOCKS = 20  # whose median tip is looked at: some minutes
BUMP_UP = 125, 100  # of both fees, when a transaction is replaced …
REPLACE_MIN_UP = 110, 100  # … of which nodes ask for this much
WEI_PER_COIN = 10**18  # every chain of the presets has a coin of 18 decimals
GWEI = 10**9


class GasPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of the account allows. 0 means: no limit, no price known."""

    price_max_wei: int = 0  # of the native coin, per gas, at most
    coin_price_wei: int = 0  # wei of MESH that one whole native coin is worth; 0: nothing is refused as a loss

    def worth_up(self, native_wei: int) -> int:
        """In wei of MESH, rounded up."""
        return -(-native_wei * self.coin_price_wei // WEI_PER_COIN)


NO_LIMITS = GasPolicy()


class Quote(msgspec.Struct, frozen=True):
    """What the chain asks: `fees` to offer, of which `expected_wei` per gas are likely to be paid."""

    fees: Fees
    expected_wei: int


def questions() -> list[tuple[str, list[Any]]]:
    """JSON-RPC requests whose answers `quote` reads, in order."""
    return [
        ("eth_getBlockByNumber", ["latest", False]),
        ("eth_gasPrice", []),
        ("eth_maxPriorityFeePerGas", []),
        ("eth_feeHistory", [hex(HISTORY_BLOCKS), "latest", [50]]),
    ]


def quote(answers: list[Any], facts: ChainFacts, policy: GasPolicy) -> Quote:
    """The price now. ChainError `gas_too_dear` where it is over the owner's limit, or what the chain did not say."""
    block, price, suggested, history = answers
    if isinstance(block, ChainError):
        raise block
    base_fee = block_of(block).base_fee
    if facts.fees == "legacy" or (facts.fees == "auto" and base_fee is None):
        if isinstance(price, ChainError):
            raise price
        found = max(int(price, 16), facts.tip_min_wei)
        return Quote(Fees(_within(found, policy), found, legacy=True), found)
    if base_fee is None:
        raise ChainError(
            "wrong_fee_model",
            "The network file says that this chain has EIP-1559 fees, and its blocks have no base fee.",
            reverted=False,
            remedy='Write "fees": "legacy" into the "chain" part of the network file.',
        )
    base_fee = _next_base_fee(history, base_fee)
    tip = max(_tip(suggested, history), facts.tip_min_wei)
    _within(base_fee + tip, policy)
    most = BASE_FEE_ROOM * base_fee + tip
    return Quote(Fees(min(most, policy.price_max_wei or most), tip), base_fee + tip)


def bump_up(fees: Fees, fresh: Quote, policy: GasPolicy) -> Fees | None:
    """Enough more that nodes take it in place of the old one, and no less than the chain asks by now; None where the
    owner's limit does not allow it."""
    up, by = BUMP_UP
    most = max(-(-fees.max_fee * up // by), fresh.fees.max_fee)
    most = min(most, policy.price_max_wei or most)
    tip = min(most, max(-(-fees.tip * up // by), fresh.fees.tip))
    up, by = REPLACE_MIN_UP
    if most * by < fees.max_fee * up or tip * by < fees.tip * up:
        return None
    return msgspec.structs.replace(fees, max_fee=most, tip=tip)


def least_up(found: Quote) -> int:
    """Per gas, what an account must be able to lay out for a transaction that is mined soon."""
    if found.fees.legacy:
        return found.fees.max_fee
    up, by = BASE_FEE_ROOM_MIN_UP
    return min(found.fees.max_fee, -(-found.expected_wei * up // by))


def affordable(found: Quote, gas: int, spare_wei: int) -> Fees | None:
    """`found`'s offer, lowered where the account could not lay out the room for a rising base fee; None where it cannot
    even pay what is asked now. `spare_wei`: what the account has for gas."""
    if gas * found.fees.max_fee <= spare_wei:
        return found.fees
    if gas * least_up(found) > spare_wei:
        return None
    return msgspec.structs.replace(found.fees, max_fee=spare_wei // gas)


def short(
    facts: ChainFacts, address: str, has_wei: int, needs_wei: int, *, what: str = "this transaction"
) -> ChainError:
    """The account cannot pay for it: which coin, and how much."""
    has, needs = show(has_wei, symbol=False), show_up(needs_wei, symbol=False)
    return ChainError(
        "no_gas_coin",
        f"The account {address} has {has} of {facts.coin_name}, and {what} needs up to {needs}.",
        reverted=True,
        remedy=f"Send at least {show_up(needs_wei - has_wei, symbol=False)} of {facts.coin_name} to it.",
    )


def refuse_loss(policy: GasPolicy, facts: ChainFacts, cost_wei: int, brings_wei: int) -> None:
    """ChainError `not_worth_gas` where a call brings less MESH than its gas is worth. Nothing is refused without a
    price of the native coin."""
    if not policy.coin_price_wei:
        return
    worth_wei = policy.worth_up(cost_wei)
    if worth_wei > brings_wei:
        raise ChainError(
            "not_worth_gas",
            f"The gas for this would cost {show_up(cost_wei, symbol=False)} of {facts.coin_name}, worth "
            f"{show_up(worth_wei)}; it would bring {show(brings_wei)}.",
            reverted=False,
            remedy="It is tried again when more is due or gas is cheaper.",
        )


def _within(price_wei: int, policy: GasPolicy) -> int:
    limit = policy.price_max_wei
    if limit and price_wei > limit:
        raise ChainError(
            "gas_too_dear",
            f"The chain asks {price_wei / GWEI:g} gwei per gas, and this node pays at most {limit / GWEI:g}.",
            reverted=False,
            remedy="Wait until gas is cheaper, or raise gas_price_max.",
        )
    return price_wei


def _next_base_fee(history: Any, newest: int) -> int:
    """The history's last base fee is that of the block to come."""
    try:
        return max(newest * 7 // 8, int(history["baseFeePerGas"][-1], 16))  # it cannot fall by more in one block
    except (TypeError, KeyError, IndexError, ValueError):
        return newest


def _tip(suggested: Any, history: Any) -> int:
    """What the node suggests, or the median of what its last blocks that held anything were paid, if that is more."""
    known = [] if isinstance(suggested, ChainError) or suggested is None else [int(suggested, 16)]
    try:
        blocks = zip(history["reward"], history["gasUsedRatio"], strict=True)
        paid = [int(reward[0], 16) for reward, full in blocks if full]
        if paid:
            known.append(int(statistics.median(paid)))
    except (TypeError, KeyError, IndexError, ValueError):
        pass  # not every node has the method
    return max(known, default=TIP_WEI)
