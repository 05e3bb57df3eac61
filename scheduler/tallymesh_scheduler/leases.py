"""The life of a lease on the payer's side, as one table: ``(state, event) -> state``.

What is not in the table is refused and changes nothing. This module knows no times: which timer raises which event
stands in tallymesh_ledger.waits.
"""

from __future__ import annotations

from enum import Enum

from tallymesh.errors import RemoteError


class LeaseState(Enum):
    ASKED = "asked"  # sent to the worker, not answered
    AGREED = "agreed"  # signed by both, not on chain
    SEATED = "seated"  # on chain: units are assigned
    ENDING = "ending"  # nothing new is assigned; tallies, audits and Accepts are still to come
    LOST = "lost"  # the worker is gone or convicted: its seat only waits to be settled or to expire
    CLOSED = "closed"  # the seat is closed on chain
    REFUSED = "refused"  # the worker said no, did not answer, or the seat did not get on chain in time


class LeaseEvent(Enum):
    AGREE = "agree"
    REFUSE = "refuse"
    TIMEOUT = "timeout"
    SEAT = "seat"
    END = "end"
    LOSE = "lose"
    CLOSE = "close"


TABLE: dict[tuple[LeaseState, LeaseEvent], LeaseState] = {
    (LeaseState.ASKED, LeaseEvent.AGREE): LeaseState.AGREED,
    (LeaseState.ASKED, LeaseEvent.REFUSE): LeaseState.REFUSED,
    (LeaseState.ASKED, LeaseEvent.TIMEOUT): LeaseState.REFUSED,
    (LeaseState.AGREED, LeaseEvent.SEAT): LeaseState.SEATED,
    (LeaseState.AGREED, LeaseEvent.TIMEOUT): LeaseState.REFUSED,
    (LeaseState.AGREED, LeaseEvent.REFUSE): LeaseState.REFUSED,
    (LeaseState.SEATED, LeaseEvent.END): LeaseState.ENDING,
    (LeaseState.SEATED, LeaseEvent.LOSE): LeaseState.LOST,
    (LeaseState.SEATED, LeaseEvent.CLOSE): LeaseState.CLOSED,
    (LeaseState.ENDING, LeaseEvent.END): LeaseState.ENDING,
    (LeaseState.ENDING, LeaseEvent.LOSE): LeaseState.LOST,
    (LeaseState.ENDING, LeaseEvent.CLOSE): LeaseState.CLOSED,
    (LeaseState.LOST, LeaseEvent.LOSE): LeaseState.LOST,
    (LeaseState.LOST, LeaseEvent.CLOSE): LeaseState.CLOSED,
}


def step(state: LeaseState, event: LeaseEvent) -> LeaseState:
    """The next state, or RemoteError `out_of_order`."""
    after = TABLE.get((state, event))
    if after is None:
        raise RemoteError("out_of_order", f"A lease that is {state.value} takes no {event.value}.")
    return after
