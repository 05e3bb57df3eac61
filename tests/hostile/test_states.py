"""Model states, shards and configs of steps: any bytes give tensors or the error that their decoders name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from hostile.inputs import NASTY, cut, hostile
from hostile.targets import attempt
from hostile.targets_of_states import STATES

EXAMPLES = 60


@pytest.mark.parametrize("name", STATES)
def test_good_states_are_taken_and_hostile_ones_refused(name: str) -> None:
    target = STATES[name]
    seeds = target.seeds()
    for data in (*seeds, *NASTY, *cut(seeds)):
        attempt(target, data)

    @settings(max_examples=EXAMPLES)
    @given(hostile(seeds))
    def run(data: bytes) -> None:
        attempt(target, data)

    run()
