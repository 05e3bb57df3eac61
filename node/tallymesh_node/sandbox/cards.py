"""The cards that units may have, as one pool: a unit or an audit holds one while it runs, and no two hold the same.

A card is given to units once the node has proven it (proving.py), and to nobody any more once it was withdrawn; the
node's own trials may have it at any time, in turn with the others. What a card is held for ends with the process that
holds it: nothing of this is on the disk, and a node that starts again begins with all of them free and unproven.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from tallymesh_node.gpus import LEAST_MIB, Card
from tallymesh_node.interfaces import Failure, Limits

# For the node's own trials of a card, which a driver may take minutes to wake.
PROOF = Limits(memory_mib=LEAST_MIB, wall_s=600.0, lines=200)
NONE_LENT = "The unit asks for a GPU, and this node lends none."


class _Wish:
    """One who waits. `card` is there when `settled` is set, or nobody will ever have one to give."""

    def __init__(self, only: Card | None) -> None:
        self.only = only
        self.card: Card | None = None
        self.settled = trio.Event()


class Cards:
    def __init__(self, cards: Sequence[Card] = ()) -> None:
        self.all = tuple(cards)
        self._proven: set[Card] = set()
        self._held: set[Card] = set()
        self._waiting: list[_Wish] = []

    def __repr__(self) -> str:
        return f"<Cards {len(self._held)} held, {len(self._proven)} of {len(self.all)} proven>"

    @property
    def proven(self) -> frozenset[Card]:
        return frozenset(self._proven)

    @property
    def held(self) -> frozenset[Card]:
        return frozenset(self._held)

    def prove(self, card: Card) -> None:
        """From now on units may have it."""
        assert card in self.all
        self._proven.add(card)
        self._give()

    def withdraw(self, card: Card) -> None:
        """No unit gets it any more; the one that has it goes on. Idempotent."""
        self._proven.discard(card)
        self._give()

    @asynccontextmanager
    async def one(self, only: Card | None = None) -> AsyncIterator[Card]:
        """Hold a proven card, or `only` this one, proven or not. First come, first served. Failure `sandbox` where
        there is none to wait for."""
        wish = _Wish(only)
        self._waiting.append(wish)
        self._give()
        try:
            await wish.settled.wait()
            if wish.card is None:
                raise Failure("sandbox", NONE_LENT)
            yield wish.card
        finally:
            if wish.card is not None:
                self._held.discard(wish.card)
            elif wish in self._waiting:
                self._waiting.remove(wish)
            self._give()

    def _give(self) -> None:
        for wish in tuple(self._waiting):
            wanted = [wish.only] if wish.only is not None else [card for card in self.all if card in self._proven]
            wish.card = next((card for card in wanted if card not in self._held), None)
            if wish.card is not None:
                self._held.add(wish.card)
            if wish.card is not None or not wanted:
                self._waiting.remove(wish)
                wish.settled.set()
