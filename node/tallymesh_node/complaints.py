"""How a failure is told: how loudly it is logged (what lasts once, by whoever watches it, and not by every loop), and
what the owner reads of it in `status`."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tallymesh.api import Problem
from tallymesh.errors import TallymeshError

AWAY = "chain_unavailable"
NO_COIN = "no_gas_coin"
LIMITS = frozenset({"gas_too_dear", "not_worth_gas"})  # the owner's own: to be waited out, for days perhaps
MAX_PROBLEMS = 8  # of one role, told at a time: the first say what is wrong


def level(error: Exception, usual: int = logging.WARNING) -> int:
    """`usual`, but DEBUG where `EscrowChain` has said it once and `status` shows it: the chain is away, or the owner's
    limit on gas, or an account without any, holds something back."""
    code = getattr(error, "code", "")
    return logging.DEBUG if code in (AWAY, NO_COIN) or code in LIMITS else usual


def told(error: TallymeshError) -> tuple[str, str]:
    """A failure as its owner sees it in `status`: (code, sentence). No peer is named: the case is."""
    return error.code, f"{error.sentence} {error.remedy}".strip()


def problems(found: Iterable[tuple[str, str] | None]) -> list[Problem]:
    """What `status` says of them: each once, the first MAX_PROBLEMS."""
    each = dict.fromkeys(problem for problem in found if problem is not None)
    return [Problem(code=code, sentence=sentence) for code, sentence in each][:MAX_PROBLEMS]
