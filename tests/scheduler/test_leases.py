"""The lease table: what is in it happens, what is not is refused and changes nothing."""

from __future__ import annotations

import itertools

import pytest

from tallymesh.errors import RemoteError
from tallymesh_scheduler.leases import TABLE, LeaseEvent, LeaseState, step


@pytest.mark.parametrize(("state", "event"), itertools.product(LeaseState, LeaseEvent))
def test_every_pair_is_in_the_table_or_refused(state: LeaseState, event: LeaseEvent) -> None:
    if (state, event) in TABLE:
        assert step(state, event) is TABLE[state, event]
    else:
        with pytest.raises(RemoteError, match="takes no"):
            step(state, event)


def test_every_state_can_end_and_ended_ones_stay_ended() -> None:
    ended = {LeaseState.CLOSED, LeaseState.REFUSED}
    assert not any(state in ended for state, _ in TABLE)
    for start in set(LeaseState) - ended:
        reached, front = {start}, [start]
        while front:
            state = front.pop()
            for (before, _), after in TABLE.items():
                if before is state and after not in reached:
                    reached.add(after)
                    front.append(after)
        assert reached & ended, start


def test_work_never_starts_before_the_seat() -> None:
    assert {state for (state, event) in TABLE if event is LeaseEvent.END} <= {LeaseState.SEATED, LeaseState.ENDING}
