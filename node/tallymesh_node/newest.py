"""The newest blocks as one loop of this node saw them go by: where the chain is, and whether a contract said anything.

A block's header has a filter of the addresses that logged in it (logsBloom, Ethereum's yellow paper 4.3.1): no false
"no", some false "yes". While every block since a reader's last look says "no", there is nothing to read, which spares a
node at rest most of what it would ask the chain. Some chains leave the filter empty, so nobody relies on it for long.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import trio

from tallymesh_ledger.chain.rpc import Block
from tallymesh_ledger.eip712 import keccak

KEPT = 64  # blocks: whoever reads events reads as many again after one, for reorganisations and nodes that index late
FRESH_S = 2.5  # the loop looks once a second; what is older says nothing about now
SKIP_S = 10.0  # the longest that a reader goes without asking, whatever the filters say
_BITS = 2048


class Newest:
    """`note` every block that is seen; whoever asks gets None and False where no loop runs."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque(maxlen=KEPT)  # one after the other, without a gap
        self._at = -FRESH_S

    def __repr__(self) -> str:
        return f"<Newest {self._blocks[-1].number if self._blocks else None} of {len(self._blocks)}>"

    def note(self, block: Block) -> None:
        """The newest block as it was just read. After a gap or a reorganisation what came before says nothing."""
        self._at = trio.current_time()
        if self._blocks and self._blocks[-1].hash == block.hash:
            return
        if self._blocks and self._blocks[-1].hash != block.parent:
            self._blocks.clear()
        self._blocks.append(block)

    @property
    def number(self) -> int | None:
        """Of the newest block, at most some seconds old; None where that is not known."""
        fresh = self._blocks and trio.current_time() - self._at <= FRESH_S
        return self._blocks[-1].number if fresh else None

    def silent(self, address: bytes, since: int, read_at: float) -> bool:
        """Whether the contract has certainly logged nothing after block `since`, and nothing lately: then a reader that
        asked last at `read_at` (of trio's clock) has nothing to read."""
        if self.number is None or trio.current_time() - read_at > SKIP_S or self._blocks[0].number > since + 1:
            return False
        return not any(_may_hold(block.bloom, address) for block in self._blocks)


def _may_hold(bloom: bytes, address: bytes) -> bool:
    if len(bloom) != _BITS // 8:
        return True  # the node does not say
    return all(bloom[-1 - bit // 8] >> bit % 8 & 1 for bit in _bits(address))


@lru_cache(maxsize=64)
def _bits(address: bytes) -> tuple[int, ...]:
    """The three bits that stand for an address."""
    found = keccak(address)
    return tuple(int.from_bytes(found[i : i + 2], "big") % _BITS for i in (0, 2, 4))
