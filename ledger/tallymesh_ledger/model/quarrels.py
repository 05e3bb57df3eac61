"""What Claims and Accusations take and store, as IClaims and IAccusations name it, and how leaves are checked."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from tallymesh.messages import Tally
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.model.draws import words
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD
from tallymesh_ledger.model.signatures import Signature

DOMAIN_LEAF = keccak(b"tallymesh.leaf.1")
OPEN_TO_ALL = 0  # an order's `auditors`: only these have claims and accusations
MAX_LEAVES = 1 << 20


class State(IntEnum):
    NONE = 0
    PENDING = 1
    SAMPLING = 2
    REVEALING = 3
    CHALLENGEABLE = 4
    PAID = 5
    HALVED = 6
    FAILED = 7


class Heard(IntEnum):
    NONE = 0  # nobody committed
    COMMITTED = 1
    MATCH = 2
    UNAVAILABLE = 3
    DISPUTED = 4  # MISMATCH, before the Court
    ACQUITTED = 5  # the Court found the worker's value right
    UNSERVED = 6
    UPHELD = 7  # the Court found the auditor's value right
    VOID = 8
    UNDECIDED = 9


class Word(IntEnum):
    RECEIPT = 0
    TALLY = 1
    CLAIM = 2


class Claim(msgspec.Struct, frozen=True):
    state: State = State.NONE
    half: bool = False
    refuted: bool = False
    k: int = 0
    committed: int = 0
    opened: int = 0
    revealed: int = 0
    in_court: int = 0
    from_: int = 0
    count: int = 0
    sampled_at: int = 0
    deadline: int = 0
    slots: int = 0
    block_number: int = 0
    price: int = 0
    bond: int = 0
    left: int = 0
    claimer: bytes = ZERO_ADDRESS
    seat: bytes = ZERO_WORD
    root: bytes = ZERO_WORD
    chain: bytes = ZERO_WORD
    seed: bytes = ZERO_WORD


class Sample(msgspec.Struct, frozen=True):
    heard: Heard = Heard.NONE
    auditor: bytes = ZERO_ADDRESS
    commitment: bytes = ZERO_WORD
    opened: bytes = ZERO_WORD


class Quarrels(msgspec.Struct, frozen=True):
    """Of one seat: its live claim, and how far positions were claimed."""

    claim: bytes = ZERO_WORD
    claimed_to: int = 0


class Accusation(msgspec.Struct, frozen=True):
    accuser: bytes = ZERO_ADDRESS
    blocking: bool = False
    ended: bool = False
    bond: int = 0
    seat: bytes = ZERO_WORD


class Opening(NamedTuple):
    """One sample's leaf, with the signer's Assign of that position and the leaf's path."""

    sample: int
    unit_id: bytes
    start: bytes
    end: bytes
    salt: bytes
    aux: bytes
    assign: Signature
    path: Sequence[bytes]


class Finding(NamedTuple):
    """What an auditor says, beside the leaf as it was opened."""

    opened_start: bytes
    opened_end: bytes
    start: bytes
    end: bytes
    salt: bytes
    probe: bytes
    steps: int


class Statement(NamedTuple):
    """How a worker is bound to a leaf."""

    word: Word
    leaf: bytes
    signature: Signature
    tally: Tally
    claim: bytes
    path: Sequence[bytes]


class Charge(NamedTuple):
    """The unit in question, and what the accuser found instead."""

    position: int
    statement: Statement
    unit_id: bytes
    assign: Signature
    start: bytes
    end: bytes
    salt: bytes
    aux: bytes
    own_start: bytes
    own_end: bytes
    steps: int


def leaf(seat: bytes, position: int, unit: Opening | Charge) -> bytes:
    """Of one unit: hashed twice; the end hides behind the salt."""
    hidden = words(unit.end, unit.salt)
    return keccak(words(DOMAIN_LEAF, seat, position, unit.unit_id, unit.start, hidden, unit.aux))


def stands(root: bytes, count: int, index: int, value: bytes, path: Sequence[bytes]) -> bool:
    """Whether the leaf is at `index` of the `count` under the root (docs/PROTOCOL.md section 5.1)."""
    if not 0 <= index < count <= MAX_LEAVES or 1 << len(path) < count or (count <= 1 << len(path) >> 1):
        return False
    for sibling in path:
        value = keccak(sibling + value if index & 1 else value + sibling)
        index >>= 1
    return words(count, value) == root
