"""What quarrels move, which no single event says: who has how much at stake, and who got what of it.

Claims, Accusations and Court tell of every step and name few amounts: what a bond became follows from all that happened
to its claim or case before (contracts/src/interfaces: IClaims, IAccusations, ICourt). So this reads their events in
order, keeps what is undecided, and says the moves of each. It knows no database and no chain; the fee of the Court is a
constant of the contracts. `feed` in any other order than the chain's is a mistake.

Two purses: `bonds`, tokens of an account that a quarrel may still cost it, the Court's fee among them; `awards`, what
the three contracts have credited to it. Bonds, awards and the Court's pool add up to the tokens that the three hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from tallymesh_ledger.claims import ClaimState, Heard
from tallymesh_ledger.index.effects import Move, Purse

Values = Mapping[str, Any]

CONTRACTS = ("Claims", "Accusations", "Court")
# What of the escrow's a conviction pays back from.
ESCROW = ("Slashed",)
# The event that names a quarrel's seat first, and the field with the quarrel's id …
BEGINNINGS = {("Claims", "Claimed"): "claim", ("Accusations", "Accused"): "accusation"}
DISPUTED = ("Claims", "SampleDisputed")  # … and the one that names a case of a claim
IDS = ("claim", "accusation", "courtCase", "id")  # fields that name a quarrel
FOR_ACCUSED, FOR_ACCUSER, UNSERVED = 1, 2, 4  # ICourt.Ruling


class _Sample(msgspec.Struct):
    auditor: bytes
    heard: Heard = Heard.COMMITTED
    silent: bool = False  # its bond is the Court's
    case: bytes = b""


class _Claim(msgspec.Struct):
    seat: bytes
    claimer: bytes
    bond: int
    left: int
    k: int = 0
    opened: int = 0
    samples: dict[int, _Sample] = {}


class _Case(msgspec.Struct):
    """Of an accusation, or of one sample of a claim. `fee` is what is left of the accuser's in the Court."""

    seat: bytes
    accuser: bytes
    bond: int
    fee: int
    decided: bool = False
    appellant: bytes = b""
    appeal_fee: int = 0


class Party(msgspec.Struct, frozen=True):
    """Whom a seat is between."""

    payer: bytes
    worker: bytes


