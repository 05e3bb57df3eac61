"""Who waits for what, how long, and what it does then: one table for every step of the protocol (section 2).

Pure: the numbers come from the network's Parameters and the declared work of a unit; nothing here reads a clock. Both
sides of a wait use the same line, so that nobody gives up on a peer that is still within its right.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from tallymesh.parameters import Parameters


class Step(Enum):
    LEASE_ANSWER = "lease_answer"  # LeaseRequest sent, the worker's signature not here
    SEAT = "seat"  # Lease signed by both, not on chain
    UNIT = "unit"  # Assign sent, no Receipt
    HEARTBEAT = "heartbeat"  # sign of life while a seat is open
    TALLY = "tally"  # all receipts of a tally are here, the Tally is not
    SECRET = "secret"  # Tally sent, c_e not shown
    AUDIT_COMMIT = "audit_commit"  # AuditOrder sent, nothing committed to
    OPEN = "open"  # AuditCommit sent, no Open
    VERDICT = "verdict"  # Open sent, no Verdict
    ACCEPT = "accept"  # c_e shown, no Accept although the verdicts are in
    RELEASE = "release"  # last Accept sent after a final Close, no Release


class Side(Enum):
    PAYER = "payer"
    WORKER = "worker"
    AUDITOR = "auditor"


class Then(Enum):
    """What the waiting side does when the time is over."""

    ASK_ANOTHER = "ask_another"  # another worker gets the lease
    LEAVE = "leave"  # the worker takes no further unit
    GIVE_UP = "give_up"  # the signer tallies what it has receipts for; the work goes to others
    TALLY_IN_PLACE = "tally_in_place"  # the same, and the signer signs the Tally in the worker's place
    NEXT_ATTEMPT = "next_attempt"  # the auditor counts as silent, the next one is drawn
    DROP = "drop"  # the auditor ends this audit: it has not been paid, and owes nothing
    EXPIRE = "expire"  # the seat is closed on chain when its lease and the claim window are over


class Wait(msgspec.Struct, frozen=True):
    waits: Side
    for_whom: Side
    then: Then


TABLE: dict[Step, Wait] = {
    Step.LEASE_ANSWER: Wait(Side.PAYER, Side.WORKER, Then.ASK_ANOTHER),
    Step.SEAT: Wait(Side.WORKER, Side.PAYER, Then.LEAVE),
    Step.UNIT: Wait(Side.PAYER, Side.WORKER, Then.GIVE_UP),
    Step.HEARTBEAT: Wait(Side.PAYER, Side.WORKER, Then.GIVE_UP),
    Step.TALLY: Wait(Side.PAYER, Side.WORKER, Then.TALLY_IN_PLACE),
    Step.SECRET: Wait(Side.WORKER, Side.PAYER, Then.LEAVE),
    Step.AUDIT_COMMIT: Wait(Side.PAYER, Side.AUDITOR, Then.NEXT_ATTEMPT),
    Step.OPEN: Wait(Side.AUDITOR, Side.PAYER, Then.DROP),
    Step.VERDICT: Wait(Side.PAYER, Side.AUDITOR, Then.NEXT_ATTEMPT),
    Step.ACCEPT: Wait(Side.WORKER, Side.PAYER, Then.LEAVE),
    Step.RELEASE: Wait(Side.PAYER, Side.WORKER, Then.EXPIRE),
}

SEAT_BY_S = 120.0  # a lease waits this long for its transaction: many blocks on any chain, short for the worker's stake


def seconds(step: Step, parameters: Parameters, *, work_ms: int = 0, audits: int = 0) -> float:
    """How long the waiting side waits.

    `work_ms` is the declared work of one unit in reference-milliseconds. ACCEPT comes after the tally's audits, so it
    grows with the most calls that one unit may need one after the other (`audits`, 0 where none are outstanding).
    """
    unit = parameters.unit_work_factor * work_ms / 1000 + parameters.unit_grace_s
    match step:
        case Step.LEASE_ANSWER:
            return parameters.lease_answer_s
        case Step.SEAT:
            return SEAT_BY_S
        case Step.UNIT | Step.AUDIT_COMMIT:
            return unit
        case Step.HEARTBEAT:
            return parameters.heartbeat_s * parameters.heartbeats_missed
        case Step.TALLY:
            return parameters.tally_due_s
        case Step.SECRET:
            return parameters.secret_s
        case Step.OPEN:
            return parameters.open_s
        case Step.VERDICT:
            return parameters.verdict_s
        case Step.ACCEPT:
            return parameters.accept_s + audits * (unit + parameters.open_s + parameters.verdict_s)
        case Step.RELEASE:
            return parameters.accept_s
