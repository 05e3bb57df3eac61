"""Any bytes give a message or the error that the decoder names, in bounded time and memory."""

from __future__ import annotations

import sys

import pytest

from hostile.inputs import NASTY, Dice, changed, cut
from hostile.targets import TARGETS, check

EXAMPLES = 100  # of each of about 140 targets; scripts/fuzz takes the time that it is given


# Their seeds are only near a good message: whole ones are made by the tests of their own modules.
NEARLY = {
    "keystore",
    "proof",
    "transaction",
    "canary",
    "unit's outputs",
    "chain's answer",
    "config file",
    "owner's orders",
}


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - NEARLY))
def test_good_messages_are_taken(name: str) -> None:
    """Otherwise the others would test the first line of a decoder."""
    for seed in TARGETS[name].seeds()[:1]:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_cut_stretched_nested_or_no_text_is_refused_by_its_error(name: str) -> None:
    for data in (*NASTY, *cut(TARGETS[name].seeds())):
        check(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_change_of_a_good_message_is_taken_or_refused_by_its_error(name: str) -> None:
    seeds, dice = TARGETS[name].seeds(), Dice(name)
    for _ in range(EXAMPLES):
        check(name, changed(dice, seeds))


def test_the_stack_is_that_of_a_daemon() -> None:
    """Nested input meets a RecursionError only while nobody raises the limit: else it is the C stack that ends."""
    assert sys.getrecursionlimit() == 1000
