"""Looks once a second at what the owner says and at the machine, and has the node do what follows from it.

Level-triggered: each look tells the whole truth again, so a change that is missed costs a second. The steward knows
neither offers nor seats; who made it says in `apply` what a stance means.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import trio

from tallymesh.errors import TallymeshError
from tallymesh_node import beats
from tallymesh_node.limits import orders as files
from tallymesh_node.limits.idle import Idleness
from tallymesh_node.limits.orders import Orders
from tallymesh_node.limits.rules import LENDING, Limits, Seen, Stance, decide

log = logging.getLogger("tallymesh.limits")

LOOK_S = 1.0  # an owner who pauses or sits down waits no longer for the first effect; a look costs some microseconds

Changes = Mapping[str, int | float | bool | tuple[str, ...]]


class Steward:
    """`limits_of` gives the limits with the owner's later changes in place of the configured ones, CallerError where
    one makes no sense. `apply` is called at each look; it must be idempotent and not block."""

    def __init__(
        self,
        folder: Path,
        limits_of: Callable[[Changes], Limits],
        apply: Callable[[Limits, Stance], None],
        *,
        idle_s: Callable[[float, float], Awaitable[float]] | None = None,
        unix: Callable[[], float] = time.time,
        local: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._folder = folder
        self._limits_of = limits_of
        self._apply = apply
        self._idle_s = idle_s if idle_s is not None else partial(trio.to_thread.run_sync, Idleness().look)
        self._unix, self._local = unix, local
        self._stamp: tuple[int, int, int] | None = None
        self._orders = Orders()
        self.limits = limits_of({})
        self.stance = LENDING
        self.error: TallymeshError | None = None  # what the owner said last makes no sense

    def __repr__(self) -> str:
        return f"<Steward {self.stance.code or 'lends'}>"

    async def run(self) -> None:
        while True:
            await self.look()
            await beats.pause(LOOK_S)

    async def look(self) -> None:
        self._read()
        clock, unix = trio.current_time(), self._unix()
        idle_s = float("inf")
        if self.limits.only_idle:
            idle_s = await self._idle_s(clock, unix)
        seen = Seen(clock=clock, unix=unix, local=self._local(), idle_s=idle_s)
        stance = self._refused(clock) or decide(self.limits, self._orders.pause, seen, self.stance)
        if stance.code != self.stance.code:
            log.info("%s", stance.sentence or "this machine is lent again")
        self.stance = stance
        self._apply(self.limits, stance)

    def _read(self) -> None:
        stamp = files.stamp(self._folder)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            found = files.load(self._folder)
            self.limits = self._limits_of(found.changes)
            self._orders, self.error = found, None
        except TallymeshError as error:
            self.error = error
            log.error("%s", error)

    def _refused(self, clock: float) -> Stance | None:
        """An owner said something, perhaps `pause`, and nobody can read it: then the machine is not lent."""
        if self.error is None:
            return None
        cut_at = min(clock + self.limits.hand_over_s, self.stance.cut_at)
        return Stance(code="bad_orders", sentence=self.error.sentence, remedy=self.error.remedy, cut_at=cut_at)
