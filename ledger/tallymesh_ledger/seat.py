"""One seat as both of its sides see it: positions assigned, receipts, tallies, secrets, Accepts.

Payer and worker each hold a Seat and apply the same events to it, so neither can believe more than it could prove.
Every event is idempotent: the same one again changes nothing and returns False; one that contradicts what was said
before is refused with its reason. Rebuilt after a crash by applying the journalled events in order. This module
does no I/O, checks no signatures (the caller did) and does not know the unit's content.
"""

from __future__ import annotations

import msgspec

from tallymesh.errors import RemoteError
from tallymesh.exchange import Opening
from tallymesh.ids import ZERO32, SeatId
from tallymesh.messages import Accept, Lease, Tally
from tallymesh_ledger import merkle, sampling
from tallymesh_ledger.phases import Event, Phase, step


class Range(msgspec.Struct, frozen=True):
    """Positions of one tally."""

    number: int
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count


class ClosedTally(msgspec.Struct):
    """A signed tally and what has become of it."""

    range: Range
    message: Tally
    chain: bytes  # chain value after it
    secret: bytes = b""  # c_e once shown
    accepted: bool = False


class TwoLeaves(RemoteError):
    """Fraud by proof: two different leaves for one position of a seat."""

    def __init__(self, position: int) -> None:
        super().__init__("two_leaves", f"Position {position} already has another leaf: that is fraud by proof.")
        self.position = position


