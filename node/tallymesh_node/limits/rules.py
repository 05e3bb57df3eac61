"""May this machine be used by others now, and how much of it? Pure: what the owner allows, what is seen, and the last
answer give the next one.

A machine that is taken back is handed over in two steps. At once nothing new is offered, taken or begun; what runs may
end until `cut_at`, and then it is killed. This module reads neither clocks nor machines.
"""

from __future__ import annotations

import math
from datetime import datetime

import msgspec

from tallymesh_node.limits.hours import Hours
from tallymesh_node.limits.orders import Pause

HAND_OVER_S = 60.0  # by default for what runs: most units are shorter, and an owner waits a minute
IDLE_HAND_OVER_S = 10.0  # at most, where the owner sits down at the machine and wants it
IDLE_AFTER_S = 300.0  # by default without its owner before the machine is lent again


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner allows. 0 means: as much as the machine has."""

    cores: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    bandwidth_mib_s: int = 0  # of blobs, each way
    hours: Hours = Hours()
    only_idle: bool = False
    idle_after_s: float = IDLE_AFTER_S
    hand_over_s: float = HAND_OVER_S


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen at one look."""

    clock: float  # seconds of a clock that nobody sets: what `cut_at` is told in
    unix: float
    local: datetime  # the owner's wall clock
    idle_s: float = math.inf  # since the owner last used the machine


class Stance(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `code` is "" while the machine is lent; else `cut_at` is when what still runs is killed."""

    code: str = ""
    sentence: str = ""
    remedy: str = ""
    cut_at: float = math.inf

    @property
    def lends(self) -> bool:
        return not self.code

    def cuts(self, clock: float) -> bool:
        """Whether what still runs has had its time."""
        return bool(self.code) and clock >= self.cut_at


LENDING = Stance()


def decide(limits: Limits, pause: Pause | None, seen: Seen, last: Stance) -> Stance:
    """The next stance. Once a time to cut is told it is never put off, whatever the reason becomes: the owner was
    promised it."""
    new = _paused(limits, pause, seen) or _closed(limits, seen) or _in_use(limits, seen) or LENDING
    if new.lends or last.lends:
        return new
    return msgspec.structs.replace(new, cut_at=min(new.cut_at, last.cut_at))


def _paused(limits: Limits, pause: Pause | None, seen: Seen) -> Stance | None:
    if pause is None or seen.unix >= pause.until:
        return None
    end = "" if math.isinf(pause.until) else f" for {_span(pause.until - seen.unix)} more"
    return Stance(
        code="paused",
        sentence=f"Paused by its owner{end}: it offers nothing and hands over what it has.",
        remedy="To lend it again: tallymesh node resume",
        cut_at=seen.clock + (0.0 if pause.at_once else limits.hand_over_s),
    )


def _closed(limits: Limits, seen: Seen) -> Stance | None:
    """Outside of the hours, or so near to their end that what runs has to be handed over by then."""
    left = limits.hours.open_for_s(seen.local)
    if left > limits.hand_over_s:
        return None
    opens = "" if left else f" They begin again in {_span(limits.hours.opens_in_s(seen.local))}."
    return Stance(
        code="off_hours",
        sentence=f"Its owner lends it at certain hours only{', which end now' if left else ''}.{opens}",
        remedy="Other hours: tallymesh node limit --hours",
        cut_at=seen.clock + left,
    )


def _in_use(limits: Limits, seen: Seen) -> Stance | None:
    if not limits.only_idle or seen.idle_s >= limits.idle_after_s:
        return None
    return Stance(
        code="in_use",
        sentence=f"Its owner uses it, and lends it only after {_span(limits.idle_after_s)} of idleness.",
        remedy="Lend it while it is in use, too: tallymesh node limit --no-only-idle",
        cut_at=seen.clock + min(limits.hand_over_s, IDLE_HAND_OVER_S),
    )


def _span(seconds: float) -> str:
    """For people: never "0 min"."""
    minutes = math.ceil(seconds / 60)
    if minutes < 2:
        return f"{max(1, math.ceil(seconds))} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{math.ceil(minutes / 60)} h"
