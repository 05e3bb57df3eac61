"""Slashed stake: where Registry takes it from, what the account owes then, and how the debt is paid."""

from __future__ import annotations

import msgspec
import pytest

from fakes.contract_world import Reverted
from fakes.quarrel import Caller, Quarrel, refused
from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh_ledger.chain.contract import Refusal

SLOT = 1000 * WEI_PER_TOKEN
NOBODY = bytes(20)


def slashed(amount: int, *, slots: int = 3, lock: int = 2 * SLOT, release: tuple[int, ...] = ()) -> Quarrel:
    """A worker with these slots, one seat with this lock, slots released then, and the lock slashed by `amount`."""
    scene = Quarrel(seated=False)
    worker = scene.worker
    scene.world.call("Token", "transfer", worker.address, slots * SLOT, by=scene.world.bank)
    if slots > 1:
        scene.registry("buySlots", worker.address, slots - 1, by=worker)
    scene.renew(lock=lock)
    scene.call("open", scene.job.order, [scene.job.seating(0)], by=scene.job.payer)
    assert scene.seat()["state"] == 1
    if release:
        scene.registry("releaseSlots", worker.address, list(release), by=worker)
    scene.hold()
    assert scene.slash(amount).value == amount
    assert scene.balance("Registry") == slots * SLOT - amount
    free, locked, unbonding = scene.stake(worker.address)
    assert free + locked + unbonding == slots * SLOT - amount
    assert locked == lock - amount
    return scene


def debt(scene: Quarrel) -> int:
    return int(scene.world.read("Registry", "debtOf", scene.worker.address))


def settle_debt(scene: Quarrel, slots: list[int], *, by: object = None) -> None:
    done = scene.registry("settleDebt", scene.worker.address, slots, by=by or scene.stranger)
    assert done.of("DebtChanged")[-1]["debt"] == debt(scene)


