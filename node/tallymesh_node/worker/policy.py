"""When the worker turns its Accepts into money itself, and when it draws the money. Pure.

Usually the payer settles everybody at once at the end, which costs the worker nothing. It does so itself where waiting
could cost more than the gas.
"""

from __future__ import annotations

import msgspec

from tallymesh.amounts import WEI_PER_TOKEN


class SettlePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds; each may be replaced by the node's configuration."""

    margin_s: float = 900.0  # before the lease ends: a congested chain may take minutes, and a node may be restarted
    margin_share: float = 0.25  # … but not more than this share of a short lease
    silence_s: float = 120.0  # the payer was not heard of: it may be gone for good
    patience_s: float = 60.0  # after the seat's work is over: time for the payer to settle everybody together
    credit_wei: int = 100 * WEI_PER_TOKEN  # unsettled pay that is worth a transaction of our own at once
    withdraw_wei: int = 1 * WEI_PER_TOKEN  # credits worth a withdrawal while work goes on
    withdraw_idle_wei: int = WEI_PER_TOKEN // 1000  # … and once no seat is open: more than the gas


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One seat as far as its pay is concerned. Times in the chain's seconds, durations in seconds."""

    unpaid_units: int  # accepted and not paid on chain
    price: int
    now: int
    since: int  # when the lease was agreed
    until: int
    silent_s: float  # since the payer was last heard of
    over_s: float | None  # since this side's work on the seat was done, None while it goes on


def settle_reason(policy: SettlePolicy, seat: Standing) -> str:
    """Why to settle this seat now: `deadline`, `large`, `silence` or `over`; "" to wait."""
    if seat.unpaid_units <= 0:
        return ""
    margin = min(policy.margin_s, policy.margin_share * (seat.until - seat.since))
    if seat.now >= seat.until - margin:
        return "deadline"
    if seat.unpaid_units * seat.price >= policy.credit_wei:
        return "large"
    if seat.silent_s >= policy.silence_s:
        return "silence"
    if seat.over_s is not None and seat.over_s >= policy.patience_s:
        return "over"
    return ""


def worth_withdrawing(policy: SettlePolicy, credits_wei: int, *, idle: bool) -> bool:
    """Whether the account's credits are worth a transaction now."""
    return credits_wei >= (policy.withdraw_idle_wei if idle else policy.withdraw_wei)
