"""Court's cases, panels and money: how members are drawn and counted and who is paid; the calls stand in court.py."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec.structs import replace

from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.model.draws import (
    NO_PARTIES,
    NOBODY,
    SEED_DELAY,
    BlockhashRandomness,
    Draws,
    Parties,
    words,
)
from tallymesh_ledger.model.machine import ZERO_WORD, Machine, Revert, Store
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.token import Token
from tallymesh_ledger.model.trials import RIGHT, Ballot, Case, Ruling, State

DOMAIN_COURT = keccak(b"tallymesh.court.1")
MAX_REDRAWS = 3  # of one panel
MAX_STEPS = 1 << 20  # that can be told apart
UNSERVED = ZERO_WORD  # the vote of a member that could not get the bytes of the disputed step


class CourtTerms(msgspec.Struct, frozen=True):
    """Windows in seconds, the fee of one member in wei."""

    quorum: int
    panel: int
    appeal_panel: int
    member_fee: int
    move_window: int
    commit_window: int
    reveal_window: int
    appeal_window: int


class Panels:
    """Holds the fee of every open case, the fees of appeals and credits; the rest of its balance is the pool."""

    def __init__(
        self,
        machine: Machine,
        address: bytes,
        token: Token,
        registry: Registry,
        randomness: BlockhashRandomness,
        claims: Collection[bytes],
        terms: CourtTerms,
    ) -> None:
        self.address = address
        self.terms = terms
        self._machine = machine
        self._token = token
        self._registry = registry
        self._randomness = randomness
        self._claims = claims
        self._draws = Draws(registry)
        self._cases: Store[bytes, Case] = Store(machine, Case())
        self._parties: Store[bytes, Parties] = Store(machine, NO_PARTIES)
        self._ballots: Store[tuple[bytes, int, int], Ballot] = Store(machine, Ballot())
        self._credits: Store[bytes, int] = Store(machine, 0)
        self._owed: Store[str, int] = Store(machine, 0)

    # Views.

    def auditor_at(
        self, parties: Parties, seed: bytes, index: int, slots: int, block_number: int, rank: int, limit: int
    ) -> tuple[bytes, int]:
        return self._draws.auditor(parties, seed, index, slots, block_number, rank, limit)

    def member_at(self, id_: bytes, member: int) -> tuple[bytes, int]:
        case = self._cases[id_]
        if case.state != State.VOTING:
            return NOBODY
        return self._draws.member(self._parties[id_], case.seed, member, case.round, case.slots, case.drawn_block)

    def fee(self) -> int:
        return self.terms.panel * self.terms.member_fee

    def appeal_fee(self) -> int:
        return self.terms.appeal_panel * self.terms.member_fee

    def case_of(self, id_: bytes) -> Case:
        return self._cases[id_]

    def parties_of(self, id_: bytes) -> Parties:
        return self._parties[id_]

    def ballot_of(self, id_: bytes, round_: int, member: int) -> Ballot:
        return self._ballots[id_, round_, member]

    def credit_of(self, account: bytes) -> int:
        return self._credits[account]

    def owed(self) -> int:
        return self._owed["sum"]

    def pool(self) -> int:
        return self._token.balance_of(self.address) - self._owed["sum"]

    # Inside.

    def _turn(self, case: Case, state: State) -> Case:
        return replace(case, state=state, deadline=self._machine.now + self.terms.move_window)

    def _call_panel(self, id_: bytes, case: Case) -> None:
        number = self._machine.block_number
        case = replace(
            case,
            state=State.DRAWING,
            drawn_block=number,
            slots=self._registry.slot_count(),
            committed=0,
            revealed=0,
            for_accused=0,
            for_accuser=0,
            unserved=0,
        )
        self._cases[id_] = case
        members = self._size(case)
        self._emit("PanelCalled", id=id_, round=case.round, members=members, seedBlock=number + SEED_DELAY)

    def _draw(self, id_: bytes, case: Case) -> None:
        seed_block = case.drawn_block + SEED_DELAY
        if self._machine.block_number <= seed_block:
            raise Revert("TooEarly", 0)
        value = self._randomness.value_at(seed_block)
        if value == ZERO_WORD:
            self._redraw(id_, case)
            return
        seed = words(DOMAIN_COURT, id_, case.round, value)
        until = self._machine.now + self.terms.commit_window
        case = replace(
            case, state=State.VOTING, seed=seed, deadline=until, reveal_until=until + self.terms.reveal_window
        )
        self._cases[id_] = case
        self._emit("PanelDrawn", id=id_, round=case.round, seed=seed, commitUntil=until, revealUntil=case.reveal_until)

    def _count(self, id_: bytes, case: Case) -> None:
        if case.revealed < self._size(case) // 2 + 1:
            self._redraw(id_, case)
            return
        counts = (
            (Ruling.FOR_ACCUSED, case.for_accused),
            (Ruling.FOR_ACCUSER, case.for_accuser),
            (Ruling.UNSERVED, case.unserved),
        )
        ruling = next((one for one, votes in counts if 2 * votes > case.revealed), Ruling.VOID)
        if case.appealed:
            self._emit("Decided", id=id_, round=case.round, ruling=ruling, appealUntil=0)
            self._rule(id_, case, ruling)
            return
        until = self._machine.now + self.terms.appeal_window
        self._cases[id_] = replace(case, state=State.APPEALABLE, ruling=ruling, first_round=case.round, deadline=until)
        self._emit("Decided", id=id_, round=case.round, ruling=ruling, appealUntil=until)

    def _redraw(self, id_: bytes, case: Case) -> None:
        if case.redraws < MAX_REDRAWS:
            self._call_panel(id_, replace(case, redraws=case.redraws + 1, round=case.round + 1))
        elif case.appealed:
            self._credit(case.appellant, case.appeal_fee)
            self._owed["sum"] -= case.appeal_fee
            self._emit("AppellantPaid", id=id_, account=case.appellant, amount=case.appeal_fee)
            self._rule(id_, replace(case, appeal_fee=0), case.ruling)
        else:
            self._end(id_, case, Ruling.NO_QUORUM)

    def _rule(self, id_: bytes, case: Case, ruling: Ruling) -> None:
        """Final, after votes: each panel's fee to those who were right, and the appeal's to an appellant who was."""
        if ruling == case.ruling or not case.appeal_fee:
            self._pay_panel(id_, case.fee, case.first_round, self.terms.panel, ruling)
        if case.appeal_fee:
            self._pay_panel(id_, case.appeal_fee, case.round, self.terms.appeal_panel, ruling)
            if ruling != case.ruling:
                self._owed["sum"] -= case.fee
                self._credit(case.appellant, case.fee)
                self._emit("AppellantPaid", id=id_, account=case.appellant, amount=case.fee)
        self._end(id_, replace(case, fee=0, appeal_fee=0), ruling)

    def _pay_panel(self, id_: bytes, fee: int, round_: int, size: int, ruling: Ruling) -> None:
        ballots = [self._ballots[id_, round_, member] for member in range(size)]
        right = [ballot.member for ballot in ballots if ballot.vote in RIGHT[ruling]]
        self._owed["sum"] -= fee
        for account in right:
            self._credit(account, fee // len(right))
            self._emit("MemberPaid", id=id_, account=account, amount=fee // len(right))

    def _end(self, id_: bytes, case: Case, ruling: Ruling) -> None:
        self._cases[id_] = replace(case, state=State.RULED, ruling=ruling)
        self._emit("Ruled", id=id_, ruling=ruling)

    def _credit(self, account: bytes, amount: int) -> None:
        self._credits[account] += amount
        self._owed["sum"] += amount

    def _size(self, case: Case) -> int:
        return self.terms.appeal_panel if case.appealed else self.terms.panel

    def _moving(self, caller: bytes, id_: bytes, state: State, *parties: bytes) -> Case:
        case = self._in_state(id_, state)
        if caller not in parties:
            raise Revert("NotParty", caller)
        if self._machine.now > case.deadline:
            raise Revert("TooLate", case.deadline)
        return case

    def _in_state(self, id_: bytes, state: State) -> Case:
        case = self._cases[id_]
        if case.state != state:
            raise Revert("WrongState", id_, case.state)
        return case

    def _not_before(self, deadline: int) -> None:
        if self._machine.now <= deadline:
            raise Revert("TooEarly", deadline)

    def _by_claims(self, caller: bytes) -> None:
        if caller not in self._claims:
            raise Revert("NotClaims", caller)

    def _emit(self, name: str, **values: object) -> None:
        self._machine.emit(self.address, name, **values)
