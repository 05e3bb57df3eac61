"""A job whose seats carry a claim bond, and everybody who may call the escrow about it, Claims and strangers too."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import msgspec

from fakes.contract_world import NOBODY, Done, Job, Quick, World
from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.messages import Lease, RelayedBond, RelayedWithdraw, Release
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain.contract import compact
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.keys import AccountKey

PRICE = WEI_PER_TOKEN // 100
BOND = 7 * PRICE
POSITIONS = 100
CLAIM_TALLY = 2**32 - 1
MAX = 2**96 - 1


class Caller(msgspec.Struct, frozen=True):
    """Calls come from this address; it needs no key."""

    address: bytes


class Quarrel:
    """`workers` seats of `POSITIONS` units each, opened by the payer where `seated`; the rest by name."""

    def __init__(
        self,
        *,
        workers: int = 1,
        bond: int = BOND,
        seated: bool = True,
        newcomers: bool = False,
        positions: int = POSITIONS,
        price: int = PRICE,
        parameters: Parameters | None = None,
        by_signer: bool = False,
        spare: int = 0,
    ) -> None:
        self.engine = Quick()
        self.world = world = World(self.engine, parameters)
        self.claims: Any = Caller(world.claims)
        self.accusations: Any = Caller(world.accusations)
        self.court = world.court
        self.stranger = world.account()
        self.job = job = Job(world, workers=workers, positions=positions, price=price)
        job.order = msgspec.structs.replace(
            job.order, wages=job.order.wages + workers * bond + spare, claim_bond=bond, newcomers=newcomers,
            signer_seat_max=job.order.wages + workers * bond,
        )  # fmt: skip
        self.renew()
        if seated:
            seatings = [job.seating(i, by_signer=by_signer) for i in range(workers)]
            by = self.stranger if by_signer else job.payer
            self.call("open", job.order, [] if by_signer else seatings, by=job.payer)
            if by_signer:
                assert self.call("seat", job.order, seatings, by=by).value == workers

    def renew(self, **lease: Any) -> None:
        """The ids follow the order; `lease` replaces fields of every lease."""
        job = self.job
        job.id = job_id(self.world.domains, job.order)
        job.leases = [msgspec.structs.replace(each, job=job.id, **lease) for each in job.leases]
        job.seats = [seat_id(self.world.domains, each) for each in job.leases]

    @property
    def lease(self) -> Lease:
        return self.job.leases[0]

    @property
    def worker(self) -> AccountKey:
        return self.job.workers[0]

    # Calls.

    def undone(self) -> AbstractContextManager[None]:
        """What is called inside did not happen afterwards."""
        return self.engine.undone()

    def call(self, function: str, *arguments: Any, by: Any) -> Done:
        return self.world.call("JobEscrow", function, *arguments, by=by)

    def registry(self, function: str, *arguments: Any, by: Any) -> Done:
        return self.world.call("Registry", function, *arguments, by=by)

    def hold(self, i: int = 0, *, by: Caller | None = None) -> Done:
        return self.call("hold", self.job.order, self.job.leases[i], by=by or self.claims)

    def let_go(self, i: int = 0, *, by: Caller | None = None) -> Done:
        return self.call("letGo", self.job.leases[i], by=by or self.claims)

    def slash(self, amount: int, *, to_court: bool = True, i: int = 0, prover: bytes | None = None) -> Done:
        prover = prover or self.stranger.address
        return self.call("slash", self.job.leases[i], amount, self.job.payer.address, prover, to_court, by=self.claims)

    def forfeit(self, i: int = 0) -> Done:
        return self.call("forfeit", self.job.leases[i], by=self.claims)

    def settle(self, units: int, i: int = 0) -> Done:
        return self.call("settle", [self.job.settlement(i, units)], by=self.stranger)

    def close(self, units: int, i: int = 0) -> Done:
        return self.call("close", [self.job.closing(i, units)], by=self.stranger)

    def expire(self, i: int = 0) -> Done:
        return self.call("expire", self.job.order, [self.job.leases[i]], by=self.stranger)

    def unlock(self, i: int = 0) -> Done:
        return self.call("unlock", [self.job.leases[i]], by=self.stranger)

    def release(self, i: int, units: int) -> tuple[Any, ...]:
        return (self.job.leases[i], Release(seat=self.job.seats[i], units=units), NOBODY)

    def bond_for(self, key: AccountKey, request: RelayedBond, *, by: Any, signer: AccountKey | None = None) -> Done:
        return self.registry("bondFor", request, self._signed(signer or key, request), by=by)

    def withdraw_for(
        self, key: AccountKey, request: RelayedWithdraw, slots: list[int], *, by: Any, signer: AccountKey | None = None
    ) -> Done:
        return self.registry("withdrawFor", request, slots, self._signed(signer or key, request), by=by)

    def _signed(self, key: AccountKey, request: RelayedBond | RelayedWithdraw) -> tuple[bytes, bytes]:
        return compact(key.sign(self.world.domains, request).signature)

    # What the contracts say.

    def seat(self, i: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.world.read("JobEscrow", "seatOf", self.job.seats[i])
        return found

    def held(self) -> dict[str, Any]:
        found: dict[str, Any] = self.world.read("JobEscrow", "jobOf", self.job.id)
        return found

    def credit(self, account: bytes) -> int:
        return int(self.world.read("JobEscrow", "creditOf", account))

    def stake(self, account: bytes) -> tuple[int, int, int]:
        free, locked, unbonding = self.world.read("Registry", "stakeOf", account)
        return free, locked, unbonding

    def balance(self, contract: str) -> int:
        return int(self.world.read("Token", "balanceOf", self.world.contracts[contract]))

    def tokens(self, account: bytes) -> int:
        return int(self.world.read("Token", "balanceOf", account))

    def lock_left(self, i: int = 0) -> int:
        return int(self.world.read("JobEscrow", "lockLeft", self.job.leases[i]))

    def after_claim_window(self, i: int = 0) -> None:
        self.world.wait(self.job.leases[i].until + self.job.order.claim_window + 1 - self.world.now)


def refused(done: Done) -> list[int]:
    return [event["why"] for event in done.of("Refused")]


def net(amount: int, fee_bp: int = 200) -> int:
    return amount - 2 * (amount * fee_bp // 20_000)
