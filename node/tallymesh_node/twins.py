"""Whether another node works on this node's wallet, and which of the two goes on.

Both would sell the same stake, and a payer could have both sign for one position of a seat, which costs the stake. One
knows of the other by what the chain says (which peer speaks for the account: the node that was started last binds it)
and, where the account was never bound, by its offers, which nobody without the wallet can sign. A copy of the whole
folder has the same peer, too, and is not seen here. This module asks nobody: it is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from tallymesh.api import Problem
from tallymesh.messages import Offer

log = logging.getLogger("tallymesh.node")

# Of one that has ended the last offer may still be under way, and a cached one after it. Who works publishes another.
CERTAIN: Final = 3
REMEDY: Final = (
    "A wallet is for one node: end one of them, and give it a wallet of its own (TALLYMESH_HOME names its folder). The "
    "node that is started last has the account."
)


class Bound(Protocol):
    """What the chain says of the account (enrolment.py)."""

    @property
    def bound(self) -> bool:
        """This node's peer speaks for it."""

    @property
    def replaced(self) -> bool:
        """It did, and now another does."""

    def look(self) -> None:
        """Ask the chain now."""


class Twins:
    def __init__(self, own: str, own_hash: bytes, enrolment: Bound, now: Callable[[], float]) -> None:
        self._own = own  # peer id
        self._own_hash = own_hash
        self._enrolment = enrolment
        self._now = now
        self._peer = ""
        self._peer_hash = b""
        self._heard = 0
        self._expires = 0
        self._said = ""

    def heard(self, offer: Offer, peer_id: str) -> None:
        """A checked offer of this node's own account."""
        if peer_id == self._own:
            return
        self._heard = self._heard + 1 if peer_id == self._peer and self._expires > self._now() else 1
        self._peer, self._peer_hash, self._expires = peer_id, offer.peer_id_hash, offer.expires
        if self._heard == CERTAIN:
            self._enrolment.look()  # else both sell until it would look by itself

    @property
    def _other_works(self) -> bool:
        return self._heard >= CERTAIN and self._expires > self._now()

    @property
    def yields(self) -> bool:
        """Whether this node takes no work: the account is the other's."""
        if self._enrolment.replaced:
            return True
        # Nobody is bound: one of two, the same for both.
        return self._other_works and not self._enrolment.bound and self._peer_hash > self._own_hash

    @property
    def sentence(self) -> str:
        """Why no work is taken; "" where it is."""
        if self._enrolment.replaced:
            return "Another node was started on this wallet, and has the account now: this one takes no work."
        return f"Another node works on this wallet (peer {self._peer}): this one takes no work." if self.yields else ""

    def look(self) -> None:
        """Tell the log, once, of what there is to tell."""
        said = self._warning
        if said and said != self._said:
            log.warning("%s %s", said, REMEDY)
        self._said = said

    def problems(self) -> list[Problem]:
        said = self._warning
        return [Problem(code="one_wallet", sentence=said, remedy=REMEDY)] if said else []

    @property
    def _warning(self) -> str:
        if self.sentence or not self._other_works:
            return self.sentence
        return f"Another node works on this wallet (peer {self._peer}): a payer could have both sign for one seat."
