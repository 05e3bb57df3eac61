"""What each event of the contracts moves, in whose purse: one line of one table for each kind of event.

A rule is a sentence for people and any number of moves, each `purse account terms`. The account is a field of the
event, or `payer` of the job (`worker` of the seat) that the event names; a term is a field of the event or a constant
of the contracts, with its sign, or a product of two. `court?` is a contract that a network may not have: then nothing
moves. What is not in the table is kept in the index and moves nothing,
so that an event which a later contract adds does no harm; what a field means is written in contracts/src/interfaces.

What a quarrel's events move depends on what happened before them: quarrels.py says it, and the rules here only name
them. The moves of one account in one purse add up to what the chain says that the purse holds: see Purse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

_MOVE = re.compile(r"[a-z]+ [A-Za-z]+\??( [+-][A-Za-z]+(\*[A-Za-z]+)?)+")


class Purse(StrEnum):
    """Where wei of an account can be, and the view of the contracts that its moves add up to."""

    TOKENS = "tokens"  # Token.balanceOf
    CREDITS = "credits"  # JobEscrow.creditOf: earned or refunded, not yet withdrawn
    STAKE = "stake"  # Registry.stakeOf: free + locked + unbonding
    ESCROW = "escrow"  # as a payer: what its jobs hold, open seats included
    LOCKED = "locked"  # Registry.stakeOf: locked; a part of the stake, not beside it
    AWARDS = "awards"  # creditOf of Claims, Accusations and Court together, not yet withdrawn
    BONDS = "bonds"  # what quarrels may still cost it; it was tokens and becomes awards, its own or another's
    REWARDS = "rewards"  # what was ever collected from Rewards; it went to the tokens


WEALTH = (
    Purse.TOKENS,
    Purse.CREDITS,
    Purse.STAKE,
    Purse.ESCROW,
    Purse.AWARDS,
    Purse.BONDS,
)  # what an account has is the sum of these
VIEWED = tuple(purse for purse in Purse if purse not in (Purse.BONDS, Purse.REWARDS))  # the contracts have a view of it
PAY = (Purse.CREDITS, Purse.AWARDS, Purse.REWARDS)  # what is earned arrives in these


class Move(msgspec.Struct, frozen=True):
    """`amount` wei (with its sign) in one purse of one account."""

    purse: Purse
    account: bytes
    amount: int


class Rule(msgspec.Struct, frozen=True):
    says: str
    moves: tuple[tuple[Purse, str, tuple[str, ...]], ...]
    earns: bool

    def apply(self, values: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[Move]:
        """The moves that are not zero. `known` has the constants, and `payer` and `worker` where the event names a job
        or a seat; KeyError where the event needs one that is not known."""
        for purse, whose, terms in self.moves:
            if whose.endswith("?") and whose[:-1] not in known:
                continue
            account = values[whose] if whose in values else known[whose.rstrip("?")]
            amount = sum(_term(term, values, known) for term in terms)
            if amount:
                yield Move(purse, account, amount)


def _rule(says: str, *moves: str, earns: bool = False) -> Rule:
    parsed = []
    for move in moves:
        assert _MOVE.fullmatch(move), move
        purse, whose, *terms = move.split(" ")
        parsed.append((Purse(purse), whose, tuple(terms)))
    return Rule(says, tuple(parsed), earns)


def _term(term: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> int:
    product = -1 if term[0] == "-" else 1
    for name in term[1:].split("*"):
        product *= int(values[name] if name in values else known[name])
    return product


# what never changes: its contract, and the view that says it
CONSTANTS = {"slotWei": ("Registry", "slotWei"), "courtFee": ("Court", "fee")}
# who is credited like anybody: on a network without a Court the escrow names Rewards in its place
PARTIES = {"court": ("JobEscrow", "court")}

# One line an event: (contract, event) -> what it says, what it moves.
RULES: dict[tuple[str, str], Rule] = {
    ("Token", "Transfer"): _rule("transfer", "tokens from -value", "tokens to +value"),
    ("Registry", "SlotsBought"): _rule("slots bought", "stake account +count*slotWei"),
    ("Registry", "SlotReleased"): _rule("slot released"),
    ("Registry", "Deposited"): _rule("stake earned", "stake account +amount"),
    ("Registry", "DepositUsed"): _rule("deposit became slots", "stake account -amount"),  # SlotsBought adds them
    ("Registry", "DepositReleased"): _rule("deposit released"),
    ("Registry", "StakeSlashed"): _rule("stake slashed", "stake account -amount", "locked account -amount"),
    ("Registry", "DebtChanged"): _rule("debt"),
    ("Registry", "StakeWithdrawn"): _rule("stake withdrawn", "stake account -amount"),
    ("Registry", "OwnerChanged"): _rule("owner changed"),
    ("JobEscrow", "JobOpened"): _rule("job opened", "escrow payer +wages +auditReserve"),
    ("JobEscrow", "SeatOpened"): _rule("seat taken", "locked worker +lock"),
    ("JobEscrow", "Settled"): _rule("pay for units", "credits worker +amount -fee", "escrow payer -amount", earns=True),
    ("JobEscrow", "AuditPaid"): _rule("audit pay", "credits auditor +amount", "escrow payer -amount", earns=True),
    ("JobEscrow", "SeatClosed"): _rule("seat closed"),
    ("JobEscrow", "BondReturned"): _rule("claim bond returned"),
    ("JobEscrow", "BondTaken"): _rule("claim bond spent", "credits to +amount", "escrow payer -amount", earns=True),
    ("JobEscrow", "Slashed"): _rule(
        "share of slashed stake", "credits payer +toPayer", "credits prover +toProver", "credits court? +toCourt"
    ),
    ("JobEscrow", "Refunded"): _rule("refund", "credits payer +wages +reserve", "escrow payer -wages -reserve"),
    ("JobEscrow", "LockEnded"): _rule("lock ended", "locked worker -lock"),
    ("JobEscrow", "CreditWithdrawn"): _rule("credits withdrawn", "credits account -amount"),
    ("JobEscrow", "CreditSpent"): _rule("relayed for a fee", "credits account -amount -fee", "credits carrier +fee"),
    ("JobEscrow", "Staked"): _rule("pay became stake", "credits account -amount"),  # Registry.Deposited adds it there
    ("JobEscrow", "FeesBurned"): _rule("fees burned", "credits court? +amount"),  # as much as was burned
    ("Rewards", "Collected"): _rule("reward collected", "rewards worker +amount", earns=True),
    ("Claims", "Claimed"): _rule("claim"),
    ("Claims", "AuditCommitted"): _rule("audit of a claim"),
    ("Claims", "AuditRevealed"): _rule("audit of a claim"),
    ("Claims", "SampleRuled"): _rule("ruling on a claim's unit"),
    ("Claims", "Challengeable"): _rule("claim decided"),
    ("Claims", "AuditorPaid"): _rule("audit pay of a claim", earns=True),
    ("Claims", "ClaimEnded"): _rule("claim ended"),
    ("Claims", "CreditWithdrawn"): _rule("awards withdrawn", "awards account -amount"),
    ("Accusations", "Accused"): _rule("accusation"),
    ("Accusations", "AccusationEnded"): _rule("accusation ended"),
    ("Accusations", "FraudProved"): _rule("fraud proved"),  # JobEscrow.Slashed says who gets what
    ("Accusations", "CreditWithdrawn"): _rule("awards withdrawn", "awards account -amount"),
    ("Court", "Appealed"): _rule("appeal"),
    ("Court", "Ruled"): _rule("ruling"),
    ("Court", "MemberPaid"): _rule("court member's pay", "awards account +amount", earns=True),
    ("Court", "AppellantPaid"): _rule("appeal paid back", "awards account +amount"),
    ("Court", "PoolBurned"): _rule("court's pool burned"),  # Token.Transfer takes it from the Court
    ("Court", "CreditWithdrawn"): _rule("awards withdrawn", "awards account -amount"),
}

AUDITS = ("AuditPaid", "AuditorPaid", "BondTaken")  # pay for one recomputed unit: of a job, or of a claim
EARNING = frozenset(name for (_, name), rule in RULES.items() if rule.earns)


def says(contract: str, name: str) -> str:
    """In words, of an event that is not in the table, too."""
    rule = RULES.get((contract, name))
    return rule.says if rule else f"{contract}.{name}" if name else f"an event of {contract} that is not known here"
