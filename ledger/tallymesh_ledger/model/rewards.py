"""Returns part of the burned fees to those on whose pay they were burned (IRewards)."""

from __future__ import annotations

from tallymesh_ledger.model.escrow import JobEscrow
from tallymesh_ledger.model.machine import Machine, Revert, Store
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.token import Token

SHARE = (9, 10)  # of what was burned for a worker: trading with oneself always loses


class Rewards:
    """Pays out what it holds and never more."""

    def __init__(
        self, machine: Machine, address: bytes, token: Token, registry: Registry, escrow: JobEscrow, *, emission: int
    ) -> None:
        self.address = address
        self.emission = emission
        self._machine = machine
        self._token = token
        self._registry = registry
        self._escrow = escrow
        self._collected: Store[tuple[bytes, int], bool] = Store(machine, False)

    def collect(self, caller: bytes, worker: bytes, period: int) -> int:
        if not self._over(period):
            raise Revert("PeriodNotOver", period)
        amount = self.reward_of(worker, period)
        if amount == 0:
            raise Revert("NothingToCollect", worker, period)
        self._collected[worker, period] = True
        owner = self._registry.owner_of(worker)
        self._machine.emit(self.address, "Collected", worker=worker, period=period, to=owner, amount=amount)
        self._token.transfer(self.address, owner, amount)
        return amount

    def reward_of(self, worker: bytes, period: int) -> int:
        mine, all_ = self._escrow.burned_of(period, worker), self._escrow.burned_in(period)
        if not self._over(period) or self._collected[worker, period] or mine == 0:
            return 0
        reward = min(self.emission * mine // all_, SHARE[0] * mine // SHARE[1])
        return min(reward, self._token.balance_of(self.address))

    def collected(self, worker: bytes, period: int) -> bool:
        return self._collected[worker, period]

    def _over(self, period: int) -> bool:
        return self._machine.now // self._escrow.period_length > period