class Quarrels:
    """`fee` is Court.fee(); `party` looks a seat up and raises KeyError where it is not known."""

    def __init__(self, fee: int, party: Callable[[bytes], Party]) -> None:
        self._fee = fee
        self._party = party
        self._claims: dict[bytes, _Claim] = {}
        self._cases: dict[bytes, _Case] = {}
        self._convicting: dict[bytes, tuple[bytes, int]] = {}  # seat -> (accuser, what members earned of its fee)

    def feed(self, contract: str, name: str, values: Values) -> Iterator[Move]:
        """The moves of one event that are not zero. KeyError where it is of a quarrel whose beginning was not fed."""
        if contract == "JobEscrow" and name not in ESCROW:
            return
        take = getattr(self, f"_{contract}_{name}", None)
        if take is not None:
            yield from (move for move in take(values) if move.amount)

    # ---- claims

    def _Claims_Claimed(self, v: Values) -> Iterator[Move]:
        self._claims[v["claim"]] = claim = _Claim(v["seat"], v["claimer"], v["bond"], v["bond"])
        yield _at_stake(claim.claimer, claim.bond)

    def _Claims_Captured(self, v: Values) -> Iterator[Move]:
        self._claims[v["claim"]].k = v["k"]
        return iter(())

    def _Claims_AuditCommitted(self, v: Values) -> Iterator[Move]:
        claim = self._claims[v["claim"]]
        claim.samples[v["sample"]] = _Sample(v["auditor"])
        yield _at_stake(v["auditor"], claim.bond)

    def _Claims_LeafOpened(self, v: Values) -> Iterator[Move]:
        self._claims[v["claim"]].opened += 1
        return iter(())

    def _Claims_AuditRevealed(self, v: Values) -> Iterator[Move]:
        claim = self._claims[v["claim"]]
        sample = claim.samples[v["sample"]]
        sample.heard = Heard(v["heard"])
        if sample.heard is not Heard.DISPUTED:
            yield from _given(sample.auditor, claim.bond)

    def _Claims_SampleDisputed(self, v: Values) -> Iterator[Move]:
        claim = self._claims[v["claim"]]
        sample = claim.samples[v["sample"]]
        sample.case = v["courtCase"]
        self._cases[sample.case] = _Case(claim.seat, sample.auditor, claim.bond - self._fee, self._fee)
        return iter(())

    def _Claims_SampleRuled(self, v: Values) -> Iterator[Move]:
        """What members left of the auditor's bond goes to whom the Court found right."""
        claim = self._claims[v["claim"]]
        sample = claim.samples[v["sample"]]
        sample.heard = Heard(v["heard"])
        case = self._cases[sample.case]
        back, spent = case.bond + case.fee, self._fee - case.fee
        yield _at_stake(sample.auditor, -back)
        if sample.heard is Heard.UPHELD:
            repaid = min(spent, claim.left)
            claim.left -= repaid
            yield _at_stake(claim.claimer, -repaid)
            yield _award(sample.auditor, back + repaid)
        elif sample.heard in (Heard.ACQUITTED, Heard.UNSERVED):
            yield _award(self._party(claim.seat).worker, back)
        else:
            yield _award(sample.auditor, back)

    def _Claims_Challengeable(self, v: Values) -> Iterator[Move]:
        yield from self._silenced(self._claims[v["claim"]])

    def _Claims_AuditorPaid(self, v: Values) -> Iterator[Move]:
        claim = self._claims[v["claim"]]
        claim.left -= v["amount"]
        yield _at_stake(claim.claimer, -v["amount"])
        yield _award(v["auditor"], v["amount"])

    def _Claims_ClaimEnded(self, v: Values) -> Iterator[Move]:
        claim = self._claims[v["claim"]]
        failed = ClaimState(v["state"]) is ClaimState.FAILED
        if failed and claim.opened < claim.k:  # its leaves were not opened in time: no fault of who had committed
            for sample in claim.samples.values():
                yield from _given(sample.auditor, claim.bond)
        else:
            yield from self._silenced(claim)
        yield _at_stake(claim.claimer, -claim.left)
        yield _award(self._party(claim.seat).payer if failed else claim.claimer, claim.left)
        claim.left = 0

    def _silenced(self, claim: _Claim) -> Iterator[Move]:
        """Bonds of auditors that did not open what they had committed to: the Court has them."""
        for sample in claim.samples.values():
            if sample.heard is Heard.COMMITTED and not sample.silent:
                sample.silent = True
                yield _at_stake(sample.auditor, -claim.bond)

    # ---- accusations

    def _Accusations_Accused(self, v: Values) -> Iterator[Move]:
        self._cases[v["accusation"]] = case = _Case(v["seat"], v["accuser"], v["bond"], self._fee)
        yield _at_stake(case.accuser, case.bond + case.fee)

    def _Accusations_AccusationEnded(self, v: Values) -> Iterator[Move]:
        case = self._cases[v["accusation"]]
        yield _at_stake(case.accuser, -case.bond - case.fee)
        if v["ruling"] == FOR_ACCUSED:  # where no member earned the fee, for the accuser was silent, the Court keeps it
            yield _award(self._party(case.seat).worker, case.bond)
        elif v["ruling"] == UNSERVED:
            yield _award(self._party(case.seat).worker, case.bond + case.fee)
        else:
            yield _award(case.accuser, case.bond + case.fee)
        if v["ruling"] == FOR_ACCUSER:
            self._convicting[case.seat] = case.accuser, self._fee - case.fee

    def _JobEscrow_Slashed(self, v: Values) -> Iterator[Move]:
        """The court's share of the slash gives the accuser's fee back, as far as it reaches. (Where nothing was left to
        slash there is no such event, and never will be: a lock does not grow.)"""
        accuser, spent = self._convicting.pop(v["seat"], (b"", 0))
        if accuser:
            yield _award(accuser, min(v["toCourt"], spent))

    # ---- the Court

    def _Court_Appealed(self, v: Values) -> Iterator[Move]:
        case = self._cases[v["id"]]
        case.appellant, case.appeal_fee = v["appellant"], v["fee"]
        yield _at_stake(case.appellant, case.appeal_fee)

    def _Court_Decided(self, v: Values) -> Iterator[Move]:
        self._cases[v["id"]].decided = True
        return iter(())

    def _Court_Ruled(self, v: Values) -> Iterator[Move]:
        """Where a panel decided, the fees are its members', the appellant's or the pool's by now (MemberPaid,
        AppellantPaid); where silence did, or nobody, the fee is given back."""
        case = self._cases[v["id"]]
        if case.decided:
            yield _at_stake(case.accuser, -case.fee)
            case.fee = 0
        yield _at_stake(case.appellant, -case.appeal_fee)


def _at_stake(account: bytes, amount: int) -> Move:
    return Move(Purse.BONDS, account, amount)


def _award(account: bytes, amount: int) -> Move:
    return Move(Purse.AWARDS, account, amount)


def _given(account: bytes, amount: int) -> Iterator[Move]:
    """Back to whom it was."""
    yield _at_stake(account, -amount)
    yield _award(account, amount)
