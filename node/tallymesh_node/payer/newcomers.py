"""Pays a newcomer's seat as soon as it is done, and not with all others at the end of the job.

A newcomer may have little open (tallymesh_ledger.newcomers), so an unpaid seat keeps it from the next lease of anybody;
settling the last Accept pays all units, which closes the seat. The job's other money stays where it is: `finish` would
give the payer its free wages back, which are for further seats. This module does not judge what is owed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tallymesh.api import Problem
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.records import Closed
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

SEATED = (LeaseState.SEATED, LeaseState.ENDING, LeaseState.LOST)
TELL_S = 5.0  # for a paid worker to take its last Accept: the seat is its record of the job, but the money is there


class Newcomers:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._paid_at: dict[bytes, float] = {}  # seats that are paid on chain, trio's clock

    def problems(self) -> list[Problem]:
        return []

    def reconcile(self) -> None:
        driver = self.driver
        if driver.book.settled is not None:
            return  # the end of the job pays what is left
        for held in driver.book.all():
            if held.newcomer and held.state in SEATED and self._done(held):
                if held.id not in self._paid_at:
                    driver.doing.start(("newcomer", held.id), self._pay, held)
                elif self._told(held) or trio.current_time() >= self._paid_at[held.id] + TELL_S:
                    driver.doing.start(("newcomer", held.id), self._close, held)

    def _done(self, held: Held) -> bool:
        """Every unit of the lease is accepted: paying them closes the seat."""
        return bool(held.accepts) and held.seat.accepted_units == held.lease.positions and not held.convicted

    def _told(self, held: Held) -> bool:
        return f"accept:{len(held.accepts)}" in held.live.told

    async def _pay(self, held: Held) -> None:
        chain = self.driver.tools.chain
        state = await chain.seat_state(held.id)
        if state is not None and state.open and state.paid_units < held.lease.positions:
            await chain.settle([(held.lease, held.accepts[-1])])
        audits = self.driver.settling.earned().get(held.id, ())
        if audits:
            await chain.pay_audits(held.lease, audits)
        self._paid_at[held.id] = trio.current_time()
        self.driver.leasing.look_again()

    async def _close(self, held: Held) -> None:
        state = await self.driver.tools.chain.seat_state(held.id)
        if state is not None and not state.open and held.state in SEATED:
            await self.driver.commit(Closed(held.id, state.paid_units))
        else:  # a claim keeps it open, or a reorganisation took the payment back: it is looked at again
            del self._paid_at[held.id]
            await trio.sleep(TELL_S)
