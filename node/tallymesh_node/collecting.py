"""Draws what a contract owes this account, when it pays: credits of claims, a member's fees, bonds that come back."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from tallymesh.errors import ChainError
from tallymesh_node import beats
from tallymesh_node.worker.policy import SettlePolicy, worth_withdrawing

log = logging.getLogger("tallymesh.collecting")

COLLECT_S = 10.0  # between looks at what this account is credited

Credit = tuple[int, Callable[[], Awaitable[None]]]  # wei, and how to draw them


async def collect(
    credits: Callable[[], Awaitable[Iterable[Credit]]],
    policy: SettlePolicy,
    idle: Callable[[], bool],
    counters: Counter[str],
) -> None:
    """Until cancelled. `credits` are asked for at each look; `idle`: whether little more can come."""
    while True:
        try:
            for wei, draw in await credits():
                if worth_withdrawing(policy, wei, idle=idle()):
                    await draw()
                    counters["withdrawals"] += 1
        except ChainError as error:
            log.debug("credits are not drawn: %s", error)
        await beats.pause(COLLECT_S)
