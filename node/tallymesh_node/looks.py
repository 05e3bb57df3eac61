"""How a role that follows the chain waits between its looks, and how it says or asks again what did not get through.

Level-triggered: a look compares what should be with what is, so a look that fails costs a delay and nothing else. This
module knows no contract and no message; what is looked at, and what is due, stands with those who look.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from tallymesh.errors import ChainError, RemoteError

log = logging.getLogger("tallymesh.looks")

LOOKS = 25  # at a case in the shortest of its windows: what is due is done in its first part
LOOK_MIN_S, LOOK_MAX_S = 1.0, 60.0
ANSWER_RETRY_S = 5.0  # until the chain has said what it was asked
PEER_FIRST_S, PEER_MAX_S = 0.5, 15.0  # between two requests for the same: a peer that is started again answers soon

Value = TypeVar("Value")


def pause_s(*windows_s: float) -> float:
    """Between two looks at something that has these windows."""
    return min(LOOK_MAX_S, max(LOOK_MIN_S, min(windows_s) / LOOKS))


def backoff_s(tries: int, first_s: float, most_s: float) -> float:
    """The pause after so many refusals: doubled with each of them."""
    return min(most_s, first_s * float(2 ** min(tries, 16)))


async def tried(what: str, call: Awaitable[None]) -> bool:
    """Send something that anybody may have sent before: what reverts was done already, or is not due any more; the
    next look at the chain says which. ChainError where the chain could not be asked, or gas is too dear."""
    try:
        await call
    except ChainError as error:
        if not error.reverted:
            raise
        log.info("%s: %s", what, error)
        return False
    return True


async def answered(ask: Callable[[], Awaitable[Value]], whom: str) -> Value:
    """What the chain says, asked until it does: for what is needed before anything can begin."""
    while True:
        try:
            return await ask()
        except ChainError as error:
            log.warning("%s cannot be asked: %s", whom, error)
        await trio.sleep(ANSWER_RETRY_S)


async def obtained(fetch: Callable[[], Awaitable[Value]], whose: object) -> Value:
    """What a peer gives, asked until it could be had: whoever waits sets the time."""
    pause = PEER_FIRST_S
    while True:
        try:
            return await fetch()
        except RemoteError as error:
            log.debug("%r: %s", whose, error)
        await trio.sleep(pause)
        pause = min(2 * pause, PEER_MAX_S)
