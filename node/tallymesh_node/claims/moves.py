"""What anybody may do for a claim whose time has come: carry out the Court's rulings, and conclude.

Worker and auditors both need it, each for the own bond; whoever is second finds it done.
"""

from __future__ import annotations

from tallymesh.messages import Lease
from tallymesh_ledger.claims import Claim, ClaimState, Heard, case_id
from tallymesh_node.claims.tools import Tools
from tallymesh_node.looks import tried


def due(found: Claim, now: int, grace_s: float = 0.0) -> bool:
    """Whether `conclude` does something, by time and what was said so far."""
    over = now > found.deadline + grace_s
    if found.state is ClaimState.REVEALING:
        heard = found.revealed == found.committed and not grace_s
        return not found.in_court and (heard or over)
    return over and found.state in (ClaimState.SAMPLING, ClaimState.CHALLENGEABLE)


async def move_on(
    tools: Tools, lease: Lease, claim: bytes, found: Claim, *, brings_wei: int, grace_s: float = 0.0
) -> None:
    """The next thing that is due, if any. `brings_wei` is what the end brings this account. ChainError `not_worth_gas`
    where that is less than concluding costs."""
    if found.state is ClaimState.REVEALING and found.in_court:
        await _rule(tools, lease, claim, found)
    if due(found, tools.chain.block_time(), grace_s):
        await tried("conclude", tools.claims.conclude(lease, claim, brings_wei=brings_wei))


async def _rule(tools: Tools, lease: Lease, claim: bytes, found: Claim) -> None:
    samples = await tools.claims.samples(claim, found.k)
    for number, sample in enumerate(samples):
        if sample.heard is Heard.DISPUTED and await tools.claims.ruled(case_id(claim, number)):
            await tried("rule", tools.claims.rule(lease, claim, number))
