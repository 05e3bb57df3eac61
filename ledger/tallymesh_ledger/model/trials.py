"""What Court stores of a case, as ICourt names it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import msgspec

from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD


class State(IntEnum):
    NONE = 0
    POSTING = 1
    ANSWERING = 2
    DRAWING = 3
    VOTING = 4
    APPEALABLE = 5
    RULED = 6


class Ruling(IntEnum):
    NONE = 0
    FOR_ACCUSED = 1
    FOR_ACCUSER = 2
    VOID = 3  # the program gives no one answer: the payer answers for it
    UNSERVED = 4  # nobody served the disputed step's bytes: the accuser loses
    NO_QUORUM = 5


class Vote(IntEnum):
    NONE = 0
    ACCUSED = 1
    ACCUSER = 2
    OTHER = 3
    UNSERVED = 4


# votes that a ruling proves right, and so share a panel's fee
RIGHT: dict[Ruling, tuple[Vote, ...]] = {
    Ruling.FOR_ACCUSED: (Vote.ACCUSED,),
    Ruling.FOR_ACCUSER: (Vote.ACCUSER,),
    Ruling.VOID: (Vote.ACCUSED, Vote.ACCUSER, Vote.OTHER),
    Ruling.UNSERVED: (Vote.UNSERVED,),
}


class Dispute(NamedTuple):
    """What the two say: `start` is value 0, `end` value `steps`."""

    accused_start: bytes
    accused_end: bytes
    accuser_start: bytes
    accuser_end: bytes
    steps: int


class Case(msgspec.Struct, frozen=True):
    """They agree on value `lo` (`agreed`) and disagree on value `hi`."""

    state: State = State.NONE
    ruling: Ruling = Ruling.NONE
    appealed: bool = False
    redraws: int = 0
    round: int = 0
    first_round: int = 0
    lo: int = 0
    hi: int = 0
    deadline: int = 0
    reveal_until: int = 0
    drawn_block: int = 0
    slots: int = 0
    committed: int = 0
    revealed: int = 0
    for_accused: int = 0
    for_accuser: int = 0
    unserved: int = 0
    taken: bool = False
    fee: int = 0
    appeal_fee: int = 0
    appellant: bytes = ZERO_ADDRESS
    agreed: bytes = ZERO_WORD
    accused_value: bytes = ZERO_WORD
    accuser_value: bytes = ZERO_WORD
    posted: bytes = ZERO_WORD
    seed: bytes = ZERO_WORD


class Ballot(msgspec.Struct, frozen=True):
    commitment: bytes = ZERO_WORD
    member: bytes = ZERO_ADDRESS
    vote: Vote = Vote.NONE
