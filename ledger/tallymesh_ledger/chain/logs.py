"""Reading events over any number of blocks, in pages that the node can serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tallymesh.errors import ChainError
from tallymesh_ledger.chain.rpc import Rpc

PAGE_BLOCKS = 50_000  # of one eth_getLogs at first; halved where the node refuses (public ones allow 500 to 10,000) …
PAGE_BLOCKS_MIN = 50  # … down to this


async def read_logs(
    rpc: Rpc, address: bytes, topics: Sequence[bytes | Sequence[bytes] | None], start: int, end: int
) -> list[dict[str, Any]]:
    """Logs of `address` in blocks `start` … `end`, in order, as JSON-RPC shows them. A topic is one value, several of
    which any may match, or None for all. ChainError where the node refuses even small pages."""
    wanted = {
        "address": "0x" + address.hex(),
        "topics": [_topic(each) for each in topics],
    }
    logs: list[dict[str, Any]] = []
    page = PAGE_BLOCKS
    while start <= end:
        last = min(start + page - 1, end)
        try:
            logs += await rpc.call("eth_getLogs", {**wanted, "fromBlock": hex(start), "toBlock": hex(last)})
        except ChainError as error:
            if error.code != "rpc_error" or page <= PAGE_BLOCKS_MIN:
                raise
            page = max(PAGE_BLOCKS_MIN, page // 2)
        else:
            start = last + 1
    return sorted(logs, key=lambda log: (int(log["blockNumber"], 16), int(log["logIndex"], 16)))


def _topic(wanted: bytes | Sequence[bytes] | None) -> Any:
    if wanted is None:
        return None
    if isinstance(wanted, bytes):
        return "0x" + wanted.hex()
    return ["0x" + each.hex() for each in wanted]
