"""Everybody at once, in any order and at any time: after every act each wei is where it should be, and at the end some
sequence of calls that anybody can make frees all of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.contract_world import Reverted
from fakes.quarrel import BOND, CLAIM_TALLY, PRICE, Quarrel, net
from tallymesh.messages import RelayedBond, RelayedWithdraw
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain import abi
from tallymesh_ledger.jobs import seat_id

SLOT = 10 * PRICE * 1000
ACTS = 250
UNITS = 40


class Market(Quarrel):
    """One job with room for many seats; two workers with slots, one newcomer; a case for whatever seat Claims likes."""

    def __init__(self, seed: int) -> None:
        super().__init__(seated=False, newcomers=True, workers=2, spare=40 * (UNITS * PRICE + BOND),
                         parameters=Parameters(slot_wei=SLOT))  # fmt: skip
        self.rng = random.Random(seed)
        job = self.job
        self.world.call("Token", "transfer", job.payer.address, 10 * job.order.wages, by=self.world.bank)
        job.order = msgspec.structs.replace(job.order, lock_per_seat=0, deadline=self.world.now + 10**7)
        self.renew()
        self.call("open", job.order, [], by=job.payer)
        self.newcomer = self.world.account()
        self.keys = {key.address: key for key in (*job.workers, self.newcomer)}
        for worker in job.workers:
            self.world.call("Token", "transfer", self.stranger.address, 3 * SLOT, by=self.world.bank)
            self.world.call("Token", "approve", self.world.contracts["Registry"], 2**255, by=self.stranger)
            self.registry("buySlots", worker.address, 2, by=self.stranger)
        self.template = job.leases[0]
        job.leases, job.seats, job.workers = [], [], []
        self.accepted: list[int] = []
        self.cases: list[int] = []
        self.claimed: list[bool] = []  # one of them is a claim
        self.taken = self.refunded = self.audited = 0
        self.done = self.failed = 0
        self.first_period = self.world.now // self.world.parameters.period_s

    # ---- acts

    def take_seat(self) -> None:
        job, rng = self.job, self.rng
        key = rng.choice(list(self.keys.values()))
        lease = msgspec.structs.replace(
            self.template, job=job.id, worker=key.address, positions=rng.randrange(1, UNITS), nonce=len(job.leases),
            lock=rng.choice([0, 1, SLOT // 3, SLOT]), until=self.world.now + rng.randrange(1, 3600),
            seat_by=self.world.now + 10,
        )  # fmt: skip
        job.leases.append(lease)
        job.workers.append(key)
        job.seats.append(seat_id(self.world.domains, lease))
        seating = job.seating(len(job.leases) - 1, by_signer=rng.random() < 0.5)
        done = self.call("seat", job.order, [seating], by=job.payer)
        if done.value == 0:
            for row in (job.leases, job.workers, job.seats):
                row.pop()
            return
        self.accepted.append(0)
        self.cases.append(0)
        self.claimed.append(False)

    def settle_some(self) -> None:
        i = self.any()
        more = self.rng.randrange(0, 20)
        if self.seat(i)["state"] == 1:
            self.accepted[i] = min(self.accepted[i] + more, self.job.leases[i].positions)
        self.settle(self.rng.randrange(0, self.accepted[i] + 1), i)

    def release_seat(self) -> None:
        i = self.any()
        self.close(self.accepted[i], i)

    def expire_seat(self) -> None:
        self.expire(self.any())

    def unlock_seat(self) -> None:
        self.unlock(self.any())

    def pay_audit(self) -> None:
        i = self.any()
        position = self.rng.randrange(self.job.leases[i].positions)
        audits = [self.job.audit(i, self.stranger, position)]
        done = self.call("payAudits", self.job.leases[i], audits, by=self.stranger)
        self.audited += sum(event["amount"] for event in done.of("AuditPaid"))

    def begin_case(self) -> None:
        i = self.any()
        claim = not self.claimed[i] and self.seat(i)["state"] == 1 and self.rng.random() < 0.5
        self.hold(i, by=self.claims if claim else self.accusations)
        self.cases[i] += 1
        self.claimed[i] |= claim

    def end_case(self) -> None:
        i = self.any_held()
        claim = self.claimed[i] and (self.cases[i] == 1 or self.rng.random() < 0.5)
        self.let_go(i, by=self.claims if claim else self.accusations)
        self.cases[i] -= 1
        self.claimed[i] &= not claim

    def pay_a_claim(self) -> None:
        i = self.any()
        units = self.rng.randrange(0, UNITS)
        paid = self.call("payClaim", self.job.leases[i], CLAIM_TALLY, units, bytes(32), by=self.claims)
        if paid.value:
            self.accepted[i] = max(self.accepted[i], paid.of("Settled")[0]["units"])

    def take_bond(self) -> None:
        i = self.any_held()
        amounts = [self.rng.randrange(0, BOND // 2) for _ in range(2)]
        to = [self.stranger.address, self.newcomer.address]
        self.taken += self.call("takeBond", self.job.leases[i], to, amounts, by=self.accusations).value

    def forfeit_seat(self) -> None:
        self.forfeit(self.any_held())

    def slash_seat(self) -> None:
        self.slash(self.rng.choice([1, SLOT // 7, 2 * SLOT]), to_court=self.rng.random() < 0.5, i=self.any_held())

    def pay_debt(self) -> None:
        owing = [each for each in self.keys if self.world.read("Registry", "debtOf", each)]
        if not self.worth(len(owing)):
            return
        account = self.rng.choice(owing or list(self.keys))
        self.registry("settleDebt", account, [self.rng.randrange(self.slot_count())], by=self.stranger)

    def release_slot(self) -> None:
        key = self.rng.choice(list(self.keys.values()))
        self.registry("releaseSlots", key.address, [self.rng.randrange(self.slot_count())], by=key)

    def release_deposit(self) -> None:
        if self.worth(self.world.read("Registry", "depositOf", self.newcomer.address)):
            self.registry("releaseDeposit", self.newcomer.address, by=self.newcomer)

    def withdraw_stake(self) -> None:
        account = self.rng.choice(list(self.keys))
        if self.worth(self.world.read("Registry", "withdrawable", account)):
            self.registry("withdraw", account, by=self.stranger)

    def withdraw_credit(self) -> None:
        account = self.rng.choice(self.accounts())
        if self.worth(self.credit(account)):
            self.call("withdraw", account, by=self.stranger)

    def worth(self, wei: int) -> bool:
        """Where there is nothing to be had an act is tried now and then only."""
        return wei > 0 or self.rng.random() < 0.2

    def relay(self) -> None:
        key = self.rng.choice(list(self.keys.values()))
        nonce = int(self.world.read("Registry", "nonceOf", key.address))
        common: dict[str, Any] = {"account": key.address, "fee": 3, "nonce": nonce, "deadline": self.world.now}
        if self.rng.random() < 0.5:
            self.bond_for(key, RelayedBond(amount=self.rng.randrange(0, 30 * PRICE), **common), by=self.stranger)
        else:
            request = RelayedWithdraw(slots=0, deposit=self.rng.random() < 0.2, **common)
            self.withdraw_for(key, request, [], by=self.stranger)

    def burn(self) -> None:
        if self.worth(self.world.read("JobEscrow", "feesToBurn")):
            self.call("burnFees", by=self.stranger)

    def refund(self) -> None:
        done = self.call("refund", self.job.order, by=self.rng.choice([self.job.payer, self.job.signer]))
        self.refunded += sum(done.value)

    def pass_time(self) -> None:
        self.world.wait(self.rng.choice([1, 600, 3600, 86400]))

    # ---- what holds

    def check(self) -> None:
        job, held = self.job, self.held()
        seats = [self.seat(i) for i in range(len(job.leases))]
        unpaid = sum((s["units"] - s["paidUnits"]) * lease.price
                     for s, lease in zip(seats, job.leases, strict=True) if s["state"] == 1)  # fmt: skip
        bonds = sum(s["bond"] for s in seats)
        in_job = held["free"] + held["reserve"] + unpaid + bonds
        paid = sum(s["paidUnits"] * lease.price for s, lease in zip(seats, job.leases, strict=True))
        given = job.order.wages + job.order.audit_reserve - paid - self.taken - self.refunded - self.audited
        assert in_job == given, "what the job holds is what it was given less what it paid"
        owed = in_job + sum(self.credit(each) for each in self.accounts())
        owed += 2 * int(self.world.read("JobEscrow", "feesToBurn"))
        assert self.balance("JobEscrow") == owed, "the escrow has what it owes"
        assert held["openSeats"] == sum(s["state"] == 1 for s in seats)
        total = 0
        for account in self.keys:
            free, locked, unbonding = self.stake(account)
            total += free + locked + unbonding
            locks = sum(self.lock_left(i) for i, lease in enumerate(job.leases) if lease.worker == account)
            assert locked == locks, "locked is the locks of seats, less what was slashed"
            debt = int(self.world.read("Registry", "debtOf", account))
            assert debt == 0 or self.world.read("Registry", "depositOf", account) == 0
            assert debt <= SLOT * int(self.world.read("Registry", "liveSlots", account))
            assert int(self.world.read("Registry", "depositOf", account)) < SLOT
            mine = [(s, lease) for s, lease in zip(seats, job.leases, strict=True) if lease.worker == account]
            lane = [(s, lease) for s, lease in mine if s["newcomer"] and s["state"] == 1]
            open_ = [(s["units"] - s["paidUnits"]) * lease.price for s, lease in lane]
            assert self.world.read("Registry", "newcomerOf", account) == (len(open_), sum(open_))
            assert len(open_) <= 3
            assert sum(open_) <= SLOT // 100
        assert self.balance("Registry") == total, "the registry has all stakes and nothing else"
        for s, accepted, cases, claimed in zip(seats, self.accepted, self.cases, self.claimed, strict=True):
            assert s["paidUnits"] <= accepted <= s["units"]
            assert s["cases"] == cases
            assert s["bond"] == 0 or s["state"] == 1 or claimed, "only a claim may still spend a closed seat's bond"
        bound = sum(s["paidUnits"] * lease.price - net(s["paidUnits"] * lease.price)
                    for s, lease in zip(seats, job.leases, strict=True))  # fmt: skip
        period = self.world.now // self.world.parameters.period_s
        noted = sum(int(self.world.read("JobEscrow", "burnedIn", p)) for p in range(self.first_period, period + 1))
        assert 2 * noted == bound, "half of every fee is noted as burned"

    def free_all(self) -> None:
        """By a stranger alone, but for releases and withdrawals that the owners want: nothing is left anywhere."""
        for i, cases in enumerate(self.cases):
            for n in range(cases):
                self.let_go(i, by=self.claims if self.claimed[i] and n == 0 else self.accusations)
            self.cases[i] = 0
        self.world.wait(10**6)
        self.world.wait(max(0, self.job.order.deadline + 1 - self.world.now))
        for i in range(len(self.cases)):
            self.expire(i)
        self.world.wait(self.job.order.evidence_window + self.world.parameters.lock_tail_s)
        for i in range(len(self.cases)):
            self.unlock(i)
        self.call("refund", self.job.order, by=self.stranger)
        if self.world.read("JobEscrow", "feesToBurn"):
            self.call("burnFees", by=self.stranger)
        for account in self.accounts():
            if self.credit(account):
                self.call("withdraw", account, by=self.stranger)
        assert self.balance("JobEscrow") == 0
        for account, key in self.keys.items():
            for number in range(self.slot_count()):
                slot = self.world.read("Registry", "slotAt", number)
                if slot["account"] != account or slot["releasedBlock"]:
                    continue
                owes = int(self.world.read("Registry", "debtOf", account)) > 0
                by = self.stranger if owes else key
                self.registry("settleDebt" if owes else "releaseSlots", account, [number], by=by)
            if self.world.read("Registry", "depositOf", account):
                self.registry("releaseDeposit", account, by=key)
        self.world.wait(self.world.parameters.unbonding_s)
        for account in self.keys:
            if self.world.read("Registry", "withdrawable", account):
                self.registry("withdraw", account, by=self.stranger)
            assert self.stake(account) == (0, 0, 0)
        assert self.balance("Registry") == 0

    # ---- small things

    def any(self) -> int:
        """Any seat; mostly a recent one, where more can happen."""
        count = len(self.job.leases)
        recent = max(0, count - 1 - int(self.rng.expovariate(0.4)))
        return recent if self.rng.random() < 0.7 else self.rng.randrange(count)

    def any_held(self) -> int:
        """A seat with a case, mostly."""
        held = [i for i, cases in enumerate(self.cases) if cases]
        if not held and self.rng.random() < 0.8:
            self.begin_case()
            held = [i for i, cases in enumerate(self.cases) if cases]
        return self.rng.choice(held) if held and self.rng.random() < 0.9 else self.any()

    def slot_count(self) -> int:
        return int(self.world.read("Registry", "slotCount"))

    def accounts(self) -> list[bytes]:
        return [self.job.payer.address, self.stranger.address, self.court, *self.keys]


OFTEN = ("take_seat", "settle_some", "settle_some", "begin_case", "end_case", "pass_time")
ONCE = (
    "release_seat", "expire_seat", "unlock_seat", "pay_audit", "pay_a_claim", "take_bond", "forfeit_seat", "slash_seat",
    "pay_debt", "pay_debt", "release_slot", "release_deposit", "withdraw_stake", "withdraw_credit", "relay", "relay",
    "burn", "refund",
)  # fmt: skip
EXPECTED = {
    "not_held", "too_many_cases", "not_short", "not_your_slot", "slot_already_released", "short", "no_deposit",
    "nothing_to_withdraw", "nothing_to_burn", "too_little_credit",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_every_wei_is_where_it_should_be_after_every_act_and_comes_free_at_the_end(seed: int) -> None:
    market = Market(seed)
    market.take_seat()
    for _ in range(ACTS):
        act = market.rng.choice(OFTEN * 2 + ONCE)
        try:
            getattr(market, act)()
        except Reverted as error:
            if error.code not in EXPECTED:
                raise
            market.failed += 1
        market.done += 1
        market.check()
    assert market.failed * 10 <= market.done * 4, "more than 40 % of the acts failed"
    market.free_all()


def test_every_contract_is_under_20_kb() -> None:
    for name in abi.DEPLOYED:
        path = Path(abi.__file__).parents[1] / "abi" / f"{name}.json"
        assert json.loads(path.read_text())["deployedBytes"] < 20_000, name
