"""What an account without a slot may have open: the Registry's own rule, so that nobody offers what it would refuse.

Pure. An account is on probation while it has no live slot. What it earns is its deposit, and turns into a slot as soon
as it is worth one (IRegistry, `admit` and `deposit`; docs/PROTOCOL.md section 6).
"""

from __future__ import annotations

import msgspec

SEATS_MAX = 3  # Registry.NEWCOMER_SEATS
SHARE = 100  # Registry.NEWCOMER_SHARE: all its open seats together are worth at most this part of a slot


class Newcomer(msgspec.Struct, frozen=True):
    """As the Registry shows it. Wei; all zero for an account that was never seen."""

    seats: int = 0  # open ones that it has as a newcomer
    unpaid: int = 0  # what they may still pay
    deposit: int = 0  # earned so far towards its first slot


def room_wei(found: Newcomer, slot_wei: int) -> int:
    """What one more seat may be worth at most (units times price); 0 where there may be none."""
    return max(0, slot_wei // SHARE - found.unpaid) if found.seats < SEATS_MAX else 0
