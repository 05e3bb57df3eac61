"""Takes the lock of a worker that cheated (IAccusations): before the Court, or at once by two of its own words."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tallymesh.messages import Assign, Lease, Order, Receipt
from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.model.cases import CASES_MAX
from tallymesh_ledger.model.claims import Claims
from tallymesh_ledger.model.court import Court
from tallymesh_ledger.model.draws import Parties, words
from tallymesh_ledger.model.escrow import JobEscrow
from tallymesh_ledger.model.machine import ZERO_ADDRESS, Machine, Revert, Store
from tallymesh_ledger.model.quarrels import OPEN_TO_ALL, Accusation, Charge, Statement, Word, leaf, stands
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.rulings import ALL
from tallymesh_ledger.model.signatures import digest, recovered
from tallymesh_ledger.model.token import UNLIMITED, Token
from tallymesh_ledger.model.trials import Dispute, Ruling

DOMAIN_ACCUSATION = keccak(b"tallymesh.accusation.1")
COURT_BP = 1_500  # of slashed stake
BP = 10_000


class Accusations:
    """Holds the bonds of live accusations, and credits."""

    def __init__(
        self,
        machine: Machine,
        address: bytes,
        token: Token,
        registry: Registry,
        escrow: JobEscrow,
        claims: Claims,
        court: Court,
    ) -> None:
        self.address = address
        self._machine = machine
        self._token = token
        self._registry = registry
        self._escrow = escrow
        self._claims = claims
        self._court = court
        self._accusations: Store[bytes, Accusation] = Store(machine, Accusation())
        self._blocking: Store[bytes, int] = Store(machine, 0)
        self._credits: Store[bytes, int] = Store(machine, 0)
        token.approve(address, court.address, UNLIMITED)  # for the fees of cases

    def accuse(self, caller: bytes, order: Order, lease: Lease, charge: Charge, witnesses: Sequence[int]) -> bytes:
        if order.auditors != OPEN_TO_ALL:
            raise Revert("NotOpenToAll")
        seat, held = self._escrow.hold(self.address, order, lease)
        if held.cases > CASES_MAX - 2:  # one is left for the claim, one for proofs
            raise Revert("TooManyCases", seat)
        c = charge
        self._bound(lease, seat, c.position, c.statement)
        assign = Assign(seat=seat, position=c.position, unit_id=c.unit_id)
        signer = recovered(digest(self._escrow.domain, assign), *c.assign)
        same = (c.own_start, c.own_end) == (c.start, c.end)
        if leaf(seat, c.position, c) != c.statement.leaf or signer != order.signer or same:
            raise Revert("BadCharge")
        parties = Parties(lease.worker, caller, order.payer, order.signer, lease.numeric_class)
        self._court.check_members(parties, witnesses)
        id_ = words(DOMAIN_ACCUSATION, seat, c.position, c.statement.leaf, caller)
        blocking = not self._claims.unchallenged(seat)
        bond, fee = order.claim_bond, self._court.fee()
        self._accusations[id_] = Accusation(caller, blocking, False, bond, seat)
        self._blocking[seat] += blocking
        self._emit("Accused", accusation=id_, seat=seat, accuser=caller, position=c.position, bond=bond)
        self._token.transfer_from(self.address, caller, self.address, fee + bond)
        self._court.open(self.address, id_, parties, Dispute(c.start, c.end, c.own_start, c.own_end, c.steps))
        return id_

    def acquit_or_convict(self, caller: bytes, lease: Lease, id_: bytes) -> None:
        accusation = self._accusations[id_]
        if accusation.accuser == ZERO_ADDRESS or accusation.ended:
            raise Revert("NoSuchAccusation", id_)
        if self._escrow.seat_id_of(lease) != accusation.seat:
            raise Revert("WrongLease")
        ruling, given_back = self._court.take(self.address, id_)
        self._accusations[id_] = replace(accusation, ended=True)
        self._blocking[accusation.seat] -= accusation.blocking
        self._emit("AccusationEnded", accusation=id_, seat=accusation.seat, ruling=ruling)
        amount = accusation.bond + given_back
        if ruling == Ruling.FOR_ACCUSED and given_back:  # it was silent: its fee is the pool's
            amount -= given_back
            self._token.transfer(self.address, self._court.address, given_back)
        winner = lease.worker if ruling in (Ruling.FOR_ACCUSED, Ruling.UNSERVED) else accusation.accuser
        if ruling == Ruling.FOR_ACCUSER:
            payer = self._court.parties_of(id_).payer
            slashed = self._escrow.slash(self.address, lease, ALL, payer, accusation.accuser, True)
            self._escrow.forfeit(self.address, lease)
            cost = min(self._court.fee() - given_back, slashed * COURT_BP // BP)
            if cost:  # the court's share of the slash waits for it in the escrow
                self._escrow.withdraw(self.address, self._court.address)
                amount += self._court.reimburse(self.address, cost)
        self._credits[winner] += amount
        self._escrow.let_go(self.address, lease)

    def fraud(self, caller: bytes, order: Order, lease: Lease, position: int, a: Statement, b: Statement) -> None:
        if order.auditors != OPEN_TO_ALL:
            raise Revert("NotOpenToAll")
        if a.leaf == b.leaf:
            raise Revert("SameLeaf")
        seat, _ = self._escrow.hold(self.address, order, lease)
        for statement in (a, b):
            self._bound(lease, seat, position, statement)
        slashed = self._escrow.slash(self.address, lease, ALL, order.payer, caller, False)
        if slashed == 0 and Word.CLAIM not in (a.word, b.word):
            raise Revert("NothingToSlash")
        for statement in (a, b):
            if statement.word == Word.CLAIM:
                self._claims.refute(self.address, statement.claim)
        self._emit(
            "FraudProved", seat=seat, position=position, leafA=a.leaf, leafB=b.leaf, prover=caller, slashed=slashed
        )
        self._escrow.let_go(self.address, lease)

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

    def accusation_of(self, id_: bytes) -> Accusation:
        return self._accusations[id_]

    def blocking(self, seat: bytes) -> int:
        return self._blocking[seat]

    def accusation_bond(self, order: Order) -> int:
        return self._court.fee() + order.claim_bond

    def credit_of(self, account: bytes) -> int:
        return self._credits[account]

    # Inside.

    def _bound(self, lease: Lease, seat: bytes, position: int, statement: Statement) -> None:
        """The statement binds the worker to its leaf at this position."""
        s, domain = statement, self._escrow.domain
        if s.word == Word.RECEIPT:
            receipt = Receipt(seat=seat, position=position, leaf=s.leaf)
            good = recovered(digest(domain, receipt), *s.signature) == lease.worker
        elif s.word == Word.TALLY:
            signed = recovered(digest(domain, s.tally), *s.signature) == lease.worker
            index = position - s.tally.start
            good = signed and s.tally.seat == seat and stands(s.tally.root, s.tally.count, index, s.leaf, s.path)
        else:
            of, root, start, count = self._claims.root_of(s.claim)
            good = of == seat and stands(root, count, position - start, s.leaf, s.path)
        if not good or lease.worker == ZERO_ADDRESS:
            raise Revert("BadStatement")

    def _emit(self, name: str, **values: object) -> None:
        self._machine.emit(self.address, name, **values)
