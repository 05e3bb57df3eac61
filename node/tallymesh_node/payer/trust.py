"""Whom this payer does not want: outvoted auditors and convicted workers for ever, the unreliable for a while.

The lasting part is journaled. This module judges nobody; it remembers.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from tallymesh_node.interfaces import Journal

SCOPE = "payer-trust"
# A worker that was given up, or an auditor that kept silent, is left alone for a while, twice as long each time: that a
# machine stood still for some seconds, theirs or ours, must not stop a job for minutes.
REST_FIRST_S, REST_S = 30.0, 600.0
BUSY_S = 5.0  # a worker that said no is asked again after this
# Others are asked first for so long: a cheap offer that is late every time, or takes seats and delivers nothing, would
# be the first choice again whenever its rest is over.
DOUBT_S = 3600.0
BASE_ONLY_S = 3600.0  # an owner who changes that starts the node anew: it is asked again after this


class Trust:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._struck: dict[bytes, str] = {}
        self._convicted: dict[bytes, str] = {}
        self._resting: dict[tuple[str, bytes], tuple[float, str]] = {}
        self._base_only: dict[bytes, float] = {}  # account -> until
        self._doubts: dict[bytes, tuple[float, str]] = {}  # account -> (until, why)
        self._rests: dict[tuple[str, bytes], tuple[float, float]] = {}  # its last rest: seconds, and until when
        self._now: Callable[[], float] = trio.current_time

    def load(self) -> None:
        for entry in self._journal.read(SCOPE):
            account, sentence = msgspec.msgpack.decode(entry.body, type=tuple[bytes, str])
            (self._struck if entry.kind == "struck" else self._convicted)[account] = sentence

    @property
    def struck(self) -> set[bytes]:
        """Auditors that are never called again."""
        return set(self._struck) | set(self._convicted)

    @property
    def convicted(self) -> dict[bytes, str]:
        return dict(self._convicted)

    async def strike(self, accounts: set[bytes], sentence: str) -> None:
        await self._add("struck", self._struck, accounts, sentence)

    async def convict(self, account: bytes, sentence: str) -> None:
        await self._add("convicted", self._convicted, {account}, sentence)

    async def _add(self, kind: str, known: dict[bytes, str], accounts: set[bytes], sentence: str) -> None:
        new = sorted(accounts - set(known))
        if new:
            known.update(dict.fromkeys(new, sentence))
            await self._journal.append(SCOPE, *[(kind, msgspec.msgpack.encode((a, sentence))) for a in new])

    def rest(self, role: str, account: bytes, sentence: str, seconds: float = 0.0) -> None:
        """Leave the account alone as `role` ("worker" or "auditor"): for so many seconds, or for as long as it has
        earned by now."""
        now = self._now()
        if not seconds:
            self._rests = {key: (s, until) for key, (s, until) in self._rests.items() if now < until + REST_S}
            last, _ = self._rests.get((role, account), (REST_FIRST_S / 2, 0.0))
            seconds = min(REST_S, 2 * last)
            self._rests[role, account] = seconds, now + seconds
        self._resting[role, account] = (now + seconds, sentence)

    def takes_base_only(self, account: bytes) -> None:
        """It said so itself; no other job with packages asks it for a while."""
        self._base_only[account] = self._now() + BASE_ONLY_S

    def base_only(self) -> set[bytes]:
        now = self._now()
        self._base_only = {account: until for account, until in self._base_only.items() if until > now}
        return set(self._base_only)

    def doubt(self, account: bytes, sentence: str) -> None:
        """Ask others first, where there are others."""
        self._doubts[account] = (self._now() + DOUBT_S, sentence)

    def doubted(self) -> dict[bytes, str]:
        now = self._now()
        self._doubts = {account: (until, why) for account, (until, why) in self._doubts.items() if until > now}
        return {account: why for account, (_, why) in self._doubts.items()}

    def wake(self, role: str, accounts: set[bytes]) -> None:
        """It was not their fault."""
        for account in accounts:
            self._doubts.pop(account, None)
            self._resting.pop((role, account), None)
            self._rests.pop((role, account), None)

    def resting(self, role: str) -> dict[bytes, str]:
        now = self._now()
        for key in [key for key, (until, _) in self._resting.items() if until <= now]:
            del self._resting[key]
        return {account: sentence for (kind, account), (_, sentence) in self._resting.items() if kind == role}
