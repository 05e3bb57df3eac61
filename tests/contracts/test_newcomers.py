"""Probation: an account with neither stake nor gas nor tokens earns its first slot, and is paid out by a carrier."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator

import msgspec
import pytest

from fakes.contract_world import Reverted
from fakes.quarrel import MAX, Quarrel, net, refused
from tallymesh.messages import RelayedBond, RelayedWithdraw
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain.contract import Refusal, compact
from tallymesh_ledger.jobs import seat_id

SLOT = 100_000
PRICE = 10
VALUE = SLOT // 100  # unpaid, of all seats of one newcomer
PARAMETERS = Parameters(slot_wei=SLOT)


class Lane(Quarrel):
    """A job that allows newcomers, and an account that nobody ever gave anything."""

    def __init__(self, *, newcomers: bool = True) -> None:
        super().__init__(seated=False, newcomers=newcomers, positions=30, price=PRICE, bond=0, parameters=PARAMETERS)
        self.newcomer = self.world.account()
        self.nonce = 0
        wages = 3 * SLOT
        self.world.call("Token", "transfer", self.job.payer.address, wages, by=self.world.bank)
        self.job.order = msgspec.structs.replace(self.job.order, lock_per_seat=0, wages=wages, signer_seat_max=wages)
        self.renew(lock=500)
        self.call("open", self.job.order, [], by=self.job.payer)

    def take(self, positions: int = 30, *, lock: int = 500) -> tuple[int, list[int]]:
        """A seat of the newcomer: (its index, why it was refused)."""
        self.nonce += 1
        job = self.job
        lease = msgspec.structs.replace(
            job.leases[0], worker=self.newcomer.address, positions=positions, lock=lock, nonce=self.nonce
        )
        job.leases.append(lease)
        job.seats.append(seat_id(self.world.domains, lease))
        job.workers.append(self.newcomer)
        i = len(job.leases) - 1
        return i, refused(self.call("seat", job.order, [job.seating(i, by_signer=True)], by=self.stranger))

    @property
    def deposit(self) -> int:
        return int(self.world.read("Registry", "depositOf", self.newcomer.address))

    @property
    def live(self) -> int:
        return int(self.world.read("Registry", "liveSlots", self.newcomer.address))

    @property
    def open(self) -> tuple[int, int]:
        seats, unpaid = self.world.read("Registry", "newcomerOf", self.newcomer.address)
        return seats, unpaid

    def earn(self, wei: int) -> None:
        """So much pay after the fee, seat by seat."""
        while self.deposit + self.live * SLOT + self.credit(self.newcomer.address) < wei:
            i, why = self.take(VALUE // PRICE)
            assert why == []
            assert self.settle(VALUE // PRICE, i).value == 1


def test_where_the_order_does_not_allow_newcomers_none_is_seated() -> None:
    assert Lane(newcomers=False).take()[1] == [Refusal.NO_STAKE]


def test_a_newcomer_is_seated_without_a_lock_and_its_pay_becomes_its_stake() -> None:
    lane = Lane()
    i, why = lane.take()
    assert why == []
    seat = lane.seat(i)
    assert (seat["newcomer"], seat["ownLock"]) == (True, True)
    assert lane.lock_left(i) == 0
    assert lane.open == (1, 300)
    lane.settle(10, i)
    assert lane.deposit == net(100)
    assert lane.credit(lane.newcomer.address) == 0
    assert lane.open == (1, 200)
    lane.close(10, i)
    assert lane.open == (0, 0)
    assert lane.stake(lane.newcomer.address) == (net(100), 0, 0)
    assert lane.balance("Registry") == SLOT + net(100)


def test_at_most_three_seats_and_a_hundredth_of_a_slot_unpaid() -> None:
    lane = Lane()
    assert [lane.take(30)[1] for _ in range(2)] == [[], []]
    assert lane.take(41)[1] == [Refusal.NO_STAKE], "one unit more than a hundredth of a slot in all"
    third, why = lane.take(39)
    assert why == []
    assert lane.take(1)[1] == [Refusal.NO_STAKE], "a fourth"
    lane.close(0, third)
    assert lane.take(40)[1] == []
    assert lane.open == (3, VALUE)


def test_what_a_newcomer_has_is_locked_as_far_as_it_goes() -> None:
    lane = Lane()
    i, _ = lane.take()
    lane.settle(30, i)
    assert lane.deposit == net(300)
    second, _ = lane.take(lock=200)
    assert lane.seat(second)["ownLock"] is False, "all of the lease's lock"
    third, _ = lane.take(lock=200)
    assert lane.lock_left(third) == net(300) - 200
    assert lane.stake(lane.newcomer.address) == (0, net(300), 0)
    lane.hold(third)
    assert lane.slash(MAX, i=third).value == net(300) - 200
    assert lane.deposit == 200
    lane.let_go(third)
    for each in (second, third):
        lane.close(0, each)
    lane.world.wait(lane.world.parameters.lock_tail_s)
    assert lane.unlock(second).of("LockEnded")[0]["lock"] == 200
    assert lane.unlock(third).of("LockEnded")[0]["lock"] == 0
    assert lane.stake(lane.newcomer.address) == (200, 0, 0)


def test_with_a_slot_earned_the_account_is_like_any_other() -> None:
    lane = Lane()
    lane.earn(SLOT)
    assert (lane.live, lane.deposit) == (1, sum(lane.stake(lane.newcomer.address)) - SLOT)
    slots = int(lane.world.read("Registry", "slotCount"))
    assert lane.world.read("Registry", "slotAt", slots - 1)["account"] == lane.newcomer.address
    i, why = lane.take()
    assert why == []
    assert lane.seat(i)["newcomer"] is False
    assert lane.lock_left(i) == 500
    lane.settle(10, i)
    assert lane.credit(lane.newcomer.address) == net(100)


def test_a_newcomers_seat_credits_once_its_account_has_a_slot() -> None:
    lane = Lane()
    i, _ = lane.take()
    lane.world.call("Token", "transfer", lane.stranger.address, SLOT, by=lane.world.bank)
    lane.world.call("Token", "approve", lane.world.contracts["Registry"], SLOT, by=lane.stranger)
    lane.registry("buySlots", lane.newcomer.address, 1, by=lane.stranger)
    lane.settle(10, i)
    assert lane.credit(lane.newcomer.address) == net(100)
    assert lane.deposit == 0
    lane.close(10, i)
    assert lane.open == (0, 0)


def test_a_deposit_unbonds_like_a_slot() -> None:
    lane = Lane()
    i, _ = lane.take()
    lane.settle(30, i)
    with pytest.raises(Reverted, match="not_owner"):
        lane.registry("releaseDeposit", lane.newcomer.address, by=lane.stranger)
    lane.registry("releaseDeposit", lane.newcomer.address, by=lane.newcomer)
    assert lane.stake(lane.newcomer.address) == (0, 0, net(300))
    with pytest.raises(Reverted, match="no_deposit"):
        lane.registry("releaseDeposit", lane.newcomer.address, by=lane.newcomer)
    with pytest.raises(Reverted, match="nothing_to_withdraw"):
        lane.registry("withdraw", lane.newcomer.address, by=lane.stranger)
    lane.world.wait(lane.world.parameters.unbonding_s)
    assert lane.registry("withdraw", lane.newcomer.address, by=lane.stranger).value == net(300)
    assert lane.tokens(lane.newcomer.address) == net(300)


# ---- carried by somebody else


def bond(lane: Lane, **fields: object) -> RelayedBond:
    fields = {"amount": 100, "fee": 5, "nonce": 0, "deadline": lane.world.now, **fields}
    return RelayedBond(account=lane.newcomer.address, **fields)  # type: ignore[arg-type]


def withdrawal(lane: Lane, **fields: object) -> RelayedWithdraw:
    fields = {"slots": 0, "deposit": False, "fee": 5, "nonce": 0, "deadline": lane.world.now, **fields}
    return RelayedWithdraw(account=lane.newcomer.address, **fields)  # type: ignore[arg-type]


@functools.cache
def enriched() -> Lane:
    """The newcomer has a slot, a deposit, and some credit: a hundred seats, so it happens once in a process."""
    lane = Lane()
    lane.earn(SLOT + 3 * VALUE)
    assert lane.live == 1
    assert lane.credit(lane.newcomer.address) > VALUE
    return lane


@pytest.fixture
def rich() -> Iterator[Lane]:
    """What a test does to it is taken back."""
    first = enriched()
    lane = copy.copy(first)
    lane.world, lane.job = copy.copy(first.world), copy.copy(first.job)
    lane.job.world = lane.world
    for name in ("leases", "seats", "workers"):
        setattr(lane.job, name, list(getattr(first.job, name)))
    with first.engine.undone():
        yield lane
    first.engine.at(first.world.now)


def test_from_nothing_to_a_slot_and_a_withdrawal_without_gas_or_tokens(rich: Lane) -> None:
    lane = rich
    key, carrier = lane.newcomer, lane.stranger
    assert lane.world.read("Token", "balanceOf", key.address) == 0
    credit, deposit = lane.credit(key.address), lane.deposit
    slot = int(lane.world.read("Registry", "slotCount")) - 1
    done = lane.withdraw_for(key, withdrawal(lane, slots=1, deposit=deposit > 0), [slot], by=carrier)
    assert done.value == credit - 5
    assert lane.tokens(key.address) == credit - 5
    assert lane.credit(carrier.address) == 5
    assert lane.credit(key.address) == 0
    lane.world.wait(lane.world.parameters.lock_tail_s + lane.world.parameters.unbonding_s)
    for i in range(1, len(lane.job.leases)):
        lane.unlock(i)
    assert lane.registry("withdraw", key.address, by=carrier).value == SLOT + deposit
    assert lane.stake(key.address) == (0, 0, 0)
    assert lane.tokens(key.address) == credit - 5 + SLOT + deposit


def test_credit_becomes_stake_and_each_whole_slot_of_it_one(rich: Lane) -> None:
    lane = rich
    credit, deposit = lane.credit(lane.newcomer.address), lane.deposit
    lane.bond_for(lane.newcomer, bond(lane, amount=100), by=lane.stranger)
    assert lane.deposit == deposit + 100
    assert lane.credit(lane.newcomer.address) == credit - 105
    lane.bond_for(lane.newcomer, bond(lane, amount=MAX, nonce=1), by=lane.stranger)
    assert lane.deposit == deposit + credit - 10
    assert lane.credit(lane.newcomer.address) == 0
    assert lane.credit(lane.stranger.address) == 10


def test_credit_pays_a_debt_first(rich: Lane) -> None:
    lane = rich
    deposit = lane.deposit
    i, _ = lane.take(lock=2_000)
    lane.hold(i)
    lane.slash(2_000, i=i)
    debt = int(lane.world.read("Registry", "debtOf", lane.newcomer.address))
    assert debt == 2_000 - deposit > 0
    lane.bond_for(lane.newcomer, bond(lane, amount=debt - 1), by=lane.stranger)
    assert lane.world.read("Registry", "debtOf", lane.newcomer.address) == 1
    lane.bond_for(lane.newcomer, bond(lane, amount=10, nonce=1), by=lane.stranger)
    assert lane.world.read("Registry", "debtOf", lane.newcomer.address) == 0
    assert lane.deposit == 9


@pytest.mark.parametrize("kind", ["bond", "withdraw"])
@pytest.mark.parametrize(
    ("fields", "why"),
    [({"deadline": 0}, "expired"), ({"nonce": 1}, "stale_nonce"), ({"fee": 10**9}, "too_little_credit")],
)
def test_a_request_counts_once_in_order_in_time_and_within_the_credit(
    rich: Lane, kind: str, fields: dict[str, int], why: str
) -> None:
    lane = rich
    function, request, more = "bondFor", bond(lane, **fields), ()
    if kind == "withdraw":
        function, request, more = "withdrawFor", withdrawal(lane, **fields), ([],)
    signature = compact(lane.newcomer.sign(lane.world.domains, request).signature)
    with pytest.raises(Reverted, match=why):
        lane.registry(function, request, *more, signature, by=lane.stranger)
    assert lane.world.read("Registry", "nonceOf", lane.newcomer.address) == 0


def test_a_request_is_used_up(rich: Lane) -> None:
    lane = rich
    request = bond(lane, amount=1)
    lane.bond_for(lane.newcomer, request, by=lane.stranger)
    with pytest.raises(Reverted, match="stale_nonce"):
        lane.bond_for(lane.newcomer, request, by=lane.stranger)
    with pytest.raises(Reverted, match="stale_nonce"):
        lane.withdraw_for(lane.newcomer, withdrawal(lane), [], by=lane.stranger)
    lane.withdraw_for(lane.newcomer, withdrawal(lane, nonce=1), [], by=lane.stranger)


def test_nobody_but_the_owner_signs_a_request(rich: Lane) -> None:
    lane = rich
    with pytest.raises(Reverted, match="not_signed"):
        lane.bond_for(lane.newcomer, bond(lane), by=lane.stranger, signer=lane.stranger)
    # the cold wallet that owns the account: the hot key can no longer spend its credit, not even as a fee
    owner = lane.world.account()
    lane.registry("proposeOwner", lane.newcomer.address, owner.address, by=lane.newcomer)
    lane.registry("acceptOwner", lane.newcomer.address, by=owner)
    with pytest.raises(Reverted, match="not_signed"):
        lane.withdraw_for(lane.newcomer, withdrawal(lane), [], by=lane.stranger)
    lane.withdraw_for(lane.newcomer, withdrawal(lane), [], by=lane.stranger, signer=owner)
    assert lane.tokens(owner.address) > 0


def test_the_owner_itself_needs_no_signature(rich: Lane) -> None:
    lane = rich
    nothing = (bytes(32), bytes(32))
    credit = lane.credit(lane.newcomer.address)
    lane.registry("bondFor", bond(lane, amount=7), nothing, by=lane.newcomer)
    lane.registry("withdrawFor", withdrawal(lane, nonce=1, fee=0), [], nothing, by=lane.newcomer)
    assert lane.tokens(lane.newcomer.address) == credit - 7, "its own fees came back to it"


def test_a_carrier_names_exactly_as_many_slots_as_were_signed_and_only_the_accounts(rich: Lane) -> None:
    lane = rich
    mine = int(lane.world.read("Registry", "slotCount")) - 1
    for slots, why in (([], "bad_count"), ([mine, mine], "bad_count"), ([0], "not_your_slot")):
        with pytest.raises(Reverted, match=why):
            lane.withdraw_for(lane.newcomer, withdrawal(lane, slots=1), slots, by=lane.stranger)
    with pytest.raises(Reverted, match="slot_already_released"):
        lane.withdraw_for(lane.newcomer, withdrawal(lane, slots=2), [mine, mine], by=lane.stranger)


def test_a_request_for_another_chain_or_contract_does_not_count(rich: Lane) -> None:
    lane = rich
    request = bond(lane)
    domains = msgspec.structs.replace(lane.world.domains, registry=lane.world.domains.escrow)
    signature = compact(lane.newcomer.sign(domains, request).signature)
    with pytest.raises(Reverted, match="not_signed"):
        lane.registry("bondFor", request, signature, by=lane.stranger)
