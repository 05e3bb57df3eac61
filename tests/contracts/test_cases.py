"""What Claims and Accusations may do with a seat: hold it, pay a claim, spend its bond, forfeit it, take its lock."""

from __future__ import annotations

import msgspec
import pytest

from fakes.contract_world import Reverted
from fakes.quarrel import BOND, CLAIM_TALLY, POSITIONS, PRICE, Caller, Quarrel, net, refused
from tallymesh_ledger.chain.contract import Refusal

CHAIN = b"\x0d" * 32


# ---- the bond


def test_a_seat_takes_its_cap_and_the_claim_bond_from_the_free_wages() -> None:
    scene = Quarrel()
    assert scene.seat()["bond"] == BOND
    assert scene.held()["free"] == scene.job.order.wages - POSITIONS * PRICE - BOND
    assert scene.held()["free"] == 0


def test_wages_that_cover_the_cap_but_not_the_bond_seat_nobody() -> None:
    scene = Quarrel(seated=False)
    scene.job.order = msgspec.structs.replace(scene.job.order, wages=scene.job.order.wages - 1)
    scene.renew()
    opened = scene.call("open", scene.job.order, [scene.job.seating(0)], by=scene.job.payer)
    assert refused(opened) == [Refusal.OVER_BUDGET]


def test_the_bond_counts_for_what_the_signer_may_seat_alone() -> None:
    scene = Quarrel(seated=False)
    scene.job.order = msgspec.structs.replace(scene.job.order, signer_seat_max=POSITIONS * PRICE + BOND - 1)
    scene.renew()
    scene.call("open", scene.job.order, [], by=scene.job.payer)
    seating = [scene.job.seating(0, by_signer=True)]
    assert refused(scene.call("seat", scene.job.order, seating, by=scene.stranger)) == [Refusal.NEEDS_PAYER]


@pytest.mark.parametrize("by_signer", [False, True])
def test_the_bond_comes_back_with_the_seats_close(by_signer: bool) -> None:
    scene = Quarrel(by_signer=by_signer)
    assert scene.held()["signerSeated"] == (POSITIONS * PRICE + BOND if by_signer else 0)
    scene.settle(40)
    closed = scene.close(40)
    assert closed.of("SeatClosed")[0]["returned"] == 60 * PRICE + BOND
    assert scene.held()["free"] == 60 * PRICE + BOND
    assert scene.held()["signerSeated"] == (40 * PRICE if by_signer else 0)
    assert scene.seat()["bond"] == 0


# ---- who may call


@pytest.mark.parametrize("function", ["hold", "letGo", "payClaim", "takeBond", "forfeit", "slash"])
@pytest.mark.parametrize("role", ["payer", "signer", "worker", "stranger", "court"])
def test_a_case_is_called_by_claims_and_accusations_alone(function: str, role: str) -> None:
    scene = Quarrel()
    scene.hold()
    job = scene.job
    callers = {
        "payer": job.payer, "signer": job.signer, "worker": scene.worker, "stranger": scene.stranger,
        "court": Caller(scene.court), "registry": Caller(scene.world.contracts["Registry"]),
    }  # fmt: skip
    arguments = {
        "hold": (job.order, scene.lease),
        "letGo": (scene.lease,),
        "payClaim": (scene.lease, CLAIM_TALLY, 5, CHAIN),
        "takeBond": (scene.lease, [scene.stranger.address], [1]),
        "forfeit": (scene.lease,),
        "slash": (scene.lease, 1, job.payer.address, scene.stranger.address, True),
    }
    with pytest.raises(Reverted, match="not_claims"):
        scene.call(function, *arguments[function], by=callers[role])
    for trusted in (scene.claims, scene.accusations):
        scene.call(function, *arguments[function], by=trusted)
        if function == "letGo":
            scene.hold()


def test_credit_is_spent_by_registry_alone() -> None:
    scene = Quarrel()
    scene.settle(10)
    for caller in (scene.worker, scene.stranger, scene.claims):
        with pytest.raises(Reverted, match="not_registry"):
            scene.call("spend", scene.worker.address, 1, scene.stranger.address, 0, by=caller)


# ---- hold and letGo


def test_only_the_jobs_own_seat_is_held() -> None:
    scene = Quarrel(workers=2)
    job = scene.job
    stranger = msgspec.structs.replace(job.order, salt=b"\x55" * 32)
    with pytest.raises(Reverted, match="no_such_job"):
        scene.call("hold", stranger, scene.lease, by=scene.claims)
    scene.call("openWithPermit", stranger, [], (0, 0, 0, bytes(32), bytes(32)), by=job.payer)
    with pytest.raises(Reverted, match="not_of_job"):
        scene.call("hold", stranger, scene.lease, by=scene.claims)
    never = msgspec.structs.replace(scene.lease, nonce=99)
    with pytest.raises(Reverted, match="not_held"):
        scene.call("hold", job.order, never, by=scene.claims)


