"""When an unpaid worker claims, and what stands against it. Pure; every no has a reason.

A claim binds the worker's word and both bonds, so it is not the answer to every delay: the payer first gets the times
that the protocol gives it, and some more. What is not claimed by the end of the claim window is lost.
"""

from __future__ import annotations

import msgspec

from tallymesh import amounts
from tallymesh.messages import Auditors, Order
from tallymesh_ledger.claims import Terms
from tallymesh_node.looks import backoff_s

WINDOW_SHARE = 0.5  # of the claim window: what is unpaid by then is claimed, however short the payer's silence was
TRIES_MAX = 12  # sendings of one claim that the contract refused: by then the reason does not go away
RETRY_FIRST_S, RETRY_MAX_S = 5.0, 1800.0
GAS_SHARE = 4  # of a claim's whole gas, that of its first transaction: what it must bring to be begun


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    patience_s: float = 600.0  # beyond the protocol's times: a payer that was restarted, or moved, gets so much


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One seat as far as a claim is concerned. Times in the chain's seconds, durations in seconds."""

    units: int  # with a receipt, unpaid, never claimed
    now: int
    until: int
    claim_window: int
    silent_s: float  # since the payer was last heard of
    stalled_s: float  # since the payer had all that it needs to accept, or this node left the seat; 0 while it has not
    accept_s: float  # what the protocol gives it from then on

    @property
    def last_moment(self) -> int:
        return self.until + self.claim_window


def reason(policy: Policy, seat: Standing) -> str:
    """Why to claim now: `window`, `silent`, `unaccepted`; "" to wait, `lost` where it is too late."""
    if seat.units <= 0:
        return ""
    if seat.now > seat.last_moment:
        return "lost"
    if seat.now >= seat.until + WINDOW_SHARE * seat.claim_window:
        return "window"
    if seat.silent_s >= policy.patience_s:
        return "silent"
    if seat.stalled_s >= seat.accept_s + policy.patience_s:
        return "unaccepted"
    return ""


def obstacle(order: Order, terms: Terms, *, convicted: bool) -> tuple[str, str] | None:
    """What makes a claim impossible for this seat for ever: (code, sentence)."""
    if order.auditors != Auditors.OPEN:
        return "no_claim", "The job's auditors are the payer's own: its units cannot be claimed."
    if order.claim_bond < terms.court_fee:
        bond, fee = amounts.show(order.claim_bond), amounts.show_up(terms.court_fee)
        return "no_claim", f"The order's claim bond of {bond} is less than the Court's fee of {fee}."
    if convicted:
        return "convicted", "Two drawn auditors found another result than this node: a claim would cost its stake."
    return None


def retry_s(tries: int) -> float:
    return backoff_s(tries, RETRY_FIRST_S, RETRY_MAX_S)


def share_of_pay(pay_wei: int, parameters_fee_bp: int) -> int:
    """What the first transaction of a claim may cost in gas, of what the claim brings after the fee; rounded down."""
    net = pay_wei - pay_wei * parameters_fee_bp // 10_000
    return net // GAS_SHARE
