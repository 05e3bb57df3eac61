"""What transactions cost on a chain, call data and all, each near its record (`scripts/contracts gas` prints them)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.contract_world import Exact, Job, World, gas_report

pytestmark = pytest.mark.slow
RECEIPTS = 256
WORKERS = 4

# What was measured when it was last recorded. Five percent more fails, and so does five percent less: record it then.
RECORDED: dict[str, int] = json.loads((Path(__file__).parent / "gas.json").read_text())


@pytest.fixture(scope="module")
def report() -> dict[str, int]:
    return gas_report(World(Exact()), workers=WORKERS, positions=RECEIPTS // WORKERS)


@pytest.mark.parametrize("what", RECORDED)
def test_gas_stays_within_five_percent_of_its_record(report: dict[str, int], what: str) -> None:
    assert report[what] * 100 <= RECORDED[what] * 105, f"{what} costs {report[what]}"
    assert report[what] * 100 >= RECORDED[what] * 95, f"{what} costs only {report[what]}: record it in gas.json"


def test_every_measured_transaction_is_recorded(report: dict[str, int]) -> None:
    assert set(report) == set(RECORDED)


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
