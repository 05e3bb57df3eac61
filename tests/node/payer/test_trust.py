"""Whom a payer leaves alone, and for how long."""

from __future__ import annotations

import pytest

from fakes.journal import MemoryJournal
from tallymesh_node.payer.trust import REST_FIRST_S, REST_S, Trust

ACCOUNT = b"\x05" * 20


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def trust(clock: list[float]) -> Trust:
    trust = Trust(MemoryJournal())
    trust._now = lambda: clock[0]
    return trust


def test_a_worker_that_was_given_up_once_is_back_soon_and_each_time_later(trust: Trust, clock: list[float]) -> None:
    rests = []
    for _ in range(7):
        trust.rest("worker", ACCOUNT, "silent")
        began = clock[0]
        while trust.resting("worker"):
            clock[0] += 1.0
        rests.append(clock[0] - began)
    assert rests == [min(REST_S, REST_FIRST_S * 2**n) for n in range(7)]
    assert rests[-1] == REST_S


def test_what_is_long_ago_is_forgotten(trust: Trust, clock: list[float]) -> None:
    trust.rest("worker", ACCOUNT, "silent")
    trust.rest("worker", ACCOUNT, "silent")
    clock[0] += 2 * REST_FIRST_S + REST_S
    trust.rest("worker", ACCOUNT, "silent")
    clock[0] += REST_FIRST_S
    assert trust.resting("worker") == {}


def test_whose_fault_it_was_not_begins_anew(trust: Trust, clock: list[float]) -> None:
    trust.rest("auditor", ACCOUNT, "silent")
    trust.wake("auditor", {ACCOUNT})
    assert trust.resting("auditor") == {}
    trust.rest("auditor", ACCOUNT, "silent")
    clock[0] += REST_FIRST_S
    assert trust.resting("auditor") == {}


def test_a_short_rest_for_a_busy_worker_counts_for_nothing(trust: Trust, clock: list[float]) -> None:
    for _ in range(5):
        trust.rest("worker", ACCOUNT, "busy", 5.0)
    clock[0] += 5.0
    assert trust.resting("worker") == {}
    trust.rest("worker", ACCOUNT, "silent")
    clock[0] += REST_FIRST_S
    assert trust.resting("worker") == {}