def test_what_was_taken_from_live_slots_is_owed() -> None:
    scene = slashed(SLOT // 3)
    assert debt(scene) == SLOT // 3
    assert scene.world.read("Registry", "liveSlots", scene.worker.address) == 3


def test_an_account_that_owes_gets_no_new_lease() -> None:
    scene = slashed(1)
    job = scene.job
    scene.world.call("Token", "transfer", job.payer.address, job.order.wages, by=scene.world.bank)
    job.order = msgspec.structs.replace(job.order, salt=b"\x77" * 32, newcomers=True)
    scene.renew(lock=0)
    job.order = msgspec.structs.replace(job.order, lock_per_seat=0)
    scene.renew()
    assert refused(scene.call("open", job.order, [job.seating(0)], by=job.payer)) == [Refusal.NO_STAKE]
    settle_debt(scene, [0])
    assert scene.call("seat", job.order, [job.seating(0)], by=job.payer).value == 1


def test_an_account_that_owes_is_drawn_for_nothing() -> None:
    scene = slashed(1)
    block = scene.world.engine._block  # type: ignore[attr-defined]
    account = scene.worker.address
    assert scene.world.read("Registry", "drawn", 0, block)[0] == NOBODY
    page = scene.world.read("Registry", "slotsFrom", 0, 10)
    assert [each["short"] for each in page] == [True] * 3
    settle_debt(scene, [1])
    assert scene.world.read("Registry", "drawn", 0, block)[0] == account
    assert scene.world.read("Registry", "drawn", 1, block)[0] == NOBODY, "released"
    assert scene.world.read("Registry", "drawn", 0, 0)[0] == NOBODY, "not bought yet"


def test_a_debt_is_paid_by_releasing_slots_and_the_rest_of_the_last_is_a_deposit() -> None:
    scene = slashed(SLOT + SLOT // 3)
    settle_debt(scene, [2, 0])
    assert debt(scene) == 0
    account = scene.worker.address
    assert scene.world.read("Registry", "liveSlots", account) == 1
    assert scene.world.read("Registry", "depositOf", account) == 2 * SLOT - SLOT - SLOT // 3
    free, locked, unbonding = scene.stake(account)
    assert free + locked + unbonding == scene.balance("Registry") == 3 * SLOT - SLOT - SLOT // 3
    assert unbonding == 0, "nothing of it unbonds"


def test_a_debt_is_paid_in_parts_by_anyone() -> None:
    scene = slashed(2 * SLOT)
    settle_debt(scene, [1], by=scene.job.payer)
    assert debt(scene) == SLOT
    settle_debt(scene, [0])
    assert debt(scene) == 0
    assert scene.world.read("Registry", "depositOf", scene.worker.address) == 0


@pytest.mark.parametrize(
    ("slots", "why"),
    [([], "no_slots"), ([0, 0], "not_short"), ([0, 1], "not_short"), ([3], "not_your_slot"), ([99], "not_your_slot")],
)
def test_no_more_slots_than_the_debt_needs_and_none_of_others(slots: list[int], why: str) -> None:
    scene = slashed(SLOT // 2)
    other = scene.world.funded(SLOT)
    scene.registry("buySlots", other.address, 1, by=other)
    with pytest.raises(Reverted, match=why):
        scene.registry("settleDebt", scene.worker.address, slots, by=scene.stranger)


def test_a_released_slot_pays_no_debt_twice() -> None:
    scene = slashed(2 * SLOT)
    with pytest.raises(Reverted, match="slot_already_released"):
        scene.registry("settleDebt", scene.worker.address, [0, 0], by=scene.stranger)


def test_an_honest_account_is_not_touched_by_settle_debt() -> None:
    scene = Quarrel()
    with pytest.raises(Reverted, match="not_short"):
        scene.registry("settleDebt", scene.worker.address, [0], by=scene.stranger)


def test_who_owes_releases_nothing() -> None:
    scene = slashed(1)
    with pytest.raises(Reverted, match="short"):
        scene.registry("releaseSlots", scene.worker.address, [0], by=scene.worker)


def test_unbonding_does_not_run_from_a_slash() -> None:
    """Unbond and run: all slots were released before the fraud was proven."""
    scene = slashed(2 * SLOT, slots=2, release=(0, 1))
    assert debt(scene) == 0, "no live slot: it came out of what unbonds"
    assert scene.stake(scene.worker.address) == (0, 0, 0)
    scene.world.wait(scene.world.parameters.unbonding_s)
    with pytest.raises(Reverted, match="nothing_to_withdraw"):
        scene.registry("withdraw", scene.worker.address, by=scene.worker)


def test_live_slots_pay_before_what_unbonds() -> None:
    scene = slashed(SLOT + 7, slots=2, lock=SLOT + 10, release=(0,))
    assert debt(scene) == SLOT, "the live slot is gone whole"
    assert scene.stake(scene.worker.address) == (0, 3, SLOT - 10)
    settle_debt(scene, [1])
    assert scene.world.read("Registry", "liveSlots", scene.worker.address) == 0
    scene.let_go()
    scene.close(0)
    scene.world.wait(scene.world.parameters.unbonding_s)
    scene.unlock()
    paid = scene.registry("withdraw", scene.worker.address, by=scene.stranger)
    assert paid.value == SLOT - 7
    assert scene.balance("Registry") == 0


def test_slashed_unbonding_stake_is_the_oldest() -> None:
    scene = slashed(5, slots=2, lock=2 * SLOT - 1, release=(0, 1))
    scene.let_go()
    scene.close(0)
    scene.world.wait(scene.world.parameters.unbonding_s)
    scene.unlock()
    assert scene.registry("withdraw", scene.worker.address, by=scene.stranger).value == 2 * SLOT - 5
    with pytest.raises(Reverted, match="nothing_to_withdraw"):
        scene.registry("withdraw", scene.worker.address, by=scene.stranger)


def test_only_the_escrow_moves_locks_deposits_and_newcomers() -> None:
    scene = Quarrel()
    account = scene.worker.address
    calls = {"tryLock": (1,), "admit": (1, 1), "relieve": (0, False), "unlock": (0,), "deposit": (1,), "slash": (1,)}
    for function, more in calls.items():
        for caller in (scene.worker, scene.claims, Caller(scene.court)):
            with pytest.raises(Reverted, match="not_escrow"):
                scene.registry(function, account, *more, by=caller)
