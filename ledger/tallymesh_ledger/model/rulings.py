"""How a claim ends and what it costs whom; the way there stands in claims.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from tallymesh.messages import Lease
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.model.court import Court
from tallymesh_ledger.model.draws import (
    MAX_ATTEMPTS,
    NO_PARTIES,
    SEED_DELAY,
    BlockhashRandomness,
    Parties,
    units,
    words,
)
from tallymesh_ledger.model.escrow import JobEscrow
from tallymesh_ledger.model.machine import ZERO_WORD, Machine, Revert, Store
from tallymesh_ledger.model.quarrels import Claim, Heard, Quarrels, Sample, State
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.terms import SeatState
from tallymesh_ledger.model.token import UNLIMITED, Token
from tallymesh_ledger.model.trials import Ruling

if TYPE_CHECKING:
    from tallymesh_ledger.model.accusations import Accusations

DOMAIN_CASE = keccak(b"tallymesh.case.1")
CLAIM_TALLY = 2**32 - 1  # the number of a Tally that is signed for a claim
ALL = 2**96 - 1  # an amount that no lock exceeds
UNAVAILABLE_SHARE = 10  # who could not say anything earns the pay divided by this
RULED = {
    Ruling.FOR_ACCUSED: Heard.ACQUITTED,
    Ruling.FOR_ACCUSER: Heard.UPHELD,
    Ruling.VOID: Heard.VOID,
    Ruling.UNSERVED: Heard.UNSERVED,
    Ruling.NO_QUORUM: Heard.UNDECIDED,
}
OVER = (State.NONE, State.PAID, State.HALVED, State.FAILED)


class ClaimTerms(msgspec.Struct, frozen=True):
    """Windows in seconds."""

    commit_window: int
    open_window: int
    reveal_window: int
    challenge_window: int


class Rulings:
    """Holds the bonds of live claims and of their auditors, and credits."""

    def __init__(
        self,
        machine: Machine,
        address: bytes,
        token: Token,
        registry: Registry,
        escrow: JobEscrow,
        court: Court,
        randomness: BlockhashRandomness,
        terms: ClaimTerms,
    ) -> None:
        self.address = address
        self.terms = terms
        self.accusations: Accusations  # once both are there
        self._machine = machine
        self._token = token
        self._registry = registry
        self._escrow = escrow
        self._court = court
        self._randomness = randomness
        self._claims: Store[bytes, Claim] = Store(machine, Claim())
        self._samples: Store[tuple[bytes, int], Sample] = Store(machine, Sample())
        self._quarrels: Store[bytes, Quarrels] = Store(machine, Quarrels())
        self._parties: Store[bytes, Parties] = Store(machine, NO_PARTIES)
        self._credits: Store[bytes, int] = Store(machine, 0)
        token.approve(address, court.address, UNLIMITED)  # for the fees of cases

    # Calls.

    def rule(self, caller: bytes, lease: Lease, id_: bytes, sample: int) -> None:
        claim = self._of(lease, id_)
        said = self._samples[id_, sample]
        if said.heard != Heard.DISPUTED:
            raise Revert("BadSample", sample)
        ruling, given_back = self._court.take(self.address, words(DOMAIN_CASE, id_, sample))
        heard, fee = RULED[ruling], self._court.fee()
        rest = claim.bond - fee + given_back
        claim = replace(claim, in_court=claim.in_court - 1)
        self._samples[id_, sample] = replace(said, heard=heard)
        if heard in (Heard.ACQUITTED, Heard.UNSERVED):
            self._credits[lease.worker] += rest
        else:
            self._credits[said.auditor] += rest
        if heard == Heard.UPHELD:
            cost = min(fee - given_back, claim.left)
            self._credits[said.auditor] += cost
            claim = replace(claim, left=claim.left - cost)
        self._claims[id_] = claim
        if heard == Heard.UPHELD:
            self._escrow.slash(self.address, lease, ALL, self._parties[id_].payer, said.auditor, True)
            self._escrow.forfeit(self.address, lease)
        self._emit("SampleRuled", claim=id_, sample=sample, heard=heard)

    def conclude(self, caller: bytes, lease: Lease, id_: bytes) -> None:
        claim = self._of(lease, id_)
        if claim.state in OVER:
            raise Revert("WrongState", id_, claim.state)
        if claim.state == State.PENDING:
            seed_block = claim.block_number + SEED_DELAY
            kept = self._machine.block_number <= seed_block or self._randomness.value_at(seed_block) != ZERO_WORD
            if kept:
                raise Revert("TooEarly", 0)
            self._fail(lease, id_, claim)
        elif claim.state == State.SAMPLING:
            self._after(claim.deadline)
            self._fail(lease, id_, claim)
        elif claim.state == State.REVEALING:
            if claim.revealed < claim.committed:
                self._after(claim.deadline)
            if claim.in_court:
                raise Revert("TooEarly", 0)
            self._decide(lease, id_, claim)
        else:
            self._after(claim.deadline)
            if self.accusations.blocking(claim.seat):
                raise Revert("TooEarly", 0)
            if self._convicted(id_, claim):
                self._fail(lease, id_, claim)
            else:
                self._pay(lease, id_, claim)

    def refute(self, caller: bytes, id_: bytes) -> None:
        if caller != self.accusations.address:
            raise Revert("NotAccusations", caller)
        self._claims[id_] = replace(self._claims[id_], refuted=True)

    def withdraw(self, caller: bytes, account: bytes) -> int:
        amount = self._credits[account]
        if amount == 0:
            raise Revert("NothingToWithdraw", account)
        self._credits[account] = 0
        owner = self._registry.owner_of(account)
        self._emit("CreditWithdrawn", account=account, to=owner, amount=amount)
        self._token.transfer(self.address, owner, amount)
        return amount

    # Views.

    def claim_of(self, id_: bytes) -> Claim:
        return self._claims[id_]

    def sample_of(self, id_: bytes, sample: int) -> Sample:
        return self._samples[id_, sample]

    def root_of(self, id_: bytes) -> tuple[bytes, bytes, int, int]:
        claim = self._claims[id_]
        return claim.seat, claim.root, claim.from_, claim.count

    def unchallenged(self, seat: bytes) -> bool:
        claim = self._claims[self._quarrels[seat].claim]
        return claim.state == State.CHALLENGEABLE and self._machine.now > claim.deadline

    def quarrels_of(self, seat: bytes) -> Quarrels:
        return self._quarrels[seat]

    def units_of(self, id_: bytes) -> list[int]:
        claim = self._claims[id_]
        return units(claim.seed, claim.count, claim.k)

    def auditor_at(self, id_: bytes, sample: int, rank: int) -> tuple[bytes, int]:
        claim = self._claims[id_]
        index = units(claim.seed, claim.count, claim.k)[sample]
        where = (claim.slots, claim.block_number)
        return self._court.auditor_at(self._parties[id_], claim.seed, index, *where, rank, MAX_ATTEMPTS)

    def credit_of(self, account: bytes) -> int:
        return self._credits[account]

    # The decision.

    def _decide(self, lease: Lease, id_: bytes, claim: Claim) -> None:
        self._forfeit_silent(id_, claim)
        heard = [sample.heard for sample in self._all(id_, claim)]
        good = sum(one in (Heard.MATCH, Heard.ACQUITTED, Heard.VOID) for one in heard)
        missing = sum(one in (Heard.UNAVAILABLE, Heard.UNSERVED) for one in heard)
        undecided = Heard.UNDECIDED in heard
        if self._convicted(id_, claim) or (not undecided and 2 * good <= claim.k < 2 * missing):
            self._fail(lease, id_, claim)
            return
        half = undecided or 2 * good <= claim.k
        until = self._machine.now + self.terms.challenge_window
        self._claims[id_] = replace(claim, state=State.CHALLENGEABLE, half=half, deadline=until)
        self._emit("Challengeable", claim=id_, half=half, until=until)

    def _convicted(self, id_: bytes, claim: Claim) -> bool:
        closed = self._escrow.seat_of(claim.seat).state != SeatState.OPEN
        return claim.refuted or closed or any(one.heard == Heard.UPHELD for one in self._all(id_, claim))

    # The end.

    def _pay(self, lease: Lease, id_: bytes, claim: Claim) -> None:
        to = claim.from_ + (claim.count // 2 if claim.half else claim.count)
        self._end(id_, claim, State.HALVED if claim.half else State.PAID)
        self._credits[claim.claimer] += claim.left
        self._emit("ClaimEnded", claim=id_, seat=claim.seat, state=self._claims[id_].state, units=to)
        self._escrow.pay_claim(self.address, lease, CLAIM_TALLY, to, claim.chain)
        due = [(sample.auditor, self._due(claim, sample)) for sample in self._all(id_, claim)]
        paid = [(auditor, amount) for auditor, amount in due if amount]
        self._escrow.take_bond(self.address, lease, [one for one, _ in paid], [amount for _, amount in paid])
        self._escrow.let_go(self.address, lease)

    def _fail(self, lease: Lease, id_: bytes, claim: Claim) -> None:
        left = claim.left
        unopened = claim.state == State.SAMPLING
        for number, sample in enumerate(self._all(id_, claim)):
            amount = self._due(claim, sample)
            if unopened and sample.heard == Heard.COMMITTED:
                amount = self._share(claim)
                self._credits[sample.auditor] += claim.bond
            amount = min(amount, left)
            if amount:
                left -= amount
                self._credits[sample.auditor] += amount
                self._emit("AuditorPaid", claim=id_, sample=number, auditor=sample.auditor, amount=amount)
        self._credits[self._parties[id_].payer] += left
        self._end(id_, claim, State.FAILED)
        self._emit("ClaimEnded", claim=id_, seat=claim.seat, state=State.FAILED, units=0)
        self._escrow.let_go(self.address, lease)

    def _end(self, id_: bytes, claim: Claim, state: State) -> None:
        self._claims[id_] = replace(claim, state=state, left=0)
        self._quarrels[claim.seat] = replace(self._quarrels[claim.seat], claim=ZERO_WORD)

    def _due(self, claim: Claim, sample: Sample) -> int:
        pay = self._share(claim)
        return {
            Heard.MATCH: pay,
            Heard.UPHELD: pay,
            Heard.UNDECIDED: pay,
            Heard.VOID: pay + self._court.fee(),
            Heard.UNAVAILABLE: pay // UNAVAILABLE_SHARE,
        }.get(sample.heard, 0)

    def _share(self, claim: Claim) -> int:
        return min(claim.price * 11 // 10, claim.bond // claim.k)

    def _forfeit_silent(self, id_: bytes, claim: Claim) -> None:
        """Bonds of those that committed and never opened it go to the Court's pool."""
        silent = sum(sample.heard == Heard.COMMITTED for sample in self._all(id_, claim))
        if silent:
            self._token.transfer(self.address, self._court.address, silent * claim.bond)

    # Inside.

    def _all(self, id_: bytes, claim: Claim) -> list[Sample]:
        return [self._samples[id_, number] for number in range(claim.k)]

    def _of(self, lease: Lease, id_: bytes) -> Claim:
        claim = self._claims[id_]
        if self._escrow.seat_id_of(lease) != claim.seat:
            raise Revert("WrongLease")
        return claim

    def _in_state(self, id_: bytes, state: State) -> Claim:
        claim = self._claims[id_]
        if claim.state != state:
            raise Revert("WrongState", id_, claim.state)
        return claim

    def _after(self, deadline: int) -> None:
        if self._machine.now <= deadline:
            raise Revert("TooEarly", deadline)

    def _by(self, deadline: int) -> None:
        if self._machine.now > deadline:
            raise Revert("TooLate", deadline)

    def _emit(self, name: str, **values: object) -> None:
        self._machine.emit(self.address, name, **values)