def test_at_most_255_cases_a_seat() -> None:
    scene = Quarrel()
    for n in range(1, 256):
        assert scene.hold(by=scene.accusations).of("Held")[0]["cases"] == n
    with pytest.raises(Reverted, match="too_many_cases"):
        scene.hold()
    assert scene.let_go(by=scene.accusations).of("LetGo")[0]["cases"] == 254
    scene.hold()


@pytest.mark.parametrize("function", ["letGo", "takeBond", "forfeit", "slash"])
def test_without_a_case_nothing_of_it_happens(function: str) -> None:
    scene = Quarrel()
    payer, prover = scene.job.payer.address, scene.stranger.address
    more = {"takeBond": ([prover], [1]), "slash": (1, payer, prover, True)}.get(function, ())
    with pytest.raises(Reverted, match="not_held"):
        scene.call(function, scene.lease, *more, by=scene.claims)


def test_a_seat_under_a_claim_still_pays_and_neither_closes_expires_nor_unlocks() -> None:
    scene = Quarrel()
    scene.hold()
    assert scene.settle(30).value == 1
    assert refused(scene.close(30)) == [Refusal.DISPUTED]
    scene.after_claim_window()
    assert refused(scene.expire()) == [Refusal.DISPUTED]
    assert scene.settle(POSITIONS).value == 1
    assert scene.seat()["state"] == 1, "paid in full, and open while the case lives"
    closed = scene.let_go()
    assert [event["returned"] for event in closed.of("SeatClosed")] == [BOND]
    scene.hold()  # within the lock's tail
    scene.world.wait(scene.world.parameters.lock_tail_s)
    assert refused(scene.unlock()) == [Refusal.DISPUTED]
    with pytest.raises(Reverted, match="not_held"):
        scene.hold()  # another one though the tail is over: so it could go on for ever
    scene.let_go()
    assert scene.unlock().value == 1
    with pytest.raises(Reverted, match="not_held"):
        scene.hold()


def test_an_accused_seat_pays_closes_and_expires_as_usual_and_keeps_only_its_lock() -> None:
    scene = Quarrel()
    scene.hold(by=scene.accusations)
    assert scene.settle(30).value == 1
    assert scene.close(30).of("SeatClosed")[0]["returned"] == (POSITIONS - 30) * PRICE + BOND
    scene = Quarrel()
    scene.hold(by=scene.accusations)
    scene.after_claim_window()
    assert scene.expire().of("SeatClosed")[0]["returned"] == POSITIONS * PRICE + BOND
    scene.world.wait(scene.world.parameters.lock_tail_s)
    assert refused(scene.unlock()) == [Refusal.DISPUTED]
    with pytest.raises(Reverted, match="not_held"):
        scene.hold(by=scene.accusations)
    scene.let_go(by=scene.accusations)
    assert scene.unlock().value == 1


def test_a_closed_seat_is_held_until_its_lock_may_end() -> None:
    scene = Quarrel()
    scene.close(0)
    scene.world.wait(scene.world.parameters.lock_tail_s - 1)
    scene.hold()
    scene.let_go()
    scene.world.wait(1)
    with pytest.raises(Reverted, match="not_held"):
        scene.hold()


def test_a_seat_that_outlived_its_window_under_a_case_expires_when_it_is_let_go() -> None:
    scene = Quarrel()
    scene.hold()
    scene.after_claim_window()
    scene.let_go()
    assert scene.expire().value == 1
    assert scene.held()["free"] == POSITIONS * PRICE + BOND


# ---- payClaim


def test_a_claim_is_paid_like_an_accept_up_to_the_cap_and_once() -> None:
    scene = Quarrel()
    scene.settle(10)
    scene.hold()
    paid = scene.call("payClaim", scene.lease, CLAIM_TALLY, 30, CHAIN, by=scene.claims)
    assert paid.value == 20 * PRICE
    (event,) = paid.of("Settled")
    assert (event["units"], event["amount"], event["chain"], event["tally"]) == (30, 20 * PRICE, CHAIN, CLAIM_TALLY)
    assert scene.credit(scene.worker.address) == net(30 * PRICE)
    assert scene.call("payClaim", scene.lease, CLAIM_TALLY, 30, CHAIN, by=scene.claims).value == 0
    assert scene.call("payClaim", scene.lease, CLAIM_TALLY, 2**40 - 1, CHAIN, by=scene.claims).value == 70 * PRICE
    assert scene.credit(scene.worker.address) == net(POSITIONS * PRICE)
    scene.let_go()
    assert scene.seat()["state"] == 2
    assert scene.call("payClaim", scene.lease, CLAIM_TALLY, 2**40 - 1, CHAIN, by=scene.claims).value == 0, "closed"