class Seat:
    """Contract: after any sequence of events, accepted units <= tallied <= received <= assigned <= leased positions;
    a tally's root covers exactly the leaves received for its range; secrets are shown in order, after their root."""

    def __init__(self, seat_id: SeatId, lease: Lease, tally_units: int) -> None:
        self.id = seat_id
        self.lease = lease
        self.tally_units = tally_units
        self.phase = Phase.OPEN
        self.assigned: list[bytes] = []  # unit id by position
        self.openings: dict[int, Opening] = {}
        self.leaves: dict[int, bytes] = {}
        self.tallies: list[ClosedTally] = []
        self.accepted_units = 0
        self.accepts: list[Accept] = []
        self.close_at = 0  # positions below this are to be tallied even if the tally is not full
        self.finished_at: int | None = None  # no position at or after this counts
        self._secret_hashes = {1: lease.secret_1, 2: lease.secret_2}

    def __repr__(self) -> str:
        return (
            f"<Seat {self.id[:4].hex()} {self.phase.name} assigned={len(self.assigned)} received={len(self.leaves)}"
            f" tallied={self.tallied} accepted={self.accepted_units}/{self.lease.positions}>"
        )

    # What follows from the events.

    @property
    def tallied(self) -> int:
        """Positions covered by tallies."""
        return self.tallies[-1].range.end if self.tallies else 0

    @property
    def chain(self) -> bytes:
        return self.tallies[-1].chain if self.tallies else ZERO32

    @property
    def received(self) -> int:
        """Contiguous receipts from position 0 on."""
        position = self.tallied
        while position in self.leaves:
            position += 1
        return position

    @property
    def accepted_tallies(self) -> int:
        return len(self.accepts)

    @property
    def goal(self) -> int:
        """Positions that are still to be tallied when no more are assigned."""
        return len(self.assigned) if self.finished_at is None else self.finished_at

    @property
    def settled(self) -> bool:
        """Nothing more is owed: closing, and every position that counts is accepted."""
        return self.phase in (Phase.CLOSING, Phase.RELEASED) and self.accepted_units >= self.goal

    def tally_of(self, position: int) -> int:
        """Number of the tally that a position falls into if no tally is closed early from now on."""
        for closed in self.tallies:
            if position < closed.range.end:
                return closed.range.number
        number, start = len(self.tallies) + 1, self.tallied
        while True:
            start += 1 if number == 1 else self.tally_units
            if position < start:
                return number
            number += 1

    def assignable(self) -> str:
        """ "" if the next position may be assigned now, else the code of the reason."""
        if self.phase is not Phase.OPEN:
            return "closed"
        position = len(self.assigned)
        if position >= self.lease.positions:
            return "no_positions"
        # A worker begins tally e + 2 only with the Accept of e: what a vanished payer can cost it is two tallies.
        return "" if self.tally_of(position) <= self.accepted_tallies + 2 else "unaccepted"

    def due(self, *, timed_out: bool = False) -> Range | None:
        """The range that is to be tallied now, if any: the first unit alone; then full tallies, or what a Close, the
        end, or time asks for. `timed_out` is the caller's word that the time rule applies."""
        start, received = self.tallied, min(self.received, self.goal)
        number = len(self.tallies) + 1
        # Closes may cut positions into more tallies than were meant when they were assigned; the hash of c_{e + 2} is
        # only known with the Accept of e, so tally e + 2 waits for it whatever is asked.
        if received <= start or number > self.accepted_tallies + 2:
            return None
        full = start + (1 if number == 1 else self.tally_units)
        if received >= full:
            return Range(number, start, full - start)
        asked = min(self.close_at, self.goal)
        ended = self.phase is Phase.CLOSING and received >= self.goal
        if start < asked <= received:
            return Range(number, start, asked - start)
        if ended or timed_out:
            return Range(number, start, received - start)
        return None

    def root_of(self, covered: Range) -> bytes:
        return merkle.root([self.leaves[p] for p in range(covered.start, covered.end)])

    # Events. Each returns True if it changed something.

    def assign(self, position: int, unit_id: bytes) -> bool:
        if position < len(self.assigned):
            if self.assigned[position] != unit_id:
                raise RemoteError("position_taken", f"Position {position} was assigned to another unit before.")
            return False
        step(self.phase, Event.ASSIGN)
        if position != len(self.assigned):
            raise RemoteError("out_of_order", f"Position {position} comes after {len(self.assigned) - 1} was assigned.")
        reason = self.assignable()
        if reason:
            raise RemoteError(reason, f"Seat {self.id[:4].hex()} takes no further unit now ({reason}).")
        self.assigned.append(unit_id)
        return True

    def receive(self, position: int, leaf: bytes, opening: Opening) -> bool:
        """A receipt with its opening."""
        if position in self.leaves:
            if self.leaves[position] != leaf:
                raise TwoLeaves(position)
            return False
        self.phase = step(self.phase, Event.RECEIPT)
        if position >= len(self.assigned):
            raise RemoteError("not_assigned", f"Position {position} was never assigned.")
        if self.finished_at is not None and position >= self.finished_at:
            raise RemoteError("too_late", f"Position {position} came after the seat was closed at {self.finished_at}.")
        if opening.unit_id != self.assigned[position]:
            raise RemoteError("wrong_unit", f"The receipt of position {position} is for another unit than assigned.")
        if merkle.leaf(self.id, position, opening) != leaf:
            raise RemoteError("bad_leaf", f"The leaf of position {position} is not the hash of its opening.")
        self.leaves[position] = leaf
        self.openings[position] = opening
        return True

    def tally(self, message: Tally) -> bool:
        """A Tally, by the worker or by the signer in its place."""
        if message.number <= len(self.tallies):
            if self.tallies[message.number - 1].message != message:
                raise RemoteError("two_tallies", f"Tally {message.number} was closed with another content before.")
            return False
        self.phase = step(self.phase, Event.TALLY)
        covered = Range(message.number, message.start, message.count)
        if covered.number != len(self.tallies) + 1 or covered.start != self.tallied or message.previous != self.chain:
            raise RemoteError("out_of_order", f"Tally {message.number} does not continue tally {len(self.tallies)}.")
        longest = 1 if covered.number == 1 else self.tally_units
        if not 1 <= covered.count <= longest:
            raise RemoteError("bad_tally", f"Tally {covered.number} has 1 to {longest} units, not {covered.count}.")
        missing = [p for p in range(covered.start, covered.end) if p not in self.leaves]
        if missing:
            raise RemoteError(
                "missing_receipts", f"Tally {covered.number} covers positions without a receipt: {missing[:5]}."
            )
        if self.root_of(covered) != message.root:
            raise RemoteError("bad_root", f"The root of tally {covered.number} is not that of its receipts.")
        chain = merkle.chain_value(message.previous, message.root, covered.start, covered.count)
        self.tallies.append(ClosedTally(covered, message, chain))
        return True

    def show_secret(self, number: int, secret: bytes) -> bool:
        """c_e. Its hash was signed before the root existed."""
        closed = self._closed(number)
        if closed.secret:
            return False
        self.phase = step(self.phase, Event.SECRET)
        if sampling.secret_hash(secret) != self._secret_hashes.get(number):
            raise RemoteError("bad_secret", f"The secret of tally {number} is not the one whose hash was signed.")
        closed.secret = secret
        return True

    def accept(self, message: Accept) -> bool:
        """A voucher for everything up to a tally; also signs the hash of the secret of the tally after the next."""
        if message in self.accepts:
            return False
        self.phase = step(self.phase, Event.ACCEPT)
        closed = self._closed(message.tally)
        if message.tally != self.accepted_tallies + 1:
            raise RemoteError("out_of_order", f"Tally {message.tally} is accepted before one that precedes it.")
        if message.units != closed.range.end or message.chain != closed.chain:
            raise RemoteError("bad_accept", f"The Accept of tally {message.tally} is not for what was tallied.")
        if not closed.secret:
            raise RemoteError("no_secret", f"Tally {message.tally} is accepted before its secret was shown.")
        closed.accepted = True
        self.accepted_units = message.units
        self.accepts.append(message)
        self._secret_hashes[message.tally + 2] = message.next_secret
        return True

    def close(self, position: int, *, final: bool) -> bool:
        """The signer asks for a tally of all positions below `position`; `final`: nothing more will be assigned."""
        if position > len(self.assigned):
            raise RemoteError(
                "not_assigned", f"A Close at {position} is beyond the {len(self.assigned)} assigned positions."
            )
        changed = position > self.close_at
        self.phase = step(self.phase, Event.CLOSE)
        self.close_at = max(self.close_at, position)
        return self._finish(len(self.assigned)) or changed if final else changed

    def cancel(self) -> bool:
        """Units with a receipt by now count, the running ones do not."""
        return self._finish(self.received)

    def leave(self) -> bool:
        """The worker takes no further unit; what it has a receipt for counts."""
        return self._finish(self.received)

    def cut(self, position: int) -> bool:
        """The other side counts nothing from `position` on: its Cancel came before our receipt did."""
        return self._finish(max(position, self.tallied))

    def forfeit(self) -> bool:
        """A recomputation convicted the worker: everything unaccepted is void."""
        before = self.phase
        self.phase = step(self.phase, Event.FORFEIT)
        self.finished_at = self.accepted_units
        return self.phase is not before

    def release(self) -> bool:
        before = self.phase
        if before is Phase.CLOSING and not self.settled:
            raise RemoteError("unpaid", f"Seat {self.id[:4].hex()} still waits for an Accept.")
        self.phase = step(self.phase, Event.RELEASE)
        return self.phase is not before

    def void_positions(self) -> list[int]:
        """Positions with a receipt that no Accept covers: what falls when the seat is forfeited."""
        return [p for p in sorted(self.leaves) if p >= self.accepted_units]

    def _finish(self, at: int) -> bool:
        changed = self.finished_at is None or at < self.finished_at
        self.phase = step(self.phase, Event.FINISH)
        self.finished_at = at if self.finished_at is None else min(at, self.finished_at)
        return changed

    def _closed(self, number: int) -> ClosedTally:
        if not 1 <= number <= len(self.tallies):
            raise RemoteError("out_of_order", f"There is no tally {number} yet.")
        return self.tallies[number - 1]
