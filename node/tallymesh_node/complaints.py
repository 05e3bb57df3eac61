"""How loudly a failure is logged: a chain that is away is told once, by whoever watches it, and not by every loop."""

from __future__ import annotations

import logging

AWAY = "chain_unavailable"


def level(error: Exception, usual: int = logging.WARNING) -> int:
    """`usual`, but DEBUG where the chain is away: `EscrowChain.run` has said so, and `status` shows it."""
    return logging.DEBUG if getattr(error, "code", "") == AWAY else usual
