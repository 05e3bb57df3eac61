"""Attacks by name, of those that the escrow, the registry and the rewards must withstand alone."""

from __future__ import annotations

import msgspec
import pytest

from fakes.contract_world import NOBODY, Reverted
from fakes.quarrel import BOND, MAX, POSITIONS, PRICE, Quarrel, net, refused
from tallymesh.messages import Accept, Release
from tallymesh_ledger.chain.contract import Refusal
from tallymesh_ledger.jobs import seat_id


def test_settle_to_a_sybil_moves_no_more_than_a_seat_that_the_payer_opened() -> None:
    """A signer in league with a worker pays it for nothing: at most what that seat holds, and no other seat loses."""
    scene = Quarrel(workers=2)
    scene.settle(MAX % 2**40, 0)
    assert scene.credit(scene.job.workers[0].address) == net(POSITIONS * PRICE)
    assert scene.settle(POSITIONS, 1).value == 1
    assert scene.credit(scene.job.workers[1].address) == net(POSITIONS * PRICE)


def test_an_empty_settle_and_empty_batches_do_nothing() -> None:
    scene = Quarrel()
    before = scene.held(), scene.seat()
    for function, arguments in (
        ("settle", ([],)), ("close", ([],)), ("unlock", ([],)), ("expire", (scene.job.order, [])),
        ("payAudits", (scene.lease, [])), ("seat", (scene.job.order, [])),
    ):  # fmt: skip
        assert scene.call(function, *arguments, by=scene.stranger).events == ()
    blank = Accept(seat=scene.job.seats[0], tally=0, units=0, chain=bytes(32), next_secret=bytes(32))
    settled = scene.call("settle", [(scene.lease, blank, NOBODY)], by=scene.job.signer)
    assert refused(settled) == [Refusal.NOTHING_NEW]
    assert (scene.held(), scene.seat()) == before


def test_an_over_leased_budget_seats_what_it_covers_bonds_included() -> None:
    scene = Quarrel(workers=3, spare=-BOND, seated=False)
    opened = scene.call("open", scene.job.order, [scene.job.seating(i) for i in range(3)], by=scene.job.payer)
    assert len(opened.of("SeatOpened")) == 2
    assert refused(opened) == [Refusal.OVER_BUDGET]
    for i in range(2):
        assert scene.settle(POSITIONS, i).value == 1


def test_a_release_before_the_pay_closes_nothing_and_costs_the_worker_nothing() -> None:
    scene = Quarrel()
    assert refused(scene.close(10)) == [Refusal.NOT_PAID_YET]
    scene.settle(10)
    assert scene.close(10).value == 1


def test_500_leases_on_one_stake_lock_no_more_than_it_has() -> None:
    scene = Quarrel(seated=False, spare=500 * (PRICE + BOND))
    job = scene.job
    scene.world.call("Token", "transfer", job.payer.address, 600 * (PRICE + BOND), by=scene.world.bank)
    scene.call("open", job.order, [], by=job.payer)
    lock, first = scene.world.parameters.slot_wei // 7, job.leases[0]
    job.leases = [msgspec.structs.replace(first, nonce=n, positions=1, lock=lock) for n in range(500)]
    job.seats = [seat_id(scene.world.domains, lease) for lease in job.leases]
    job.workers = [scene.worker] * 500
    taken = 0
    for start in range(0, 500, 50):
        taken += scene.call("seat", job.order, [job.seating(i) for i in range(start, start + 50)], by=job.payer).value
    assert taken == 7
    assert scene.stake(scene.worker.address)[1] == 7 * lock


def test_an_invented_class_draws_nobody_before_its_day() -> None:
    scene = Quarrel()
    scene.registry("setClass", b"\x66" * 32, by=scene.worker)
    block = scene.world.engine._block  # type: ignore[attr-defined]
    scene.world.wait(scene.world.parameters.class_delay_s - 1)
    assert scene.world.read("Registry", "drawn", 0, block)[2] == bytes(32)
    scene.world.wait(1)
    assert scene.world.read("Registry", "drawn", 0, block)[2] == b"\x66" * 32


def test_a_driver_that_drains_seats_stops_at_what_the_order_gave_its_key_bonds_included() -> None:
    """A stolen signer key: seats to accomplices, accepts everything, loses every claim on purpose."""
    scene = Quarrel(workers=3, seated=False)
    job = scene.job
    one = POSITIONS * PRICE + BOND
    job.order = msgspec.structs.replace(job.order, signer_seat_max=2 * one - 1)
    scene.renew()
    scene.call("open", job.order, [], by=job.payer)
    done = scene.call("seat", job.order, [job.seating(i, by_signer=True) for i in range(3)], by=scene.stranger)
    assert refused(done) == [Refusal.NEEDS_PAYER] * 2
    scene.hold()
    scene.settle(POSITIONS)
    scene.call("takeBond", scene.lease, [scene.stranger.address], [BOND], by=scene.claims)
    scene.let_go()
    assert scene.held()["signerSeated"] == one, "what was spent stays spent"
    assert scene.held()["free"] == 2 * one, "the rest is the payer's"


def test_unbond_and_run_leaves_the_lock_behind() -> None:
    scene = Quarrel()
    worker, slot = scene.worker, scene.world.parameters.slot_wei
    scene.registry("releaseSlots", worker.address, [0], by=worker)
    scene.world.wait(scene.world.parameters.unbonding_s)
    assert scene.registry("withdraw", worker.address, by=worker).value == slot - scene.lease.lock
    scene.hold()
    assert scene.slash(MAX).value == scene.lease.lock
    assert scene.balance("Registry") == 0


def test_a_debt_cannot_be_left_by_buying_or_by_a_new_owner() -> None:
    scene = Quarrel()
    scene.hold()
    scene.slash(MAX)
    worker = scene.worker
    scene.world.call("Token", "transfer", worker.address, scene.world.parameters.slot_wei, by=scene.world.bank)
    scene.registry("buySlots", worker.address, 1, by=worker)
    scene.registry("proposeOwner", worker.address, scene.stranger.address, by=worker)
    scene.registry("acceptOwner", worker.address, by=scene.stranger)
    for by in (worker, scene.stranger):
        with pytest.raises(Reverted, match="short"):
            scene.registry("releaseSlots", worker.address, [1], by=by)


def test_a_shield_of_cases_does_not_stop_a_slash_nor_the_pay() -> None:
    """Accusations by the worker's own sybils: the proof of its fraud needs none of them to end first."""
    scene = Quarrel()
    for _ in range(8):
        scene.hold(by=scene.accusations)
    assert scene.slash(MAX).value == scene.lease.lock
    assert scene.settle(10).value == 1
    scene.forfeit()
    assert refused(scene.settle(20)) == [Refusal.NOT_OPEN]


def test_a_release_for_another_number_is_another_word() -> None:
    scene = Quarrel()
    lease, release, signature = scene.job.closing(0, 50)
    forged = Release(seat=release.seat, units=0)
    assert refused(scene.call("close", [(lease, forged, signature)], by=scene.job.payer)) == [Refusal.BAD_SIGNATURE]
