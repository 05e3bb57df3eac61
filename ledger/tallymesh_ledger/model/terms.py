"""What goes into JobEscrow and what it stores, as IJobEscrow names them: arguments, states, reasons.

Argument types are tuples in the order of the Solidity structs, so that one value serves the model and the ABI.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import msgspec

from tallymesh.messages import Accept, AuditOrder, Lease, Release, Verdict
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD
from tallymesh_ledger.model.signatures import NONE, Signature


class Refusal(IntEnum):
    """Why an item of a batch was not done."""

    NONE = 0
    WRONG_JOB = 1
    WRONG_SEAT = 2
    NOT_OPEN = 3
    ALREADY_SEATED = 4
    TOO_LATE = 5
    TOO_EARLY = 6
    BAD_TERM = 7
    NO_UNITS = 8
    LOCK_TOO_SMALL = 9
    PRICE_TOO_HIGH = 10
    OVER_BUDGET = 11
    NEEDS_PAYER = 12
    NO_STAKE = 13
    BAD_SIGNATURE = 14
    NOTHING_NEW = 15
    NOT_PAID_YET = 16
    BAD_AUDIT = 17
    ALREADY_PAID = 18
    DISPUTED = 19


class SeatState(IntEnum):
    NONE = 0
    OPEN = 1
    CLOSED = 2  # pays no more; the lock still holds
    UNLOCKED = 3  # what was left of the lock was given back


class Job(msgspec.Struct, frozen=True):
    """What a job holds outside its open seats. `signer` zero: never opened."""

    signer: bytes = ZERO_ADDRESS
    free: int = 0
    reserve: int = 0
    signer_seated: int = 0
    open_seats: int = 0
    last_closed: int = 0


class Seat(msgspec.Struct, frozen=True):
    """`bond`: what is left of the order's claim bond; `until`: the end of the lease and, once closed, when that was."""

    bond: int = 0
    units: int = 0
    paid_units: int = 0
    until: int = 0
    state: SeatState = SeatState.NONE
    cases: int = 0
    by_signer: bool = False
    own_lock: bool = False
    newcomer: bool = False


class Seating(NamedTuple):
    lease: Lease
    worker: Signature = NONE
    signer: Signature = NONE


class Settlement(NamedTuple):
    lease: Lease
    accept: Accept
    signature: Signature = NONE


class Closing(NamedTuple):
    lease: Lease
    release: Release
    signature: Signature = NONE


class Audit(NamedTuple):
    order: AuditOrder
    order_signature: Signature
    verdict: Verdict
    verdict_signature: Signature


NO_ACCEPT = Accept(seat=ZERO_WORD, tally=0, units=0, chain=ZERO_WORD, next_secret=ZERO_WORD)
NO_RELEASE = Release(seat=ZERO_WORD, units=0)


class SeatEnd(NamedTuple):
    """All that ends one seat; what is left out is zero."""

    lease: Lease
    accept: Accept = NO_ACCEPT
    accept_signature: Signature = NONE
    release: Release = NO_RELEASE
    release_signature: Signature = NONE
    audits: tuple[Audit, ...] = ()
