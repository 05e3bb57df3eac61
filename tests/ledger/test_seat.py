"""A seat: every message out of order, twice, or never; and what holds after any sequence of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from tallymesh.errors import RemoteError
from tallymesh.exchange import Opening
from tallymesh.ids import ZERO32, SeatId
from tallymesh.messages import Accept, Lease, Tally
from tallymesh_ledger import merkle, sampling
from tallymesh_ledger.phases import TABLE, Event, Phase, step
from tallymesh_ledger.seat import Range, Seat, TwoLeaves

ID = SeatId(b"\x0a" * 32)
UNITS = [bytes([n]) * 32 for n in range(1, 30)]


def secret(number: int) -> bytes:
    return sampling.secret(b"job", ID, number)


def lease(positions: int = 12) -> Lease:
    return Lease(
        job=ZERO32,
        worker=b"\x01" * 20,
        positions=positions,
        price=5,
        work_ms=1000,
        numeric_class=ZERO32,
        lock=0,
        until=0,
        seat_by=0,
        secret_1=sampling.secret_hash(secret(1)),
        secret_2=sampling.secret_hash(secret(2)),
        nonce=1,
    )


def new(positions: int = 12, tally_units: int = 3) -> Seat:
    return Seat(ID, lease(positions), tally_units)


def opening(position: int, *, end: int = 0) -> Opening:
    return Opening(UNITS[position], ZERO32, bytes([100 + end]) * 32, bytes([position]) * 32, ZERO32)


def receive(seat: Seat, position: int, *, end: int = 0) -> bool:
    made = opening(position, end=end)
    return seat.receive(position, merkle.leaf(ID, position, made), made)


def tally_message(seat: Seat, covered: Range) -> Tally:
    return Tally(
        seat=ID,
        number=covered.number,
        previous=seat.tallies[covered.number - 2].chain if covered.number > 1 else ZERO32,
        start=covered.start,
        count=covered.count,
        root=seat.root_of(covered),
        block_number=1,
        block_hash=ZERO32,
    )


def close_tally(seat: Seat) -> Range:
    covered = seat.due()
    assert covered is not None
    seat.tally(tally_message(seat, covered))
    return covered


def accept_message(seat: Seat, number: int) -> Accept:
    closed = seat.tallies[number - 1]
    hashed = sampling.secret_hash(secret(number + 2))
    return Accept(seat=ID, tally=number, units=closed.range.end, chain=closed.chain, next_secret=hashed)


def run(seat: Seat, count: int) -> None:
    """Assign and receive `count` units, with all that has to happen between them."""
    for _ in range(count):
        position = len(seat.assigned)
        seat.assign(position, UNITS[position])
        receive(seat, position)
        while seat.due() is not None:
            number = close_tally(seat).number
            seat.show_secret(number, secret(number))
            seat.accept(accept_message(seat, number))


def refused(code: str, action: Callable[[], object]) -> None:
    with pytest.raises(RemoteError) as caught:
        action()
    assert caught.value.code == code


# The table.


def test_what_is_not_in_the_table_is_refused() -> None:
    for phase in Phase:
        for event in Event:
            if (phase, event) in TABLE:
                assert step(phase, event) is TABLE[phase, event]
            else:
                refused("out_of_order", lambda phase=phase, event=event: step(phase, event))


def test_no_way_leads_back_from_closing_forfeited_or_released() -> None:
    order = [Phase.OPEN, Phase.CLOSING, Phase.FORFEITED, Phase.RELEASED]
    assert all(order.index(after) >= order.index(before) for (before, _), after in TABLE.items())
    assert {before for (before, event) in TABLE if event is Event.ASSIGN} == {Phase.OPEN}
    assert Phase.FORFEITED not in {before for (before, event) in TABLE if event is Event.ACCEPT}


# Out of order.


def test_positions_are_assigned_once_and_in_order() -> None:
    seat = new()
    refused("out_of_order", lambda: seat.assign(1, UNITS[1]))
    assert seat.assign(0, UNITS[0])
    assert not seat.assign(0, UNITS[0])
    refused("position_taken", lambda: seat.assign(0, UNITS[1]))
    assert seat.assigned == [UNITS[0]]


def test_no_position_beyond_the_lease() -> None:
    seat = new(positions=2)
    run(seat, 2)
    refused("no_positions", lambda: seat.assign(2, UNITS[2]))


def test_a_receipt_needs_its_assign_its_unit_and_its_leaf() -> None:
    seat = new()
    refused("not_assigned", lambda: receive(seat, 0))
    seat.assign(0, UNITS[1])
    refused("wrong_unit", lambda: receive(seat, 0))
    seat = new()
    seat.assign(0, UNITS[0])
    refused("bad_leaf", lambda: seat.receive(0, b"\x01" * 32, opening(0)))
    assert seat.leaves == {}


def test_a_second_leaf_for_one_position_is_fraud_by_proof() -> None:
    seat = new()
    seat.assign(0, UNITS[0])
    assert receive(seat, 0)
    assert not receive(seat, 0)
    with pytest.raises(TwoLeaves):
        receive(seat, 0, end=1)


def test_receipts_may_come_in_any_order_and_a_gap_is_never_tallied() -> None:
    seat = new()
    for position in range(4):
        seat.assign(position, UNITS[position])
    for position in (3, 1, 2):
        receive(seat, position)
        assert seat.received == 0
        assert seat.due() is None
    receive(seat, 0)
    assert seat.received == 4
    assert seat.due() == Range(1, 0, 1)


def test_the_first_unit_is_a_tally_of_its_own_and_later_ones_are_full() -> None:
    seat = new()
    for position in range(5):
        seat.assign(position, UNITS[position]) if not seat.assignable() else None
        if position < len(seat.assigned):
            receive(seat, position)
    assert close_tally(seat) == Range(1, 0, 1)
    assert close_tally(seat) == Range(2, 1, 3)
    assert seat.due() is None


def test_a_worker_begins_tally_three_only_with_the_accept_of_one() -> None:
    seat = new()
    for position in range(4):
        seat.assign(position, UNITS[position])
    assert seat.assignable() == "unaccepted"
    refused("unaccepted", lambda: seat.assign(4, UNITS[4]))
    receive(seat, 0)
    close_tally(seat)
    seat.show_secret(1, secret(1))
    seat.accept(accept_message(seat, 1))
    assert seat.assign(4, UNITS[4])


def test_closes_that_cut_short_never_ask_for_a_tally_whose_secret_is_not_agreed() -> None:
    """Positions meant for tally 2 when they were assigned end up in tally 3 by an early Close: without waiting for the
    Accept of tally 1 the payer would have to show a secret whose hash nobody signed, and an honest worker would be
    sent away."""
    seat = new()
    for position in range(3):
        seat.assign(position, UNITS[position])
        receive(seat, position)
    assert close_tally(seat) == Range(1, 0, 1)
    seat.close(2, final=False)
    assert close_tally(seat) == Range(2, 1, 1)
    seat.close(3, final=False)
    assert seat.due() is None
    seat.show_secret(1, secret(1))
    seat.accept(accept_message(seat, 1))
    assert close_tally(seat) == Range(3, 2, 1)
    seat.show_secret(3, secret(3))


def test_a_tally_continues_the_one_before_and_covers_what_was_received() -> None:
    seat = new()
    for position in range(4):
        seat.assign(position, UNITS[position])
        receive(seat, position)
    for wrong, code in (
        (Range(2, 0, 1), "out_of_order"),
        (Range(1, 1, 1), "out_of_order"),
        (Range(1, 0, 2), "bad_tally"),
        (Range(1, 0, 0), "bad_tally"),
    ):
        message = Tally(
            seat=ID, number=wrong.number, previous=ZERO32, start=wrong.start, count=wrong.count, root=ZERO32,
            block_number=1, block_hash=ZERO32,
        )  # fmt: skip
        refused(code, lambda message=message: seat.tally(message))
    good = tally_message(seat, Range(1, 0, 1))
    seat.tally(good)
    assert not seat.tally(good)
    refused("two_tallies", lambda: seat.tally(Tally(**{**as_dict(good), "block_number": 2})))
    refused("bad_root", lambda: seat.tally(Tally(**{**as_dict(tally_message(seat, Range(2, 1, 2))), "root": ZERO32})))
    del seat.leaves[2]
    missing = {**as_dict(good), "number": 2, "start": 1, "count": 3, "previous": seat.chain}
    refused("missing_receipts", lambda: seat.tally(Tally(**missing)))


def as_dict(message: Tally) -> dict[str, object]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def test_secrets_are_those_whose_hash_was_signed_and_come_after_the_root() -> None:
    seat = new()
    seat.assign(0, UNITS[0])
    receive(seat, 0)
    refused("out_of_order", lambda: seat.show_secret(1, secret(1)))
    close_tally(seat)
    refused("bad_secret", lambda: seat.show_secret(1, secret(2)))
    assert seat.show_secret(1, secret(1))
    assert not seat.show_secret(1, secret(1))


def test_an_accept_needs_the_secret_the_order_and_what_was_tallied() -> None:
    seat = new()
    for position in range(4):
        seat.assign(position, UNITS[position])
        receive(seat, position)
    close_tally(seat)
    refused("no_secret", lambda: seat.accept(accept_message(seat, 1)))
    seat.show_secret(1, secret(1))
    close_tally(seat)
    seat.show_secret(2, secret(2))
    refused("out_of_order", lambda: seat.accept(accept_message(seat, 2)))
    good = accept_message(seat, 1)
    wrong = Accept(seat=ID, tally=1, units=4, chain=good.chain, next_secret=good.next_secret)
    refused("bad_accept", lambda: seat.accept(wrong))
    wrong = Accept(seat=ID, tally=1, units=1, chain=ZERO32, next_secret=good.next_secret)
    refused("bad_accept", lambda: seat.accept(wrong))
    assert seat.accept(good)
    assert not seat.accept(good)
    assert seat.accepted_units == 1


def test_the_accept_binds_the_secret_of_the_tally_after_the_next() -> None:
    seat = new()
    run(seat, 4)
    for position in range(4, 7):
        seat.assign(position, UNITS[position])
        receive(seat, position)
    close_tally(seat)
    refused("bad_secret", lambda: seat.show_secret(3, secret(4)))
    assert seat.show_secret(3, secret(3))


# Endings.


def test_a_close_asks_for_a_tally_and_takes_no_position_that_was_not_assigned() -> None:
    seat = new()
    run(seat, 1)
    seat.assign(1, UNITS[1])
    seat.assign(2, UNITS[2])
    refused("not_assigned", lambda: seat.close(4, final=False))
    assert seat.close(2, final=False)
    assert not seat.close(2, final=False)
    assert seat.due() is None
    receive(seat, 1)
    assert seat.due() == Range(2, 1, 1)


def test_a_final_close_ends_the_seat_when_everything_is_accepted() -> None:
    seat = new()
    run(seat, 2)
    assert seat.close(2, final=True)
    assert seat.phase is Phase.CLOSING
    refused("out_of_order", lambda: seat.assign(2, UNITS[2]))
    refused("unpaid", seat.release)
    number = close_tally(seat).number
    seat.show_secret(number, secret(number))
    seat.accept(accept_message(seat, number))
    assert seat.settled
    assert seat.release()
    assert not seat.release()
    assert seat.phase is Phase.RELEASED


def test_cancel_counts_receipts_and_refuses_the_running_ones() -> None:
    seat = new()
    run(seat, 1)
    for position in (1, 2, 3):
        seat.assign(position, UNITS[position])
    receive(seat, 1)
    receive(seat, 3)
    assert seat.cancel()
    assert seat.finished_at == 2
    refused("too_late", lambda: receive(seat, 2))
    assert seat.due() == Range(2, 1, 1)


def test_leave_after_everything_keeps_what_was_received() -> None:
    seat = new()
    run(seat, 3)
    seat.leave()
    assert seat.due() == Range(2, 1, 2)
    refused("out_of_order", lambda: seat.assign(3, UNITS[3]))


def test_cut_never_takes_back_what_is_tallied() -> None:
    seat = new()
    run(seat, 4)
    seat.cut(2)
    assert seat.finished_at == 4
    seat = new()
    run(seat, 3)
    seat.cut(1)
    assert seat.finished_at == 1
    assert seat.due() is None


def test_forfeit_voids_what_is_not_accepted_and_takes_nothing_more() -> None:
    seat = new()
    run(seat, 1)
    for position in (1, 2):
        seat.assign(position, UNITS[position])
        receive(seat, position)
    assert seat.forfeit()
    assert not seat.forfeit()
    assert seat.void_positions() == [1, 2]
    assert seat.accepted_units == 1
    refused("out_of_order", lambda: seat.assign(3, UNITS[3]))
    refused("out_of_order", lambda: seat.tally(tally_message(seat, Range(2, 1, 2))))
    assert seat.due() is None
    assert seat.release()


class Machine(RuleBasedStateMachine):
    """Any sequence of events by anybody: whatever is refused changes nothing, and the contract holds."""

    positions = Bundle("positions")

    def __init__(self) -> None:
        super().__init__()
        self.seat = new(positions=9)

    def attempt(self, action: Callable[[], object]) -> None:
        before = self.picture()
        try:
            changed = action()
        except RemoteError:
            assert self.picture() == before
        else:
            assert changed or self.picture() == before

    def picture(self) -> tuple[object, ...]:
        seat = self.seat
        return (
            seat.phase, tuple(seat.assigned), dict(seat.leaves), len(seat.tallies), seat.accepted_units,
            len(seat.accepts), seat.close_at, seat.finished_at, tuple(bool(t.secret) for t in seat.tallies),
        )  # fmt: skip

    @rule(position=st.integers(0, 10), unit=st.integers(0, 10))
    def assign_any(self, position: int, unit: int) -> None:
        self.attempt(lambda: self.seat.assign(position, UNITS[unit]))

    @rule()
    def assign_next(self) -> None:
        position = len(self.seat.assigned)
        self.attempt(lambda: self.seat.assign(position, UNITS[position]))

    @rule(position=st.integers(0, 10), end=st.integers(0, 1))
    def receive_any(self, position: int, end: int) -> None:
        self.attempt(lambda: receive(self.seat, position, end=end))

    @rule(timed_out=st.booleans())
    def tally_due(self, timed_out: bool) -> None:
        covered = self.seat.due(timed_out=timed_out)
        if covered is not None:
            self.attempt(lambda: self.seat.tally(tally_message(self.seat, covered)))

    @rule(number=st.integers(1, 4), start=st.integers(0, 6), count=st.integers(0, 4))
    def tally_any(self, number: int, start: int, count: int) -> None:
        message = Tally(
            seat=ID, number=number, previous=self.seat.chain, start=start, count=count, root=ZERO32, block_number=1,
            block_hash=ZERO32,
        )  # fmt: skip
        self.attempt(lambda: self.seat.tally(message))

    @rule(number=st.integers(1, 4), shown=st.integers(1, 4))
    def show_secret(self, number: int, shown: int) -> None:
        self.attempt(lambda: self.seat.show_secret(number, secret(shown)))

    @rule(number=st.integers(1, 4))
    def accept(self, number: int) -> None:
        if number <= len(self.seat.tallies):
            self.attempt(lambda: self.seat.accept(accept_message(self.seat, number)))

    @rule(position=st.integers(0, 10), final=st.sampled_from([False, False, False, True]))
    def close(self, position: int, final: bool) -> None:
        self.attempt(lambda: self.seat.close(position, final=final))

    @rule(what=st.sampled_from(["cancel", "leave", "forfeit", "release"]), chance=st.integers(0, 5))
    def end(self, what: str, chance: int) -> None:
        if chance == 0:
            self.attempt(getattr(self.seat, what))

    @invariant()
    def contract(self) -> None:
        seat = self.seat
        assert seat.accepted_units <= seat.tallied <= max(seat.received, seat.tallied) <= len(seat.assigned)
        assert len(seat.assigned) <= seat.lease.positions
        assert [t.range.start for t in seat.tallies] == [0, *(t.range.end for t in seat.tallies)][: len(seat.tallies)]
        for closed in seat.tallies:
            assert closed.message.root == seat.root_of(closed.range)
        accepted = [closed.accepted for closed in seat.tallies]
        assert accepted == sorted(accepted, reverse=True)
        assert sum(closed.range.count for closed in seat.tallies if closed.accepted) == seat.accepted_units
        if seat.phase is Phase.FORFEITED:
            assert seat.due() is None


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_any_sequence_of_events = Machine.TestCase
