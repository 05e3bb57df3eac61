"""When the loops of a node that look at something now and then wake up: all together.

What a node at rest costs is mostly being woken. A loop that wakes by itself and finds nothing to do costs 0.3 ms,
twenty of them spread over a second 6.7 ms; twenty at one moment cost 0.8 ms together (docs/measurements.md), for the
caches are warm from the second one on. So a loop whose pause is a second or more ends it on a beat: a whole second of
trio's clock, which begins anywhere, so that two nodes do not beat together. A pause ends on the last beat within it:
never later than asked for, and less than a beat earlier. Shorter pauses, and deadlines that mean something to somebody,
stay what they are. This module knows none of the loops.
"""

from __future__ import annotations

import math

import trio

BEAT_S = 1.0  # the shortest pause that the loops of a node at rest have
_EARLY_S = 0.001  # a loop that wakes a hair before its beat has had it


def left(pause_s: float) -> float:
    """Seconds, more than none, to the end of a pause of `pause_s` that begins now."""
    if pause_s < BEAT_S:
        return pause_s
    now = trio.current_time()
    beats = math.floor((now + pause_s + _EARLY_S) / BEAT_S)
    return beats * BEAT_S - now


async def pause(pause_s: float) -> None:
    """Sleep for that long, to the beat."""
    await trio.sleep(left(pause_s))
