"""When to claim, and what stands against it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fakes.worker_scene import TOKEN
from tallymesh.messages import Auditors, Order
from tallymesh_ledger import claims
from tallymesh_ledger.claims import Terms
from tallymesh_node.claims import due
from tallymesh_node.claims.due import Policy, Standing

POLICY = Policy(patience_s=600)
STANDING = Standing(
    units=3, now=1000, until=5000, claim_window=1000, silent_s=0.0, stalled_s=0.0, accept_s=100.0
)  # fmt: skip
TERMS = Terms(commit_s=1, open_s=1, reveal_s=1, challenge_s=1, court_fee=70, quorum=3)
ORDER = Order(
    payer=b"p" * 20, signer=b"s" * 20, template=bytes(32), numeric_profile=bytes(32), cores=1, memory_mib=1, disk_mib=1,
    gpus=0, price_max=1, wages=TOKEN, audit_reserve=1, lock_per_seat=1, claim_bond=70, audit_rate_bp=400, tally_units=4,
    claim_window=60, evidence_window=60, auditors=int(Auditors.OPEN), auditors_root=bytes(32), signer_seat_max=1,
    newcomers=False, deadline=1, salt=bytes(32),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"silent_s": 599.0}, ""),
        ({"silent_s": 600.0}, "silent"),
        ({"units": 0, "silent_s": 600.0}, ""),
        ({"stalled_s": 699.0}, ""),
        ({"stalled_s": 700.0}, "unaccepted"),
        ({"now": 5499}, ""),
        ({"now": 5500}, "window"),
        ({"now": 6000}, "window"),
        ({"now": 6001}, "lost"),
        ({"now": 6001, "units": 0}, ""),
    ],
)
def test_a_claim_is_made_after_the_payers_times_and_within_the_window(changes: dict[str, Any], reason: str) -> None:
    assert due.reason(POLICY, msgspec.structs.replace(STANDING, **changes)) == reason


@pytest.mark.parametrize(
    ("changes", "convicted", "code"),
    [
        ({}, False, None),
        ({"auditors": int(Auditors.GROUP)}, False, "no_claim"),
        ({"auditors": int(Auditors.PAYER)}, False, "no_claim"),
        ({"claim_bond": 69}, False, "no_claim"),
        ({}, True, "convicted"),
    ],
)
def test_what_makes_a_claim_impossible_is_told(changes: dict[str, Any], convicted: bool, code: str | None) -> None:
    found = due.obstacle(msgspec.structs.replace(ORDER, **changes), TERMS, convicted=convicted)
    assert (found[0] if found else None) == code


@pytest.mark.parametrize(
    ("received", "paid", "claimed_to", "expected"),
    [
        (6, 1, 0, range(1, 6)),
        (20, 1, 0, range(1, 9)),  # two tallies of four
        (20, 8, 0, range(8, 10)),  # the seat has ten
        (6, 6, 0, range(6, 6)),
        (6, 3, 6, range(3, 3)),  # they were claimed once, and halved
        (9, 6, 6, range(6, 9)),
    ],
)
def test_a_claim_is_for_what_has_a_receipt_and_was_never_claimed(
    received: int, paid: int, claimed_to: int, expected: range
) -> None:
    assert claims.claimable(received, paid, claimed_to, 4, 10) == expected


def test_tries_are_further_and_further_apart() -> None:
    pauses = [due.retry_s(tries) for tries in range(1, due.TRIES_MAX + 1)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == due.RETRY_MAX_S


def test_the_first_transaction_must_be_worth_a_part_of_the_pay_after_the_fee() -> None:
    assert due.share_of_pay(1000, 200) == 980 // due.GAS_SHARE


@pytest.mark.parametrize(("count", "rate_bp", "k"), [(1, 400, 1), (5, 400, 2), (100, 400, 4), (100, 10_000, 16)])
def test_samples_are_two_at_least_and_sixteen_at_most(count: int, rate_bp: int, k: int) -> None:
    assert claims.sample_count(count, rate_bp) == k
