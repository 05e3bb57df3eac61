"""The life of a seat as one table: ``(phase, event) -> phase``. What is not in it is refused and changes nothing.

docs/PROTOCOL.md shows the diagram that scripts/sync_docs generates from it. Guards that need numbers are in seat.py.
"""

from __future__ import annotations

from enum import Enum

from tallymesh.errors import RemoteError


class Phase(Enum):
    OPEN = "open"  # units are assigned, run, tallied and accepted
    CLOSING = (
        "closing"  # a final Close, Cancel or Leave: nothing new is assigned, what is there is tallied and accepted
    )
    FORFEITED = "forfeited"  # a recomputation convicted the worker: unaccepted tallies are void
    RELEASED = "released"  # the worker signed that it is owed nothing more


class Event(Enum):
    ASSIGN = "assign"
    RECEIPT = "receipt"
    TALLY = "tally"
    SECRET = "show_secret"
    ACCEPT = "accept"
    CLOSE = "close"
    FINISH = "finish"  # a final Close, Cancel, or Leave
    FORFEIT = "forfeit"
    RELEASE = "release"


TABLE: dict[tuple[Phase, Event], Phase] = {
    (Phase.OPEN, Event.ASSIGN): Phase.OPEN,
    (Phase.OPEN, Event.RECEIPT): Phase.OPEN,
    (Phase.OPEN, Event.TALLY): Phase.OPEN,
    (Phase.OPEN, Event.SECRET): Phase.OPEN,
    (Phase.OPEN, Event.ACCEPT): Phase.OPEN,
    (Phase.OPEN, Event.CLOSE): Phase.OPEN,
    (Phase.OPEN, Event.FINISH): Phase.CLOSING,
    (Phase.OPEN, Event.FORFEIT): Phase.FORFEITED,
    (Phase.CLOSING, Event.RECEIPT): Phase.CLOSING,
    (Phase.CLOSING, Event.TALLY): Phase.CLOSING,
    (Phase.CLOSING, Event.SECRET): Phase.CLOSING,
    (Phase.CLOSING, Event.ACCEPT): Phase.CLOSING,
    (Phase.CLOSING, Event.CLOSE): Phase.CLOSING,
    (Phase.CLOSING, Event.FINISH): Phase.CLOSING,
    (Phase.CLOSING, Event.FORFEIT): Phase.FORFEITED,
    (Phase.CLOSING, Event.RELEASE): Phase.RELEASED,
    (Phase.FORFEITED, Event.FORFEIT): Phase.FORFEITED,
    (Phase.FORFEITED, Event.RELEASE): Phase.RELEASED,
    (Phase.RELEASED, Event.RELEASE): Phase.RELEASED,
}


def step(phase: Phase, event: Event) -> Phase:
    """The next phase, or RemoteError `out_of_order`."""
    after = TABLE.get((phase, event))
    if after is None:
        raise RemoteError("out_of_order", f"A seat that is {phase.value} takes no {event.value}.")
    return after
