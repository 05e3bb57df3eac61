"""What a carrier asks for, and which requests it refuses before it spends gas. Pure.

The chain checks everything again; a request that would revert costs the carrier nothing where its own node estimates
first. What is refused here costs not even that.
"""

from __future__ import annotations

import msgspec

from tallymesh import amounts
from tallymesh.messages import RelayedBond, RelayedWithdraw
from tallymesh_ledger.chain.fees import GasPolicy

ALL = (1 << 96) - 1  # as `RelayedBond.amount`: all of the credit beside the fee
SLOTS_MAX = 50  # released by one request: 40,000 gas each
DEADLINE_MIN_S = 60  # left when it comes: a congested chain takes a minute
DEADLINE_MAX_S = 3600  # a request must not be good for ever: the fee is of today's gas
# Measured (tests/contracts, call data included), rounded up.
GAS_BOND = 130_000
GAS_WITHDRAW = 170_000
GAS_SLOT = 40_000
GAS_BIND = 80_000
MARGIN_UP = 3, 2  # on the gas's worth: its price may rise before the transaction is mined

Request = RelayedBond | RelayedWithdraw


class Refusal(msgspec.Struct, frozen=True):
    code: str
    sentence: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Of the account that asks, at this moment. Wei."""

    owner: bytes
    nonce: int
    credit: int
    slots: int
    binding: int  # version of the binding in force, 0 without one


def gas_of(request: Request, *, bind: bool) -> int:
    """At most, of all that is to be sent for it."""
    gas = GAS_BOND if isinstance(request, RelayedBond) else GAS_WITHDRAW + request.slots * GAS_SLOT
    return gas + (GAS_BIND if bind else 0)


def fee_up(gas: int, gas_price_wei: int, policy: GasPolicy, least_wei: int) -> int:
    """Wei of MESH: the owner's least, or the gas's worth with its margin where the coin's price is known."""
    up, by = MARGIN_UP
    return max(least_wei, policy.worth_up(-(-gas * gas_price_wei * up // by)))


def refusal(request: Request, standing: Standing, *, now: int, fee_wei: int) -> Refusal | None:
    """None where it may be carried for its fee; else the first thing that is wrong. Its signature was checked."""
    if not now + DEADLINE_MIN_S <= request.deadline <= now + DEADLINE_MAX_S:
        return Refusal("bad_deadline", f"A request is good for {DEADLINE_MIN_S} to {DEADLINE_MAX_S} s.")
    if request.nonce != standing.nonce:
        return Refusal("stale_nonce", f"The account's next request has the nonce {standing.nonce}.")
    if request.fee < fee_wei:
        return Refusal("fee_too_low", f"The fee is {amounts.show(request.fee)}; {amounts.show_up(fee_wei)} are asked.")
    needed = request.fee
    if isinstance(request, RelayedBond) and request.amount != ALL:
        needed += request.amount
    if standing.credit < needed:
        has, wants = amounts.show(standing.credit), amounts.show_up(needed)
        return Refusal("too_little_credit", f"The account has {has} of credit, and the request spends {wants}.")
    if isinstance(request, RelayedWithdraw) and request.slots > min(standing.slots, SLOTS_MAX):
        return Refusal(
            "bad_count", f"The account has {standing.slots} slots; {SLOTS_MAX} at most are released at once."
        )
    return None
