"""Transactions that are not in a block yet: those with a nonce that is not due, and all while nothing is mined.

Bounded for each sender and in all. A transaction takes another's place only for 10 % more, as on public nodes. This
module knows no state: whoever asks says which nonce is due.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tallymesh_ledger.embedded_chain.evm import Refused

WAITING_MAX = 1_024  # all senders together
WAITING_PER_SENDER = 64
REPLACE_UP = 110, 100


class Pool:
    """py-evm's signed transactions, by sender and nonce."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, dict[int, Any]] = {}

    def add(self, transaction: Any) -> None:
        """Refused where it is known, does not pay enough to replace another, or there is no room."""
        queue = self._waiting.get(transaction.sender, {})
        other = queue.get(transaction.nonce)
        if other is not None:
            if other.hash == transaction.hash:
                raise Refused("already known")
            up, by = REPLACE_UP
            for price in ("max_fee_per_gas", "max_priority_fee_per_gas"):
                if getattr(transaction, price) * by < getattr(other, price) * up:
                    raise Refused("replacement transaction underpriced")
        elif len(queue) >= WAITING_PER_SENDER or sum(map(len, self._waiting.values())) >= WAITING_MAX:
            raise Refused("txpool is full")
        self._waiting.setdefault(transaction.sender, {})[transaction.nonce] = transaction

    def find(self, hash_: bytes) -> Any | None:
        every = (each for queue in self._waiting.values() for each in queue.values())
        return next((each for each in every if each.hash == hash_), None)

    def take(self, sender: bytes, due: int) -> Any | None:
        """The one whose nonce is due, out of the pool, and whatever is too old with it."""
        queue = self._waiting.get(sender, {})
        for nonce in [nonce for nonce in queue if nonce < due]:
            del queue[nonce]
        found = queue.pop(due, None)
        if not queue:
            self._waiting.pop(sender, None)
        return found

    def next_nonce(self, sender: bytes, due: int) -> int:
        """The first one from `due` on that nothing here has."""
        queue = self._waiting.get(sender, {})
        while due in queue:
            due += 1
        return due

    def senders(self) -> Iterable[bytes]:
        return list(self._waiting)

    def clear(self) -> None:
        self._waiting.clear()
