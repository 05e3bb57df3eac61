"""Payers that had this worker sign leases and never took the seats: they are refused for a while, longer each time.

A signed lease holds cores and stake until its `seat_by`, minutes later, and costs its payer nothing. This module knows
accounts and chain time only. A restart forgets it.
"""

from __future__ import annotations

from collections import OrderedDict

FREE = 2  # leases in a row that may go unseated: a chain that is away, a job that was stopped at once
REST_FIRST_S, REST_MAX_S = 60, 3600  # after one more; doubled each time
ACCOUNTS_MAX = 1024  # remembered; an account with the tokens of a budget costs at least the gas that brings them


class Unseated:
    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[int, float]] = OrderedDict()  # payer -> (how many in a row, until when)

    def until(self, payer: bytes) -> float:
        """Chain time up to which nothing of this payer is taken; 0 for one that may ask."""
        return self._known.get(payer, (0, 0.0))[1]

    def missed(self, payer: bytes, now: float) -> None:
        """One of its leases was never seated."""
        count, until = self._known.get(payer, (0, 0.0))
        count += 1
        if count > FREE:
            until = now + min(REST_MAX_S, REST_FIRST_S * 2 ** min(count - FREE - 1, 10))
        self._known[payer] = count, until
        self._known.move_to_end(payer)
        while len(self._known) > ACCOUNTS_MAX:
            self._known.popitem(last=False)

    def seated(self, payer: bytes) -> None:
        """One of them is on chain."""
        self._known.pop(payer, None)
