"""What transactions cost on a chain, call data and all, each under a ceiling (`scripts/contracts gas` prints them)."""

from __future__ import annotations

import pytest

from fakes.contract_world import Exact, Job, World, gas_report

RECEIPTS = 256
WORKERS = 4

# A few percent above what was measured: a change that costs more has to say so here.
CEILINGS = {
    "open, 4 seats, by approval": 290_000,
    "finish, 4 workers, all units paid": 157_000,
    "finish, 4 workers, released early": 195_000,
    "finish, 4 workers, 16 audits": 572_000,
    "per audit": 23_600,
    "settle, one Accept for any number of units": 60_000,
    "buySlots, one": 73_000,
    "withdraw": 69_000,
    "unlock, 4 seats": 100_000,
    "expire, one": 54_000,
}


@pytest.fixture(scope="module")
def report() -> dict[str, int]:
    return gas_report(World(Exact()), workers=WORKERS, positions=RECEIPTS // WORKERS)


@pytest.mark.parametrize("what", CEILINGS)
def test_gas_stays_under_its_ceiling(report: dict[str, int], what: str) -> None:
    assert report[what] <= CEILINGS[what]
    assert report[what] >= CEILINGS[what] * 9 // 10, f"{what} costs {report[what]}: lower its ceiling"


def test_every_measured_transaction_has_a_ceiling(report: dict[str, int]) -> None:
    assert set(report) == set(CEILINGS)


def test_a_receipt_costs_at_most_2000_gas_in_a_job_of_256(report: dict[str, int]) -> None:
    whole = report["open, 4 seats, by approval"] + report["finish, 4 workers, all units paid"]
    assert whole / RECEIPTS <= 2000


def test_an_accept_costs_the_same_for_ten_units_and_for_a_thousand() -> None:
    world = World(Exact())
    job = Job(world, workers=1, positions=2000)
    world.call("JobEscrow", "open", job.order, [job.seating(0)], by=job.payer)
    world.call("JobEscrow", "settle", [job.settlement(0, 1)], by=job.payer)
    few = world.call("JobEscrow", "settle", [job.settlement(0, 11)], by=job.payer).gas
    many = world.call("JobEscrow", "settle", [job.settlement(0, 1011)], by=job.payer).gas
    assert abs(many - few) < 100  # a byte more of call data
