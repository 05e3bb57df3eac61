"""Decides which of two statements about one unit is right (ICourt): bisection, drawn members, one appeal."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.model.draws import (
    MAX_ATTEMPTS,
    Parties,
    words,
)
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD, Revert
from tallymesh_ledger.model.panels import Panels
from tallymesh_ledger.model.trials import Ballot, Case, Dispute, Ruling, State, Vote

DOMAIN_COURT = keccak(b"tallymesh.court.1")
MAX_REDRAWS = 3  # of one panel
MAX_STEPS = 1 << 20  # that can be told apart
UNSERVED = ZERO_WORD  # the vote of a member that could not get the bytes of the disputed step


class Court(Panels):
    """Everybody's calls, and those of Claims and Accusations."""

    # Calls of Claims and Accusations.

    def open(self, caller: bytes, id_: bytes, parties: Parties, dispute: Dispute) -> None:
        self._by_claims(caller)
        if self._cases[id_].state != State.NONE:
            raise Revert("CaseExists", id_)
        if dispute.steps > MAX_STEPS:
            raise Revert("BadParameter", b"steps".ljust(32, b"\0"))
        d = dispute
        if d.accused_start != d.accuser_start:
            case = Case(accused_value=d.accused_start, accuser_value=d.accuser_start)
        else:
            case = Case(
                hi=max(1, d.steps), agreed=d.accused_start, accused_value=d.accused_end, accuser_value=d.accuser_end
            )
        case = replace(case, fee=self.fee())
        self._parties[id_] = parties
        self._owed["sum"] += case.fee
        bisect = case.hi > 1
        if bisect:
            self._cases[id_] = self._turn(case, State.POSTING)
        else:
            self._call_panel(id_, case)
        self._emit(
            "CaseOpened",
            id=id_,
            accused=parties.accused,
            accuser=parties.accuser,
            dispute=dispute,
            state=State.POSTING if bisect else State.DRAWING,
        )
        self._token.transfer_from(self.address, caller, self.address, case.fee)

    def take(self, caller: bytes, id_: bytes) -> tuple[Ruling, int]:
        self._by_claims(caller)
        case = self._cases[id_]
        if case.state != State.RULED:
            raise Revert("NotRuled", id_)
        if case.taken:
            raise Revert("AlreadyTaken", id_)
        self._cases[id_] = replace(case, taken=True, fee=0)
        self._owed["sum"] -= case.fee
        if case.fee:
            self._token.transfer(self.address, caller, case.fee)
        return case.ruling, case.fee

    def reimburse(self, caller: bytes, amount: int) -> int:
        self._by_claims(caller)
        paid = min(amount, self.pool())
        if paid:
            self._token.transfer(self.address, caller, paid)
        return paid

    # The parties' moves.

    def post(self, caller: bytes, id_: bytes, value: bytes) -> None:
        case = self._moving(caller, id_, State.POSTING, self._parties[id_].accused)
        self._cases[id_] = self._turn(replace(case, posted=value), State.ANSWERING)
        self._emit("Posted", id=id_, step=(case.lo + case.hi) // 2, value=value)

    def answer(self, caller: bytes, id_: bytes, value: bytes) -> None:
        case = self._moving(caller, id_, State.ANSWERING, self._parties[id_].accuser)
        middle = (case.lo + case.hi) // 2
        if value == case.posted:
            case = replace(case, lo=middle, agreed=value)
        else:
            case = replace(case, hi=middle, accused_value=case.posted, accuser_value=value)
        self._emit("Answered", id=id_, lo=case.lo, hi=case.hi, value=value)
        if case.hi == case.lo + 1:
            self._call_panel(id_, case)
        else:
            self._cases[id_] = self._turn(case, State.POSTING)

    def appeal(self, caller: bytes, id_: bytes) -> None:
        parties = self._parties[id_]
        case = self._moving(caller, id_, State.APPEALABLE, parties.accused, parties.accuser)
        fee = self.appeal_fee()
        self._owed["sum"] += fee
        case = replace(case, appealed=True, appellant=caller, appeal_fee=fee, redraws=0, round=case.round + 1)
        self._emit("Appealed", id=id_, appellant=caller, fee=fee)
        self._call_panel(id_, case)
        self._token.transfer_from(self.address, caller, self.address, fee)

    # The members' moves.

    def commit(self, caller: bytes, id_: bytes, member: int, attempt: int, commitment: bytes) -> None:
        case = self._in_state(id_, State.VOTING)
        if self._machine.now > case.deadline:
            raise Revert("TooLate", case.deadline)
        ballot = (id_, case.round, member)
        if self._ballots[ballot].member != ZERO_ADDRESS:
            raise Revert("AlreadyCommitted", member)
        drawn = member < self._size(case) and attempt < MAX_ATTEMPTS
        if not drawn or self.member_at(id_, member) != (caller, attempt):
            raise Revert("NotDrawn", caller, member, attempt)
        self._ballots[ballot] = Ballot(commitment, caller)
        self._cases[id_] = replace(case, committed=case.committed + 1)
        self._emit("VoteCommitted", id=id_, round=case.round, member=member, account=caller)

    def reveal(self, caller: bytes, id_: bytes, member: int, result: bytes, salt: bytes) -> None:
        case = self._in_state(id_, State.VOTING)
        ballot = self._ballots[id_, case.round, member]
        if ballot.member != caller or ballot.vote != Vote.NONE:
            raise Revert("NotCommitted", member)
        if self._machine.now <= case.deadline and case.committed < self._size(case):
            raise Revert("TooEarly", case.deadline)
        if self._machine.now > case.reveal_until:
            raise Revert("TooLate", case.reveal_until)
        if words(result, salt, caller) != ballot.commitment:
            raise Revert("BadReveal", ballot.commitment)
        vote = _vote(case, result)
        self._ballots[id_, case.round, member] = replace(ballot, vote=vote)
        self._cases[id_] = replace(
            case,
            revealed=case.revealed + 1,
            for_accused=case.for_accused + (vote == Vote.ACCUSED),
            for_accuser=case.for_accuser + (vote == Vote.ACCUSER),
            unserved=case.unserved + (vote == Vote.UNSERVED),
        )
        self._emit("VoteRevealed", id=id_, round=case.round, member=member, result=result, vote=vote)

    # By anybody.

    def advance(self, caller: bytes, id_: bytes) -> None:
        case, now = self._cases[id_], self._machine.now
        if case.state in (State.NONE, State.RULED):
            raise Revert("WrongState", id_, case.state)
        if case.state == State.DRAWING:
            self._draw(id_, case)
        elif case.state == State.VOTING:
            told = case.revealed == self._size(case)
            if not told and not (now > case.deadline and case.revealed == case.committed):
                self._not_before(case.reveal_until)
            self._count(id_, case)
        else:
            self._not_before(case.deadline)
            if case.state == State.APPEALABLE:
                self._rule(id_, case, case.ruling)
            elif case.state == State.POSTING and case.posted == ZERO_WORD:  # it never moved: the whole unit is voted on
                self._call_panel(id_, case)
            else:
                silent = Ruling.FOR_ACCUSER if case.state == State.POSTING else Ruling.FOR_ACCUSED
                self._end(id_, case, silent)

    def withdraw(self, caller: bytes, account: bytes) -> int:
        amount = self._credits[account]
        if amount == 0:
            raise Revert("NothingToWithdraw", account)
        self._credits[account] = 0
        self._owed["sum"] -= amount
        owner = self._registry.owner_of(account)
        self._emit("CreditWithdrawn", account=account, to=owner, amount=amount)
        self._token.transfer(self.address, owner, amount)
        return amount

    def burn_pool(self, caller: bytes) -> int:
        amount = self.pool()
        if amount == 0:
            raise Revert("NothingToBurn")
        self._emit("PoolBurned", amount=amount)
        self._token.burn(self.address, amount)
        return amount

    # For who begins a quarrel.

    def check_members(self, parties: Parties, witnesses: Sequence[int]) -> None:
        if len(witnesses) < self.terms.quorum:
            raise Revert("NoMembers", len(witnesses), self.terms.quorum)
        before = ZERO_ADDRESS
        for slot in witnesses:
            known = slot < self._registry.slot_count()
            account = self._draws.admissible(parties, slot, self._machine.block_number) if known else ZERO_ADDRESS
            if account <= before:
                raise Revert("BadWitness", slot)
            before = account


def _vote(case: Case, result: bytes) -> Vote:
    if result == UNSERVED:
        return Vote.UNSERVED
    if result == case.accused_value:
        return Vote.ACCUSED
    return Vote.ACCUSER if result == case.accuser_value else Vote.OTHER
