"""Whether a quarrel is worth its money: what a conviction brings, what losing costs, what an appeal costs. Pure; every
no has a code and a sentence.

Shares as JobEscrow and Accusations pay them (docs/PROTOCOL.md section 6): of what is slashed 40 % go to the payer,
20 % to whoever proved it, and out of the Court's 15 % as much of its fee goes back to the accuser as that reaches.
"""

from __future__ import annotations

from tallymesh import amounts
from tallymesh.messages import Auditors, Order
from tallymesh_ledger.court import COURT_SHARE_BP, Case, Ruling, Terms

BP = 10_000
PAYER_BP, PROVER_BP = 4_000, 2_000  # of what is slashed
# Of an accuser's bond that a conviction has to bring beyond its cost: a panel that errs, or a program that gives two
# results, may lose one case in ten.
RISK_BP = 1_000

AGAINST_ACCUSER = (Ruling.FOR_ACCUSED, Ruling.UNSERVED)  # a void costs the fee, and is no error of the panel's


def conviction_wei(lock_left: int, *, payer: bool) -> int:
    """What the lock brings its prover, rounded down; `payer`: it is the job's payer, too."""
    brings = lock_left * PROVER_BP // BP
    return brings + lock_left * PAYER_BP // BP if payer else brings


def cost_wei(lock_left: int, terms: Terms) -> int:
    """What a conviction costs its prover: what the Court's share of the slash does not repay of the fee."""
    return max(0, terms.fee - lock_left * COURT_SHARE_BP // BP)


def obstacle(order: Order, terms: Terms, *, lock_left: int, payer: bool) -> tuple[str, str] | None:
    """What keeps this seat from being accused, by its order and what is left to take: (code, sentence)."""
    if order.auditors != Auditors.OPEN:
        return (
            "payers_auditors",
            "The job's auditors are the payer's own: its units cannot be brought before the Court.",
        )
    if not lock_left:
        return "no_lock", "Nothing of the worker's stake is locked for this seat."
    brings, cost = conviction_wei(lock_left, payer=payer), cost_wei(lock_left, terms)
    bond = terms.accusation_bond(order)
    if brings < cost + bond * RISK_BP // BP:
        return (
            "not_worth",
            f"A conviction brings {amounts.show(brings)}, too little for its cost of {amounts.show_up(cost)} and a "
            f"bond of {amounts.show_up(bond)} at risk.",
        )
    return None


def appeals(case: Case, terms: Terms, *, accused: bool, at_stake: int) -> bool:
    """Whether a party that is right appeals from this ruling. What it costs does not come back but for the first
    panel's fee, which is forfeited to whom the appeal proves right."""
    against = case.ruling is Ruling.FOR_ACCUSER if accused else case.ruling in AGAINST_ACCUSER
    return against and not case.appealed and at_stake > terms.appeal_fee
