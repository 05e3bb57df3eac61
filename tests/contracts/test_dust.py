"""One wei that does not cover its own fee waits for the next one, and spoils nobody's batch."""

from __future__ import annotations

from fakes.contract_world import Job, World

UNITS = 101  # at 2 % the two halves of the fee on 100 wei are one wei each; on 99 there is none


def test_a_wei_that_does_not_cover_its_fee_is_left_out_and_the_rest_of_the_batch_is_paid() -> None:
    world = World()
    job = Job(world, workers=2, positions=UNITS, price=1)
    world.call("JobEscrow", "open", job.order, [job.seating(0), job.seating(1)], by=job.payer)
    world.call("JobEscrow", "settle", [job.settlement(0, 99)], by=job.payer)
    done = world.call("JobEscrow", "settle", [job.settlement(0, 100), job.settlement(1, 5)], by=job.payer)
    assert [event["why"] for event in done.of("Refused")] == [15], "NothingNew"
    assert [event["amount"] for event in done.of("Settled")] == [5]
    done = world.call("JobEscrow", "settle", [job.settlement(0, 101)], by=job.payer)
    assert [(event["amount"], event["fee"]) for event in done.of("Settled")] == [(2, 2)]
