"""Whether another node works on this node's wallet, and which of them goes on.

Both would sell the same stake, and a payer could have both sign for one position of a seat, which costs the stake. One
knows of the other by what the chain says (which peer speaks for the account: the node that was started last binds it)
and, where the account was never bound, by its offers, which nobody without the wallet can sign. A copy of the whole
folder has the same peer, too, and is not seen here. This module asks nobody: it is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from tallymesh.api import Problem
from tallymesh.messages import Offer

log = logging.getLogger("tallymesh.node")

# Of one that has ended the last offer may still be under way, and a cached one after it. Who works publishes another.
CERTAIN: Final = 3
OTHERS_MAX: Final = 64  # remembered, until their last offer expires; nobody without the wallet can make some up
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


class _Other(NamedTuple):
    peer_id: str
    peer_hash: bytes
    heard: int  # offers
    expires: int  # the last of them, Unix time


class Twins:
    def __init__(self, own: str, own_hash: bytes, enrolment: Bound, now: Callable[[], float]) -> None:
        self._own = own  # peer id
        self._own_hash = own_hash
        self._enrolment = enrolment
        self._now = now
        self._others: dict[str, _Other] = {}  # by peer id: each is counted apart, or two would hide one another
        self._said = ""

    def heard(self, offer: Offer, peer_id: str) -> None:
        """A checked offer of this node's own account."""
        if peer_id == self._own:
            return
        self._others = {peer: each for peer, each in self._others.items() if each.expires > self._now()}
        known = self._others.pop(peer_id, None)
        while len(self._others) >= OTHERS_MAX:
            del self._others[next(iter(self._others))]  # not heard for longest
        heard = known.heard + 1 if known is not None else 1
        self._others[peer_id] = _Other(peer_id, offer.peer_id_hash, heard, offer.expires)
        if heard == CERTAIN:
            self._enrolment.look()  # else both sell until it would look by itself

    @property
    def _other(self) -> _Other | None:
        """That works; of several the one which goes on before the rest."""
        now = self._now()
        work = [each for each in self._others.values() if each.heard >= CERTAIN and each.expires > now]
        return max(work, key=lambda each: each.peer_hash, default=None)

    @property
    def yields(self) -> bool:
        """Whether this node takes no work: the account is the other's."""
        if self._enrolment.replaced:
            return True
        other = self._other
        # Nobody is bound: one of them, the same for all.
        return other is not None and not self._enrolment.bound and other.peer_hash > self._own_hash

    @property
    def sentence(self) -> str:
        """Why no work is taken; "" where it is."""
        if self._enrolment.replaced:
            return "Another node was started on this wallet, and has the account now: this one takes no work."
        other = self._other
        if other is None or not self.yields:
            return ""
        return f"Another node works on this wallet (peer {other.peer_id}): this one takes no work."

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
        other = self._other
        if self.sentence or other is None:
            return self.sentence
        return f"Another node works on this wallet (peer {other.peer_id}): a payer could have both sign for one seat."
