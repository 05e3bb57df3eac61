"""Which seats a worker gives back because its owner wants the machine, or part of it. Pure.

A seat is given back by a Leave: the payer gives its units to others, and everything that has a receipt by then is
tallied, audited and paid as usual. This module does not know why the owner wants what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

LIMITS = "owner_limits"  # the code of a Leave where the machine is lent on, but less of it


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner wants. `code` is that of the Leaves where all seats go back, "" where the machine is lent; `cut`:
    what runs on seats that go back is killed, and not waited for any more."""

    code: str = ""
    cut: bool = False
    cores: int = 1 << 30
    memory_mib: int = 1 << 30
    disk_mib: int = 1 << 40


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One open seat, as far as it takes room. All seats of a job share its cores."""

    seat: bytes
    job: bytes
    cores: int
    memory_mib: int
    disk_mib: int


def given_back(seats: Iterable[Held], allowed: Allowed) -> Mapping[bytes, str]:
    """Seat -> code of its Leave. `seats` are in the order in which they were taken: the oldest stay, since more of
    their work is done, and by the rules by which they were taken (admission.py)."""
    if allowed.code:
        return {held.seat: allowed.code for held in seats}
    back: dict[bytes, str] = {}
    jobs: dict[bytes, int] = {}
    for held in seats:
        others = sum(cores for job, cores in jobs.items() if job != held.job)
        fits = held.cores + others <= allowed.cores
        if not fits or held.memory_mib > allowed.memory_mib or held.disk_mib > allowed.disk_mib:
            back[held.seat] = LIMITS
        else:
            jobs[held.job] = held.cores
    return back
