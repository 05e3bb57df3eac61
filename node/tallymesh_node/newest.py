"""The newest blocks as one loop of this node saw them go by: where the chain is, and whether a contract said anything.

A block's header has a filter of the addresses that logged in it (logsBloom, Ethereum's yellow paper 4.3.1): no false
"no", some false "yes". While every block since a reader's last look says "no", there is nothing to read, which spares a
node at rest most of what it would ask the chain. Some chains leave the filter empty: nobody relies on it for long until
a block that is known to hold a log was seen to say so, and one that denies it ends the trust.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

import trio

from tallymesh_ledger.chain.rpc import Block
from tallymesh_ledger.eip712 import keccak

KEPT = 64  # blocks: whoever reads events reads as many again after one, for reorganisations and nodes that index late
FRESH_S = 2.5  # the loop looks once a second; what is older says nothing about now
SKIP_S = 10.0  # the longest that a reader goes without asking, whatever the filters say …
SKIP_TRUE_S = 60.0  # … and where a filter was seen to tell the truth
SOON = 16  # blocks that a node which indexes late, or one of several behind a URL, is behind at most
GAP_MAX = 8  # blocks since the last look that are worth reading: on quicker chains readers read for themselves
_BITS = 2048


class Newest:
    """`note` every block that is seen; whoever asks gets None and False where no loop runs."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque(maxlen=KEPT)  # one after the other, without a gap
        self._at = -FRESH_S
        self._began = 0.0  # trio time from which on no block was missed and none taken back
        self._true: bool | None = None  # whether filters tell what was logged; None while nobody knows
        self._spoke: dict[bytes, tuple[int, int]] = {}  # contract -> (block looked at last, newest that may hold a log)

    def __repr__(self) -> str:
        return f"<Newest {self._blocks[-1].number if self._blocks else None} of {len(self._blocks)} true={self._true}>"

    def note(self, block: Block) -> None:
        """The newest block as it was just read. After a gap or a reorganisation what came before says nothing."""
        self._at = trio.current_time()
        if self._blocks and self._blocks[-1].hash == block.hash:
            return
        if not self._blocks or self._blocks[-1].hash != block.parent:
            self._blocks.clear()
            self._spoke.clear()
            self._began = self._at
        self._blocks.append(block)

    def missing(self, block: Block) -> range:
        """Numbers of the blocks between the last one noted and this one; empty where they are not worth reading."""
        between = range(self._blocks[-1].number + 1, block.number) if self._blocks else range(0)
        return between if len(between) <= GAP_MAX else range(0)

    def judge(self, block: Block, address: bytes) -> None:
        """`block` is one in which the contract logged something: whether its filter says so."""
        if len(block.bloom) == _BITS // 8:
            self._true = self._true is not False and _may_hold(block.bloom, address)

    @property
    def unjudged(self) -> bool:
        return self._true is None

    @property
    def number(self) -> int | None:
        """Of the newest block, at most some seconds old; None where that is not known."""
        fresh = self._blocks and trio.current_time() - self._at <= FRESH_S
        return self._blocks[-1].number if fresh else None

    def block(self, number: int) -> Block | None:
        """One of the newest chain's, None where it is not kept or the newest is not known."""
        if self.number is None:
            return None
        place = number - self._blocks[0].number
        return self._blocks[place] if 0 <= place < len(self._blocks) else None

    def follows(self, number: int, block_hash: bytes) -> bool:
        """Whether the newest chain certainly goes on from that block."""
        if self.number is None:
            return False
        first = self._blocks[0]
        if number == first.number - 1:
            return first.parent == block_hash
        known = self.block(number)
        return known is not None and known.hash == block_hash

    def silent(self, address: bytes, since: int, read_at: float, *, lately: int = KEPT) -> bool:
        """Whether the contract has certainly logged nothing after block `since`, and nothing in the `lately` blocks up
        to it: then a reader that asked last at `read_at` (of trio's clock) has nothing to read."""
        most_s = SKIP_TRUE_S if self._true else SKIP_S
        if self._true is False or self.number is None or trio.current_time() - read_at > most_s:
            return False
        if read_at < self._began:
            return False  # what was read may be of another chain than this one
        first = self._blocks[0].number
        return first <= since + 1 and self._last_of(address) < max(first, since + 1 - lately)

    def _last_of(self, address: bytes) -> int:
        """The newest of the kept blocks that may hold a log of the contract, or one before all of them."""
        looked, spoke = self._spoke.get(address, (-1, -1))
        for block in reversed(self._blocks):
            if block.number <= looked:
                break
            if block.number > spoke and _may_hold(block.bloom, address):
                spoke = block.number
        self._spoke[address] = self._blocks[-1].number, spoke
        return spoke


def _may_hold(bloom: bytes, address: bytes) -> bool:
    if len(bloom) != _BITS // 8:
        return True  # the node does not say
    return all(bloom[-1 - bit // 8] >> bit % 8 & 1 for bit in _bits(address))


@lru_cache(maxsize=64)
def _bits(address: bytes) -> tuple[int, ...]:
    """The three bits that stand for an address."""
    found = keccak(address)
    return tuple(int.from_bytes(found[i : i + 2], "big") % _BITS for i in (0, 2, 4))
