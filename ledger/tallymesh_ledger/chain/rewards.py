"""Binding of Rewards: part of the burned fees goes back to those on whose pay they were burned, period by period."""

from __future__ import annotations

from tallymesh_ledger.chain.contract import At, Contract, Outcome
from tallymesh_ledger.chain.transactions import Sender


class Rewards(Contract):
    """What a worker's burned fees of a period that is over give back; amounts in wei."""

    NAME = "Rewards"

    async def reward_of(self, worker: bytes, period: int, *, at: At = "latest") -> int:
        """What `collect` would pay now; 0 while the period runs, and once it was collected."""
        return int(await self.read("rewardOf", worker, period, at=at))

    async def collected(self, worker: bytes, period: int, *, at: At = "latest") -> bool:
        return bool(await self.read("collected", worker, period, at=at))

    async def collect(self, sender: Sender, worker: bytes, period: int, *, brings_wei: int | None = None) -> Outcome:
        """Pay the worker's owner; anyone may."""
        return await self.write(sender, "collect", worker, period, brings_wei=brings_wei)
