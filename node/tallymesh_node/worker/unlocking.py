"""Frees the stake of seats that are over. The escrow holds a seat's lock until somebody asks for its end after the
tail: a worker that never asks has its whole stake locked one day, and takes no lease any more.

Level-triggered, from journal and chain: the lease, which the call needs, is kept until the stake is free. Locks are
freed many at a time, or as soon as what they hold is as much as what is free. This module judges no case.
"""

from __future__ import annotations

import msgspec

from tallymesh.errors import ChainError
from tallymesh.messages import Lease
from tallymesh_node import beats
from tallymesh_node.complaints import level
from tallymesh_node.worker.record import SeatRecord
from tallymesh_node.worker.tools import Tools, log

LOOKS_A_TAIL = 20
LOOK_MIN_S, LOOK_MAX_S = 10.0, 600.0
BATCH = 16  # seats that are worth a transaction however much stake is free: about 25,000 gas each
MAX_AT_ONCE = 64  # in one transaction: 1.6 M gas


class _Locked(msgspec.Struct):
    """A seat that is over. `due`: chain time from which on its lock may be ended, 0 while that was not asked."""

    lease: Lease
    due: int = 0


class Unlocking:
    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.locked: dict[bytes, _Locked] = {}

    def add(self, record: SeatRecord) -> None:
        """A seat that is over."""
        if record.over is not None and record.over.code == "closed" and record.lease.lock:
            self.locked[record.id] = _Locked(record.lease)

    async def run(self) -> None:
        """Until cancelled."""
        pause = min(LOOK_MAX_S, max(LOOK_MIN_S, self.tools.parameters.lock_tail_s / LOOKS_A_TAIL))
        while True:
            try:
                await self.look()
            except ChainError as error:
                log.log(level(error), "stake stays locked for now: %s", error)
            await beats.pause(pause)

    async def look(self) -> None:
        """End what can be ended, if it is worth it. ChainError where the chain refuses."""
        for seat, found in list(self.locked.items()):
            if not found.due:
                await self._ask(seat, found)
        now = self.tools.chain.block_time()
        ripe = [seat for seat, found in self.locked.items() if 0 < found.due <= now]
        held = sum(self.locked[seat].lease.lock for seat in ripe)
        if not ripe or (len(ripe) < BATCH and held < await self.tools.chain.free_stake(self.tools.key.address)):
            return
        due = [seat for seat in ripe[:MAX_AT_ONCE] if await self._ask(seat, self.locked[seat])]
        if due:
            await self.tools.chain.unlock([self.locked[seat].lease for seat in due])
            self.tools.counters["unlocks"] += len(due)
            for seat in due:
                await self._ask(seat, self.locked[seat])  # what is free is forgotten

    async def _ask(self, seat: bytes, found: _Locked) -> bool:
        """Whether its lock may end now, as the chain has it."""
        state = await self.tools.chain.seat_state(seat)
        if state is None or state.open:
            return False  # a reorganisation; the chain will come to it again
        if state.unlocked:
            del self.locked[seat]
            return False
        found.due = state.until + self.tools.parameters.lock_tail_s
        return self.tools.chain.block_time() >= found.due and not state.cases
