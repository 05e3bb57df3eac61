"""This node's own offer: built from what was measured and what the owner allows, published until it stops.

The newest one is what leases are judged by (`current`). This module does not know how messages travel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio

from tallymesh.ids import ZERO32
from tallymesh.messages import Offer
from tallymesh.parameters import Parameters
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import beats
from tallymesh_node.market.envelope import Binding, seal

MAX_ADDRESS_BYTES = 90  # addresses are the only part of an offer that grows; the first that fit are named


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What is for sale: measured, then bounded by the owner."""

    cores: int
    memory_mib: int
    disk_mib: int
    gpus: str = ""  # as tallymesh.cards shows them
    cpu_score: int = 0  # thousandths of the reference core
    ask_price: int = 0  # wei per reference-second
    numeric_class: bytes = ZERO32
    provisional: bool = True


class Publisher:
    def __init__(
        self,
        domains: Domains,
        account: AccountKey,
        binding: Binding,
        parameters: Parameters,
        *,
        addresses: Callable[[], Sequence[str]],
        publish: Callable[[bytes], Awaitable[None]],
        now: Callable[[], float],
        known_seq: Callable[[], int] = lambda: 0,
    ) -> None:
        """`known_seq`: of the newest offer of the account that was heard, of whichever node: this one's clock may be
        behind that of another one on the wallet, and nobody, this node's own book included, takes an older offer."""
        self._domains = domains
        self._account = account
        self._binding = binding
        self._parameters = parameters
        self._addresses = addresses
        self._publish = publish
        self._now = now
        self._known_seq = known_seq
        self._capacity: Capacity | None = None
        self._changed = trio.Event()
        self._seq = 0
        self.current: Offer | None = None
        self.published = 0
        self.first_published = trio.Event()
        self.bytes_last = 0

    def offer(self, capacity: Capacity | None) -> None:
        """Sell this from now on; None stops selling (the last offer expires)."""
        if capacity != self._capacity:
            self._capacity = capacity
            self._changed.set()
            self._changed = trio.Event()

    async def run(self) -> None:
        while True:
            changed = self._changed
            if self._capacity is None:
                self.current = None
                await changed.wait()
                continue
            self.current = self._build(self._capacity)
            data = seal(self._domains, self._account, self._binding, self.current)
            self.bytes_last = len(data)
            await self._publish(data)
            self.published += 1
            self.first_published.set()
            with trio.move_on_after(beats.left(self._parameters.offer_period_s)):
                await changed.wait()

    def _build(self, capacity: Capacity) -> Offer:
        now = int(self._now())
        # Microseconds: higher after a restart too, without anything to remember.
        self._seq = max(self._seq + 1, self._known_seq() + 1, int(self._now() * 1_000_000))
        return Offer(
            account=self._account.address,
            peer_id_hash=self._binding.message.peer_id_hash,
            numeric_class=capacity.numeric_class,
            provisional=capacity.provisional,
            cores=capacity.cores,
            memory_mib=capacity.memory_mib,
            disk_mib=capacity.disk_mib,
            gpus=capacity.gpus,
            cpu_score=capacity.cpu_score,
            ask_price=capacity.ask_price,
            addresses=_first_that_fit(self._addresses(), ",", MAX_ADDRESS_BYTES),
            attestation=ZERO32,
            seq=self._seq,
            issued=now,
            expires=now + self._parameters.offer_lifetime_s,
        )


def _first_that_fit(parts: Sequence[str], separator: str, limit: int) -> str:
    text = ""
    for part in parts:
        longer = f"{text}{separator}{part}" if text else part
        if len(longer.encode()) > limit:
            break
        text = longer
    return text
