"""What other peers are to this node, for the places of its host (network/places.py): who works with it now, and who has
stake. Everybody else is a stranger, whatever it says of itself. This module opens no connection and reads no chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tallymesh_node.network.places import Standing
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.auditor import AuditorService
    from tallymesh_node.payer import PayerService
    from tallymesh_node.worker import WorkerService

LOOK_S = 1.0  # how old the list of partners may be: in a flood each newcomer has every place looked at
OVER = (LeaseState.REFUSED, LeaseState.LOST, LeaseState.CLOSED)


class Circle:
    """`circle(peer id)` is its standing. `staked` knows which peers are bound to an account with a slot."""

    def __init__(
        self, staked: Callable[[str], bool], partners: Callable[[], Iterator[str]], clock: Callable[[], float]
    ) -> None:
        self._staked = staked
        self._list = partners
        self._clock = clock
        self._partners: frozenset[str] = frozenset()
        self._looked = float("-inf")

    def __call__(self, peer_id: str) -> Standing:
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._partners, self._looked = frozenset(self._list()), now
        if peer_id in self._partners:
            return Standing.PARTNER
        return Standing.STAKED if self._staked(peer_id) else Standing.STRANGER


def partners(worker: WorkerService | None, auditor: AuditorService | None, payer: PayerService | None) -> Iterator[str]:
    """Of the seats and calls that are under way. Each costs its maker something: a seat the payer's deposit and cores
    of this machine, a call a place in a unit's draw."""
    if worker is not None:
        for work in worker.works():
            yield work.record.payer.peer_id
    if auditor is not None:
        yield from auditor.payers
    if payer is not None:
        for book in payer.books():
            yield from (held.peer.peer_id for held in book.helds.values() if held.state not in OVER)
