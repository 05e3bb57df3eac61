"""What the owner of a machine allows: its limits, when it may be used, and the pause. Decided purely, enforced once a
second by the steward (steward.py). Nothing in here knows jobs, seats or money, and what commands import waits for no
event loop."""

from __future__ import annotations

from tallymesh_node.limits.hours import Hours
from tallymesh_node.limits.orders import Orders, Pause
from tallymesh_node.limits.rules import Limits, Seen, Stance, decide

__all__ = ["Hours", "Limits", "Orders", "Pause", "Seen", "Stance", "decide"]
