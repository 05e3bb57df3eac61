"""Draws what the Court and Accusations owe this account, when it pays: a member's fees, an accuser's bond, an acquitted
worker's."""

from __future__ import annotations

from collections.abc import Callable

from tallymesh_node import collecting
from tallymesh_node.collecting import Credit
from tallymesh_node.quarrels.tools import Tools
from tallymesh_node.worker.policy import SettlePolicy


async def collect(tools: Tools, policy: SettlePolicy, idle: Callable[[], bool]) -> None:
    """Until cancelled. `idle`: whether no quarrel goes on, so that little more can come."""
    court = tools.court

    async def credits() -> list[Credit]:
        held = await court.held(tools.key.address)
        return [(held.court, court.collect_court), (held.accusations, court.collect_accusations)]

    await collecting.collect(credits, policy, idle, tools.counters)
