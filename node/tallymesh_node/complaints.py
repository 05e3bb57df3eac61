"""How loudly a failure is logged: what lasts is told once, by whoever watches it, and not by every loop."""

from __future__ import annotations

import logging

AWAY = "chain_unavailable"
NO_COIN = "no_gas_coin"
LIMITS = frozenset({"gas_too_dear", "not_worth_gas"})  # the owner's own: to be waited out, for days perhaps


def level(error: Exception, usual: int = logging.WARNING) -> int:
    """`usual`, but DEBUG where `EscrowChain` has said it once and `status` shows it: the chain is away, or the owner's
    limit on gas, or an account without any, holds something back."""
    code = getattr(error, "code", "")
    return logging.DEBUG if code in (AWAY, NO_COIN) or code in LIMITS else usual
