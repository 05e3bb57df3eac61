"""verify="replicate": each unit is run by two workers of two owners, each from its own seat; it counts if they agree.

What a unit's runs (its places: seat and position) say together: whether one may be used, whether one may be paid, and
which contradict each other; then both are recomputed by drawn auditors, as any doubtful unit is. An output that a drawn
auditor recomputed has its second word, too. Pure: reads the book. With one copy a unit, as in the other levels, every
answer here is that of a job that knows no replicas. This module places nothing and convicts nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tallymesh.ids import UnitId
from tallymesh.plan import Task
from tallymesh_ledger.audit import Outcome
from tallymesh_node.payer.held import Held

if TYPE_CHECKING:
    from tallymesh_node.payer.book import Book

COPIES: Final = {"replicate": 2}  # runs of each unit, by level; one in the others
# A worker is given so many times the units that it holds at once before another has run them, too: beyond that it
# waits, so that a tally is never far ahead of the second runs which it is paid for.
LEAD: Final = 2
DISPUTED: Final = "Another worker has another result for the same unit."
ALONE: Final = "No second worker has run it in time."

Place = tuple[bytes, int]  # seat, position


def copies_of(verify: str) -> int:
    return COPIES.get(verify, 1)


def usable(book: Book, held: Held, position: int) -> bool:
    """Whether nothing about this run itself forbids to use its output."""
    accepted = position < held.seat.accepted_units
    if position not in held.seat.openings or position in held.unchecked or (held.convicted and not accepted):
        return False
    return accepted or not held.gated(position, training=book.training)


def backed(book: Book, held: Held, position: int) -> bool:
    """Whether somebody else found the same: another worker, a drawn auditor, or the payer's own node."""
    if book.copies == 1:
        return True
    audit = held.audits.get(position)
    if audit is not None and audit.outcome is Outcome.SOUND:
        return True
    unit, end = UnitId(held.seat.assigned[position]), held.seat.openings[position].end
    return any(
        found == end for seat, found in _ends(book, unit) if seat != held.id
    )  # one seat is never given a unit twice


def owed(book: Book, held: Held, position: int) -> bool:
    """Whether a run may be paid as far as its second one goes. Of a job that was given up nothing is used: what there
    is of it is paid under the order's sample."""
    given_up = book.ending is not None and book.ending.status in ("failed", "cancelled")
    return given_up or backed(book, held, position)


def answering(book: Book, unit: UnitId) -> Place | None:
    """The run whose output counts, if there is one."""
    for seat, position in book.placed.get(unit, ()):
        held = book.helds[seat]
        if usable(book, held, position) and backed(book, held, position):
            return seat, position
    return None


def disputed(book: Book, unit: UnitId) -> list[tuple[Held, int]]:
    """Runs to be recomputed because another has another result; not those that were paid before."""
    if book.copies == 1 or len({end for _, end in _ends(book, unit)}) < 2:
        return []
    found = []
    for seat, position in book.placed.get(unit, ()):
        held = book.helds[seat]
        if position in held.seat.openings and position >= held.seat.accepted_units:
            found.append((held, position))
    return found


def _ends(book: Book, unit: UnitId) -> list[tuple[bytes, bytes]]:
    """(seat, output) of each run that has one; the payer's own run has no seat."""
    found = []
    for seat, position in book.placed.get(unit, ()):
        opening = book.helds[seat].seat.openings.get(position)
        if opening is not None:
            found.append((seat, opening.end))
    if unit in book.produced and book.produced[unit] is None:
        own = book.plan.output(unit)
        found += [(b"", own)] if own is not None else []
    return found


def agreed(book: Book) -> int:
    """Units in the plan whose output two workers found."""
    if book.copies == 1:
        return 0
    count = 0
    for unit in book.produced:
        output = book.plan.output(unit)
        count += sum(1 for seat, end in _ends(book, unit) if seat and end == output) >= book.copies
    return count


# Who may run what.


def may_run(book: Book, held: Held, task: Task, taken: dict[UnitId, set[bytes]], fresh: dict[bytes, int]) -> bool:
    """Whether this seat may be given the unit. `taken` are owners that get it in the same pass, `fresh` is, by
    seat, the lead that it has and gets in it."""
    if book.copies == 1:
        return True
    places = book.placed.get(task.unit_id, ())
    owners = {book.helds[seat].owner for seat, _ in places} | taken.get(task.unit_id, set())
    if held.owner in owners or any((*place, held.account) in book.orders for place in places):
        return False  # its word is in already, as a worker's or as an auditor's, or that of somebody who is the same
    if owners:
        return True
    if held.id not in fresh:  # once a pass: the book does not change in it
        fresh[held.id] = lead(book, held)
    return fresh[held.id] < LEAD * (held.width + 1)


def lead(book: Book, held: Held) -> int:
    """Units that this owner alone was given, and whose output does not count yet."""
    return sum(
        len(places) == 1 and book.helds[places[0][0]].owner == held.owner
        for unit in open_units(book, held.stage)
        if (places := book.placed[unit])
    )


def open_units(book: Book, stage: int) -> list[UnitId]:
    """Units that are placed, have no output in the plan, and are still wanted: what a round that is done again makes
    superfluous gets no second run."""
    if not book.training:
        return list(book.working[stage])
    return [t.unit_id for t in book.plan.ready() if t.node.stage == stage and t.unit_id in book.placed]


def runs_left(book: Book, stage: int) -> int:
    """Runs of a stage that nobody was given yet, if nothing has to be done again."""
    if book.copies == 1:
        return book.units_left(stage) - len(book.working[stage])
    return book.copies * book.units_left(stage) - sum(len(book.placed[unit]) for unit in open_units(book, stage))


def covered(book: Book, held: Held) -> int:
    """How many of those this seat can take: of each unit one."""
    if book.copies == 1:
        return held.positions_left
    mine = sum(
        any(book.helds[seat].owner == held.owner for seat, _ in book.placed[unit])
        for unit in open_units(book, held.stage)
    )
    return min(held.positions_left, max(0, book.units_left(held.stage) - mine))