# ---- takeBond


def test_the_bond_is_spent_in_order_and_never_beyond_itself() -> None:
    scene = Quarrel()
    scene.hold()
    a, b, c = (scene.world.account().address for _ in range(3))
    taken = scene.call("takeBond", scene.lease, [a, b], [BOND - 5, 3], by=scene.claims)
    assert taken.value == BOND - 2
    taken = scene.call("takeBond", scene.lease, [b, c], [10, 10], by=scene.claims)
    assert taken.value == 2
    assert [scene.credit(each) for each in (a, b, c)] == [BOND - 5, 5, 0]
    assert scene.seat()["bond"] == 0
    with pytest.raises(Reverted, match="bad_list"):
        scene.call("takeBond", scene.lease, [a], [], by=scene.claims)
    scene.let_go()
    assert scene.close(0).of("SeatClosed")[0]["returned"] == POSITIONS * PRICE


# ---- forfeit


@pytest.mark.parametrize("by_signer", [False, True])
def test_a_forfeited_seat_pays_no_more_and_its_bond_waits_for_the_claim(by_signer: bool) -> None:
    scene = Quarrel(by_signer=by_signer)
    scene.settle(10)
    scene.hold(by=scene.accusations)
    scene.hold()
    scene.hold(by=scene.accusations)
    assert scene.forfeit().of("SeatClosed")[0]["returned"] == 90 * PRICE
    assert scene.forfeit().events == (), "twice"
    assert refused(scene.settle(50)) == [Refusal.NOT_OPEN]
    taken = scene.call("takeBond", scene.lease, [scene.stranger.address], [2], by=scene.claims)
    assert taken.value == 2, "auditors of the other case are paid all the same"
    assert scene.let_go(by=scene.accusations).of("BondReturned") == []
    assert scene.let_go().of("BondReturned")[0]["amount"] == BOND - 2
    assert scene.held()["free"] == 90 * PRICE + BOND - 2
    assert scene.held()["signerSeated"] == (10 * PRICE + 2 if by_signer else 0)
    assert scene.held()["openSeats"] == 0


# ---- slash


def test_slashed_stake_is_shared_and_the_rest_burned() -> None:
    scene = Quarrel()
    scene.hold()
    supply = scene.world.read("Token", "totalSupply")
    amount = scene.lease.lock - 1
    done = scene.slash(amount)
    assert done.value == amount
    payer, prover, court = amount * 40 // 100, amount * 20 // 100, amount * 15 // 100
    assert scene.credit(scene.job.payer.address) == payer
    assert scene.credit(scene.stranger.address) == prover
    assert scene.credit(scene.court) == court
    burned = amount - payer - prover - court
    assert scene.world.read("Token", "totalSupply") == supply - burned
    (event,) = done.of("Slashed")
    assert (event["toPayer"], event["toProver"], event["toCourt"], event["burned"]) == (payer, prover, court, burned)
    assert scene.lock_left() == 1
    assert scene.slash(2**96 - 1).value == 1, "no more than what is left"
    assert scene.slash(2**96 - 1).value == 0
    assert scene.lock_left() == 0


def test_without_a_court_its_share_is_burned() -> None:
    scene = Quarrel()
    scene.hold()
    supply = scene.world.read("Token", "totalSupply")
    scene.slash(1000, to_court=False)
    assert scene.credit(scene.court) == 0
    assert scene.world.read("Token", "totalSupply") == supply - 400


def test_a_lock_is_slashed_on_a_closed_seat_too_and_what_is_left_is_unlocked() -> None:
    scene = Quarrel()
    scene.close(0)
    scene.hold()
    scene.slash(scene.lease.lock // 4)
    scene.let_go()
    scene.world.wait(scene.world.parameters.lock_tail_s)
    left = scene.lease.lock - scene.lease.lock // 4
    assert scene.unlock().of("LockEnded")[0]["lock"] == left
    assert scene.stake(scene.worker.address)[1] == 0
    assert scene.lock_left() == 0


def test_slashing_one_seat_leaves_the_locks_of_the_others() -> None:
    scene = Quarrel(seated=False)
    job = scene.job
    job.order = msgspec.structs.replace(job.order, wages=2 * job.order.wages, signer_seat_max=2 * job.order.wages)
    scene.renew()
    job.leases.append(msgspec.structs.replace(scene.lease, nonce=5))
    job.workers.append(scene.worker)
    scene.renew()
    scene.call("open", job.order, [job.seating(0), job.seating(1)], by=job.payer)
    scene.hold()
    scene.slash(2**96 - 1)
    assert scene.lock_left(1) == job.leases[1].lock
    assert scene.stake(scene.worker.address)[1] == job.leases[1].lock
