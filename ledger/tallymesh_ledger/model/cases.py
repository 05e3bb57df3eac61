"""What only Claims may do with a seat: hold it, pay it, spend its bond, forfeit it, slash its lock."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from tallymesh.messages import Lease, Order
from tallymesh_ledger.model.books import BP, Books
from tallymesh_ledger.model.machine import Revert
from tallymesh_ledger.model.terms import Seat, SeatState

CASES_MAX = 255  # live claims and accusations of one seat
PAYER_BP = 4_000  # of slashed stake; what no share takes is burned
PROVER_BP = 2_000
COURT_BP = 1_500


class Cases(Books):
    """A seat with cases neither closes nor expires nor unlocks."""

    def hold(self, caller: bytes, order: Order, lease: Lease) -> tuple[bytes, Seat]:
        self._by_claims(caller)
        job, seat_id = self._job_of(order), self.seat_id_of(lease)
        if lease.job != job:
            raise Revert("NotOfJob", seat_id, job)
        seat = self.seats[seat_id]
        tail = self._machine.now < seat.until + self.lock_tail
        if not (seat.state == SeatState.OPEN or (seat.state == SeatState.CLOSED and tail)):
            raise Revert("NotHeld", seat_id)
        if seat.cases >= CASES_MAX:
            raise Revert("TooManyCases", seat_id)
        self.seats[seat_id] = replace(seat, cases=seat.cases + 1)
        if caller == self.claims[0]:
            self._claimed[seat_id] = True
        self._emit("Held", seat=seat_id, cases=seat.cases + 1)
        return seat_id, self.seats[seat_id]

    def let_go(self, caller: bytes, lease: Lease) -> None:
        self._by_claims(caller)
        seat_id, seat = self._held(lease)
        seat = replace(seat, cases=seat.cases - 1)
        self.seats[seat_id] = seat
        self._emit("LetGo", seat=seat_id, cases=seat.cases)
        if caller == self.claims[0]:
            self._claimed[seat_id] = False
        if self._claimed[seat_id]:
            return
        if seat.state == SeatState.OPEN:
            if seat.paid_units == seat.units:
                self._close(lease)
        elif seat.bond:
            self.seats[seat_id] = replace(seat, bond=0)
            job = self.jobs[lease.job]
            back = seat.bond if seat.by_signer else 0
            self.jobs[lease.job] = replace(job, free=job.free + seat.bond, signer_seated=job.signer_seated - back)
            self._emit("BondReturned", seat=seat_id, job=lease.job, amount=seat.bond)

    def pay_claim(self, caller: bytes, lease: Lease, tally: int, units_to: int, chain: bytes) -> int:
        self._by_claims(caller)
        seat = self.seats[self.seat_id_of(lease)]
        units = min(units_to, seat.units)
        if seat.state != SeatState.OPEN or not self._is_new(seat, lease.price, units):
            return 0
        return self._pay(lease, tally, units, chain)

    def take_bond(self, caller: bytes, lease: Lease, to: Sequence[bytes], amounts: Sequence[int]) -> int:
        self._by_claims(caller)
        if len(to) != len(amounts):
            raise Revert("BadList", len(to), len(amounts))
        seat_id, seat = self._held(lease)
        left = seat.bond
        for account, amount in zip(to, amounts, strict=True):
            part = min(amount, left)
            if part:
                left -= part
                self.credits[account] += part
                self._emit("BondTaken", seat=seat_id, to=account, amount=part)
        self.seats[seat_id] = replace(seat, bond=left)
        return seat.bond - left

    def forfeit(self, caller: bytes, lease: Lease) -> None:
        self._by_claims(caller)
        _, seat = self._held(lease)
        if seat.state == SeatState.OPEN:
            self._close(lease)

    def slash(self, caller: bytes, lease: Lease, amount: int, payer: bytes, prover: bytes, to_court: bool) -> int:
        self._by_claims(caller)
        seat_id, seat = self._held(lease)
        slashed = min(amount, self._locks[seat_id])
        if slashed == 0:
            return 0
        self._locks[seat_id] -= slashed
        self.seats[seat_id] = replace(seat, own_lock=True)
        for_payer, for_prover = slashed * PAYER_BP // BP, slashed * PROVER_BP // BP
        for_court = slashed * COURT_BP // BP if to_court else 0
        burned = slashed - for_payer - for_prover - for_court
        for account, part in ((payer, for_payer), (prover, for_prover), (self.court, for_court)):
            self.credits[account] += part
        self._emit(
            "Slashed",
            seat=seat_id,
            worker=lease.worker,
            prover=prover,
            payer=payer,
            amount=slashed,
            toPayer=for_payer,
            toProver=for_prover,
            toCourt=for_court,
            burned=burned,
        )
        self._registry.slash(self.address, lease.worker, slashed)
        self._token.burn(self.address, burned)
        return slashed

    def _held(self, lease: Lease) -> tuple[bytes, Seat]:
        seat_id = self.seat_id_of(lease)
        if self.seats[seat_id].cases == 0:
            raise Revert("NotHeld", seat_id)
        return seat_id, self.seats[seat_id]

    def _by_claims(self, caller: bytes) -> None:
        if caller not in self.claims:
            raise Revert("NotClaims", caller)
