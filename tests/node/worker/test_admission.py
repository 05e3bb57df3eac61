"""Whether a lease is taken: one case for each reason, by changing one thing of a lease that is fine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tallymesh.ids import ZERO32
from tallymesh.messages import Lease, Offer, Order
from tallymesh.parameters import Parameters
from tallymesh.units import Input, JobSpec, Stage
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_node.worker import MAX_OPEN_LEASES, Situation, judge
from tallymesh_node.worker.admission import MAX_PAYER_LEASES, SEAT_BY_MAX_S

NOW = 1_800_000_000
P = Parameters()
A, B, C = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32

OFFER = Offer(
    account=b"w" * 20, peer_id_hash=ZERO32, numeric_class=C, provisional=False, cores=4, memory_mib=8192, disk_mib=1000,
    gpus="2*H200:141000:560:48.1:52.3", cpu_score=1000, ask_price=1000, addresses="", attestation=ZERO32, seq=1,
    issued=NOW, expires=NOW + 60,
)  # fmt: skip
ORDER = Order(
    payer=b"p" * 20, signer=b"s" * 20, template=A, numeric_profile=B, cores=2, memory_mib=8192, disk_mib=1000, gpus=2,
    price_max=10_000, wages=12_500, audit_reserve=1000, lock_per_seat=100, claim_bond=500, audit_rate_bp=400,
    tally_units=50, claim_window=10, evidence_window=10, auditors=0, auditors_root=ZERO32, signer_seat_max=10**18,
    newcomers=False, deadline=NOW + 1, salt=ZERO32,
)  # fmt: skip
LEASE = Lease(
    job=A, worker=b"w" * 20, positions=5, price=2400, work_ms=2400, numeric_class=C, lock=100,
    until=NOW + P.lease_max_s, seat_by=NOW + SEAT_BY_MAX_S, secret_1=A, secret_2=B, nonce=1,
)  # fmt: skip
SPEC = JobSpec("map", A, B, 0, (Stage("map", "m:f", b"{}", 2400),), (A,))
SITUATION = Situation(
    now=NOW, offer=OFFER, slots=1, free_stake=150, pending_lock=50, open_leases=MAX_OPEN_LEASES - 1,
    payer_leases=MAX_PAYER_LEASES - 1, cores_held=2, funds=12_500, unseated_until=NOW,
)  # fmt: skip

Changes = dict[str, Any]


def code(order: Changes, lease: Changes, spec: Changes, situation: Changes, offer: Changes) -> str:
    replace = msgspec.structs.replace
    base: dict[str, Any] = {"offer": replace(OFFER, **offer), **situation}
    refusal = judge(
        replace(ORDER, **order), replace(LEASE, **lease), replace(SPEC, **spec), replace(SITUATION, **base), P
    )
    return refusal.code if refusal else ""


CASES: list[tuple[str, str, Changes]] = [
    ("no_offer", "situation", {"offer": None}),
    ("no_offer", "offer", {"expires": NOW - 1}),
    ("unstaked", "situation", {"slots": 0}),
    ("bad_wheels", "spec", {"shared": (Input("wheel/01/1/x", A),)}),
    ("bad_lease", "lease", {"positions": 0}),
    ("bad_lease", "lease", {"work_ms": 2401}),
    ("bad_lease", "lease", {"work_ms": 0}),
    ("bad_lease", "spec", {"profile": C}),
    ("bad_lease", "lease", {"secret_1": ZERO32}),
    ("bad_lease", "lease", {"secret_2": ZERO32}),
    ("bad_lease", "lease", {"secret_2": A}),
    ("bad_lease", "order", {"tally_units": 0}),
    ("too_late", "order", {"deadline": NOW}),
    ("too_long", "lease", {"until": NOW + P.lease_max_s + 1}),
    ("too_late", "lease", {"until": NOW + 2}),
    ("too_late", "lease", {"until": NOW - 1}),
    ("bad_seat_by", "lease", {"seat_by": NOW - 1}),
    ("bad_seat_by", "lease", {"seat_by": NOW + SEAT_BY_MAX_S + 1}),
    ("other_class", "lease", {"numeric_class": A}),
    ("other_class", "offer", {"provisional": True}),
    ("too_little_memory", "order", {"memory_mib": 8193}),
    ("too_little_disk", "order", {"disk_mib": 1001}),
    ("too_few_gpus", "order", {"gpus": 3}),
    ("too_few_gpus", "offer", {"gpus": ""}),
    ("too_few_gpus", "offer", {"gpus": "H200:141000:560;H200:141000:560"}),
    ("sells_gpus", "order", {"gpus": 0}),
    ("too_few_cores", "order", {"cores": 5}),
    ("price_too_low", "lease", {"price": 2399}),
    ("price_too_low", "offer", {"ask_price": 1001}),
    ("over_budget", "order", {"wages": 12_499}),
    ("over_budget", "order", {"claim_bond": 501}),
    ("tally_too_long", "order", {"tally_units": 101}),
    ("too_little_stake", "lease", {"lock": 101}),
    ("too_little_stake", "situation", {"pending_lock": 51}),
    ("never_seated", "situation", {"unseated_until": NOW + 1}),
    ("unfunded", "situation", {"funds": 12_499}),
    ("busy", "situation", {"open_leases": MAX_OPEN_LEASES}),
    ("busy", "situation", {"payer_leases": MAX_PAYER_LEASES}),
    ("busy", "situation", {"cores_held": 3}),
]


@pytest.mark.parametrize(("expected", "part", "changes"), CASES, ids=lambda value: str(value)[:40])
def test_each_thing_that_is_wrong_has_its_own_reason(expected: str, part: str, changes: Changes) -> None:
    parts: dict[str, Changes] = {"order": {}, "lease": {}, "spec": {}, "situation": {}, "offer": {}}
    assert code(**{**parts, part: changes}) == expected


def test_terms_that_just_fit_are_taken() -> None:
    """Every case above is one step beyond what is taken here."""
    assert judge(ORDER, LEASE, SPEC, SITUATION, P) is None


def test_a_free_offer_still_needs_a_price_because_a_seat_does() -> None:
    assert code({}, {"price": 0}, {}, {}, {"ask_price": 0}) == "price_too_low"
    assert code({}, {"price": 1}, {}, {}, {"ask_price": 0}) == ""


def test_a_price_is_rounded_up_in_favour_of_the_worker() -> None:
    assert code({}, {"work_ms": 1, "price": 1}, {"stages": (Stage("map", "m:f", b"{}", 1),)}, {}, {}) == ""
    spec = {"stages": (Stage("map", "m:f", b"{}", 1001),)}
    assert code({}, {"work_ms": 1001, "price": 1001}, spec, {}, {}) == ""
    assert code({}, {"work_ms": 1001, "price": 1001}, spec, {}, {"ask_price": 1001}) == "price_too_low"  # 1002.001


WORTH = LEASE.positions * LEASE.price


@pytest.mark.parametrize(
    ("has", "room", "why"),
    [
        (Newcomer(), WORTH, ""),
        (Newcomer(), WORTH - 1, "newcomer_full"),
        (Newcomer(unpaid=1), WORTH, "newcomer_full"),
        (Newcomer(seats=2), WORTH, ""),
        (Newcomer(seats=3), WORTH, "newcomer_full"),
    ],
)
def test_without_a_slot_three_seats_worth_a_hundredth_of_one_are_taken_where_the_order_allows(
    has: Newcomer, room: int, why: str
) -> None:
    parameters = msgspec.structs.replace(P, slot_wei=room * 100)
    situation = msgspec.structs.replace(SITUATION, slots=0, free_stake=0, newcomer=has)
    allowed = msgspec.structs.replace(ORDER, newcomers=True)
    refusal = judge(allowed, LEASE, SPEC, situation, parameters)
    assert (refusal.code if refusal else "") == why
    refusal = judge(ORDER, LEASE, SPEC, situation, parameters)
    assert refusal is not None
    assert refusal.code == "unstaked", "the payer did not allow it"


def test_an_owner_who_allows_the_base_set_only_refuses_packages_alone() -> None:
    packages = {"shared": (Input("wheel/00/10/plot-1.0-py3-none-any.whl", A),)}
    assert code({}, {}, packages, {"base_only": True}, {}) == "base_only"
    assert code({}, {}, packages, {}, {}) == ""
    assert code({}, {}, {"shared": (Input("kwargs", A),)}, {"base_only": True}, {}) == ""
