"""Reading events over any number of blocks, in pages that the node can serve.

A page is halved where the node refuses its range or its number of results, and grows again where pages pass: providers
differ in what they allow, and a quiet stretch of blocks costs less than a busy one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from tallymesh.errors import ChainError
from tallymesh_ledger.chain.rpc import Rpc

PAGE_BLOCKS = 50_000  # of one eth_getLogs at first; halved where the node refuses (public ones allow 500 to 10,000) …
PAGE_BLOCKS_MIN = 10  # … down to this: the smallest that a free plan allows
GROW_AFTER = 8  # pages that passed in a row, before one of twice the blocks is tried

Topics = Sequence[bytes | Sequence[bytes] | None]


class Page(msgspec.Struct, frozen=True):
    """All logs of blocks `first` … `last`, in order, as JSON-RPC shows them."""

    first: int
    last: int
    logs: list[dict[str, Any]]


async def read_logs(
    rpc: Rpc, address: bytes, topics: Topics, start: int, end: int, *, page_blocks: int = 0
) -> list[dict[str, Any]]:
    """Logs of `address` in blocks `start` … `end`, in order, as JSON-RPC shows them. A topic is one value, several of
    which any may match, or None for all. ChainError where the node refuses even small pages."""
    return [log async for page in pages(rpc, address, topics, start, end, page_blocks=page_blocks) for log in page.logs]


async def pages(
    rpc: Rpc, address: bytes, topics: Topics, start: int, end: int, *, page_blocks: int = 0
) -> AsyncGenerator[Page, None]:
    """The same, page by page and without gaps, so that a reader can keep what it has (who leaves early closes it:
    `contextlib.aclosing`). `page_blocks`: how many blocks to
    ask for at first, where that is known of the provider (`ChainFacts.logs_blocks_max`), and never more."""
    wanted = {"address": "0x" + address.hex(), "topics": [_topic(each) for each in topics]}
    most = min(page_blocks or PAGE_BLOCKS, PAGE_BLOCKS)
    size, passed = most, 0
    while start <= end:
        last = min(start + size - 1, end)
        try:
            logs = await rpc.call("eth_getLogs", {**wanted, "fromBlock": hex(start), "toBlock": hex(last)})
        except ChainError as error:
            if error.code != "rpc_error" or last == start or size <= min(PAGE_BLOCKS_MIN, most):
                raise
            size, passed = max(min(PAGE_BLOCKS_MIN, most), min(size, last - start + 1) // 2), 0
            continue
        yield Page(start, last, sorted(logs, key=lambda log: (int(log["blockNumber"], 16), int(log["logIndex"], 16))))
        start, passed = last + 1, passed + 1
        if passed >= GROW_AFTER:
            size, passed = min(2 * size, most), 0


def _topic(wanted: bytes | Sequence[bytes] | None) -> Any:
    if wanted is None:
        return None
    if isinstance(wanted, bytes):
        return "0x" + wanted.hex()
    return ["0x" + each.hex() for each in wanted]
