"""A quarrel as its parties, its members and the contracts see it: an accusation, its case before the Court, the votes
(contracts/src/interfaces/ICourt.sol and IAccusations.sol; docs/PROTOCOL.md sections 5 and 6).

Pure. What a value of a unit is, and how it is found, is not said here; this module asks no chain and signs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from tallymesh.exchange import Opening
from tallymesh.ids import ZERO32
from tallymesh.messages import Order, Tally
from tallymesh_ledger import merkle
from tallymesh_ledger.eip712 import keccak, word

SEED_DELAY = 4  # blocks from the call of a panel to the one whose randomness seeds it
KEPT_BLOCKS = 256  # for which the chain keeps that randomness
MAX_REDRAWS = 3  # of one panel
STEPS_MAX = 1 << 20  # of a unit that can be told apart; of a longer one the Court votes on the end at once
EXCHANGES_MAX = 20  # that STEPS_MAX takes
UNSERVED = ZERO32  # the vote of a member that could not get what it needs
COURT_SHARE_BP = 1_500  # of slashed stake: as much of it as the Court's fee goes back to an accuser that was right
DOMAIN_ACCUSATION = keccak(b"tallymesh.accusation.1")


class CaseState(IntEnum):
    NONE = 0
    POSTING = 1  # the accused moves
    ANSWERING = 2  # the accuser moves
    DRAWING = 3
    VOTING = 4
    APPEALABLE = 5
    RULED = 6


class Ruling(IntEnum):
    NONE = 0
    FOR_ACCUSED = 1
    FOR_ACCUSER = 2
    VOID = 3
    UNSERVED = 4
    NO_QUORUM = 5


class Vote(IntEnum):
    NONE = 0
    ACCUSED = 1
    ACCUSER = 2
    OTHER = 3
    UNSERVED = 4


# votes that a ruling proves right: they share their panel's fee
RIGHT: dict[Ruling, frozenset[Vote]] = {
    Ruling.FOR_ACCUSED: frozenset({Vote.ACCUSED}),
    Ruling.FOR_ACCUSER: frozenset({Vote.ACCUSER}),
    Ruling.UNSERVED: frozenset({Vote.UNSERVED}),
    Ruling.VOID: frozenset({Vote.ACCUSED, Vote.ACCUSER, Vote.OTHER}),
}


class Word(IntEnum):
    """What binds a worker to a leaf."""

    RECEIPT = 0
    TALLY = 1
    CLAIM = 2


class Parties(msgspec.Struct, frozen=True, kw_only=True):
    """None of them, nor their owners, may be members."""

    accused: bytes
    accuser: bytes
    payer: bytes
    signer: bytes
    numeric_class: bytes


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """`start` is value 0 of the unit, `end` value `steps`."""

    accused_start: bytes
    accused_end: bytes
    accuser_start: bytes
    accuser_end: bytes
    steps: int


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """As the contract holds it: they agree on value `lo` (`agreed`) and disagree on value `hi`. Where hi is 0 they
    disagree on the start. Members say what value `hi` is, recomputed from value `lo`, however far apart the two are."""

    state: CaseState
    ruling: Ruling  # provisional until RULED
    appealed: bool
    redraws: int
    round: int
    first_round: int
    lo: int
    hi: int
    deadline: int  # of the state; VOTING: of the commitments
    reveal_until: int
    drawn_block: int
    slots: int
    committed: int
    revealed: int
    for_accused: int
    for_accuser: int
    unserved: int
    taken: bool  # whoever opened it has carried the ruling out
    fee: int
    appeal_fee: int
    appellant: bytes
    agreed: bytes
    accused_value: bytes
    accuser_value: bytes
    posted: bytes
    seed: bytes

    @property
    def middle(self) -> int:
        """The value that the next exchange is about."""
        return (self.lo + self.hi) // 2


class Ballot(msgspec.Struct, frozen=True, kw_only=True):
    commitment: bytes
    member: bytes  # zero: nobody has committed
    vote: Vote


class Member(msgspec.Struct, frozen=True):
    """One place on a panel, and the attempt that found its account."""

    number: int
    attempt: int
    account: bytes


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker is bound to a leaf at a position of its seat."""

    word: Word
    leaf: bytes
    signature: bytes = b""  # 65 bytes; of a Receipt or Tally
    tally: Tally | None = None
    claim: bytes = ZERO32
    path: Sequence[bytes] = ()  # of a Tally or Claim


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """The unit in question as the worker's leaf has it, and what the accuser found instead."""

    position: int
    statement: Statement
    opening: Opening
    assign: bytes  # the signer's signature, 65 bytes
    own_start: bytes
    own_end: bytes
    steps: int


class Accusation(msgspec.Struct, frozen=True, kw_only=True):
    accuser: bytes
    blocking: bool  # a claim of the seat waits for it
    ended: bool
    bond: int  # beside the fee
    seat: bytes


class Accused(msgspec.Struct, frozen=True, kw_only=True):
    """An accusation as it was made. Its id is that of its case."""

    id: bytes
    seat: bytes
    accuser: bytes
    position: int
    bond: int
    block: int
    at: int  # chain time


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A case as it was opened."""

    case: bytes
    accused: bytes
    accuser: bytes
    dispute: Dispute
    block: int
    at: int  # chain time


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a case is about. An accusation's leaf is in the case's id; of a claim's sample the chain has the unit."""

    seat: bytes
    position: int
    steps: int  # as the accuser counted them: this value is the unit's end, however many steps that takes
    claim: bytes = b""  # b"": an accusation
    sample: int = 0
    unit_id: bytes = b""  # b"": follows from the leaf, as `accusation_id` proves it


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Credits of one account, in wei."""

    court: int
    accusations: int


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the contracts of a network say once and for ever. Times in seconds, amounts in wei."""

    quorum: int  # accounts besides the parties that must be staked in the class
    panel: int
    appeal_panel: int
    member_fee: int
    move_s: int
    commit_s: int
    reveal_s: int
    appeal_s: int

    @property
    def fee(self) -> int:
        """What a case costs."""
        return self.panel * self.member_fee

    @property
    def appeal_fee(self) -> int:
        return self.appeal_panel * self.member_fee

    def size(self, case: Case) -> int:
        """Of the present panel."""
        return self.appeal_panel if case.appealed else self.panel

    def accusation_bond(self, order: Order) -> int:
        """What an accuser puts up, the fee among it."""
        return self.fee + order.claim_bond

    @property
    def voting_s(self) -> int:
        """For how long a panel sits."""
        return self.commit_s + self.reveal_s

    @property
    def case_s(self) -> int:
        """The longest that a case can last, without what its draws wait for blocks and for somebody to call them."""
        panels = 2 * (MAX_REDRAWS + 1) * self.voting_s
        return 2 * EXCHANGES_MAX * self.move_s + panels + self.appeal_s


def accusation_id(seat: bytes, position: int, leaf: bytes, accuser: bytes) -> bytes:
    """Of the accusation, and of its case."""
    return keccak(b"".join(word(part) for part in (DOMAIN_ACCUSATION, seat, position, leaf, accuser)))


def accusation_of(seat: bytes, position: int, opening: Opening, accuser: bytes) -> bytes:
    """The same, from what the leaf holds: so whoever shows the opening proves which unit a case is about."""
    return accusation_id(seat, position, merkle.leaf(seat, position, opening), accuser)


def vote(result: bytes, salt: bytes, account: bytes) -> bytes:
    """The commitment of a member to its vote: a copy of it opens for nobody else."""
    return keccak(result + salt + word(account))
