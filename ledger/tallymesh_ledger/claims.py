"""A claim as both of its sides and the contract see it: states, what is stored of it, its times, what it costs and pays
(contracts/src/interfaces/IClaims.sol; docs/PROTOCOL.md section 6).

Pure, and all of it can be redone by anybody: who is drawn for which unit follows from the claim's seed. This module
asks no chain and signs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from tallymesh.exchange import Opening
from tallymesh_ledger import merkle, sampling
from tallymesh_ledger.eip712 import keccak, word

CLAIM_TALLY = 2**32 - 1  # the number of a Tally that is signed for a claim
CLAIM_TALLIES = 2  # a claim is for at most the units of so many tallies: a worker runs no further ahead of its Accepts
SEED_DELAY = 4  # blocks from the claim to the one whose randomness seeds it
RANKS = 3  # auditors that may be asked for one sample, one after the other
SAMPLES_MIN, SAMPLES_MAX = 2, 16
STEPS_MAX = 1 << 20  # of a unit that the Court can tell apart; of a longer one it votes on the end at once
FEE_BP = 11_000  # an auditor's pay, of the unit's price: as off chain
DOMAIN_CLAIM = keccak(b"tallymesh.claim.1")
DOMAIN_CASE = keccak(b"tallymesh.case.1")
# What an auditor says the end is where the program gave none on its machine: the zero word means UNAVAILABLE, which
# says nothing against the worker.
NO_OUTPUT = keccak(b"tallymesh.no-output.1")


class ClaimState(IntEnum):
    NONE = 0
    PENDING = 1
    SAMPLING = 2
    REVEALING = 3
    CHALLENGEABLE = 4
    PAID = 5
    HALVED = 6
    FAILED = 7

    @property
    def ended(self) -> bool:
        return self >= ClaimState.PAID


class Heard(IntEnum):
    """What became of one sample."""

    NONE = 0  # nobody committed
    COMMITTED = 1
    MATCH = 2
    UNAVAILABLE = 3
    DISPUTED = 4  # before the Court
    ACQUITTED = 5
    UNSERVED = 6
    UPHELD = 7
    VOID = 8
    UNDECIDED = 9


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """As the contract holds it. `from_` is the first position, `bond` what each side put up."""

    state: ClaimState
    half: bool
    refuted: bool
    k: int
    committed: int
    opened: int
    revealed: int
    in_court: int
    from_: int
    count: int
    sampled_at: int
    deadline: int  # Sampling: of the openings; Revealing; Challengeable
    slots: int
    block_number: int  # of the claim
    price: int
    bond: int
    left: int
    claimer: bytes
    seat: bytes
    root: bytes
    chain: bytes
    seed: bytes

    def positions(self) -> list[int]:
        """Of the k units drawn, by sample. Empty before there is a seed."""
        if not any(self.seed):
            return []
        return [self.from_ + index for index in sampling.draw_units(self.seed, self.count, self.k)]

    @property
    def audit_fee(self) -> int:
        """What an auditor's Match brings, in wei, rounded down."""
        return min(self.price * FEE_BP // sampling.BP, self.bond // self.k)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    heard: Heard
    auditor: bytes
    commitment: bytes
    opened: bytes  # keccak of the leaf's start and end; zero until it is opened

    @property
    def taken(self) -> bool:
        return any(self.auditor)

    @property
    def shown(self) -> bool:
        return any(self.opened)


class Draw(msgspec.Struct, frozen=True):
    """Who may audit one sample at one rank, and the attempt that found it."""

    sample: int
    rank: int
    attempt: int
    auditor: bytes


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the contracts of a network say once and for ever. Times in seconds, `court_fee` in wei."""

    commit_s: int
    open_s: int
    reveal_s: int
    challenge_s: int
    court_fee: int
    quorum: int  # accounts besides the parties that must be staked in the class

    def commit_by(self, claim: Claim) -> int:
        """From then on nobody commits any more, and leaves may be opened."""
        return claim.sampled_at + RANKS * self.commit_s

    def rank_from(self, claim: Claim, rank: int) -> int:
        return claim.sampled_at + rank * self.commit_s

    @property
    def watched_s(self) -> int:
        """For how long after its seed a claim may still need an auditor."""
        return RANKS * self.commit_s


class SignedOpening(msgspec.Struct, frozen=True):
    """A leaf of one sample, the signer's Assign of its position, and the path to the claim's root."""

    sample: int
    opening: Opening
    assign: bytes  # signature, 65 bytes
    path: Sequence[bytes]


class Shown(msgspec.Struct, frozen=True):
    """A leaf of a claim as it was opened on chain, with its path to the claim's root."""

    position: int
    leaf: bytes
    path: Sequence[bytes]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What an auditor says, beside the leaf as it was opened. `end` zero: UNAVAILABLE."""

    opened_start: bytes
    opened_end: bytes
    start: bytes
    end: bytes
    salt: bytes
    probe: bytes
    steps: int


def claim_id(seat: bytes, root: bytes, start: int, count: int) -> bytes:
    return keccak(b"".join(word(part) for part in (DOMAIN_CLAIM, seat, root, start, count)))


def case_id(claim: bytes, sample: int) -> bytes:
    """Of the Court's case about one sample."""
    return keccak(word(DOMAIN_CASE) + word(claim) + word(sample))


def sample_count(count: int, rate_bp: int) -> int:
    """k = min(count, max(2, rate x count rounded up), 16)."""
    k = -(-rate_bp * count // sampling.BP)
    return min(count, min(SAMPLES_MAX, max(SAMPLES_MIN, k)))


def claimable(received: int, paid: int, claimed_to: int, tally_units: int, units: int) -> range:
    """Positions that a claim may be for: contiguous from what is paid on, at most two tallies; none where they were
    claimed once. `received`: contiguous receipts from position 0 on."""
    end = min(received, paid + CLAIM_TALLIES * tally_units, units)
    return range(paid, end) if paid >= claimed_to else range(paid, paid)


def openings(
    claim: Claim, samples: Sequence[Sample], leaves: Sequence[bytes], shown: dict[int, tuple[Opening, bytes]]
) -> list[SignedOpening]:
    """The leaves that are not opened yet. `leaves` are those of the claim in order, `shown` opening and Assign's
    signature by position."""
    found = []
    for sample, position in enumerate(claim.positions()):
        if not samples[sample].shown:
            opening, assign = shown[position]
            path = merkle.path(leaves, position - claim.from_)
            found.append(SignedOpening(sample, opening, assign, path))
    return found
