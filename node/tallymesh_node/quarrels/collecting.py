"""Draws what the Court and Accusations owe this account, when it pays: a member's fees, an accuser's bond, an acquitted
worker's."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tallymesh.errors import ChainError
from tallymesh_node.quarrels.tools import Tools, log
from tallymesh_node.worker.policy import SettlePolicy, worth_withdrawing

COLLECT_S = 10.0  # between looks at what this account is credited


async def collect(tools: Tools, policy: SettlePolicy, idle: Callable[[], bool]) -> None:
    """Until cancelled. `idle`: whether no quarrel goes on, so that little more can come."""
    court = tools.court
    while True:
        try:
            held = await court.held(tools.key.address)
            for wei, draw in ((held.court, court.collect_court), (held.accusations, court.collect_accusations)):
                if worth_withdrawing(policy, wei, idle=idle()):
                    await draw()
                    tools.counters["withdrawals"] += 1
        except ChainError as error:
            log.debug("credits of quarrels: %s", error)
        await trio.sleep(COLLECT_S)
