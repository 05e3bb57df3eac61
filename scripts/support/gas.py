"""What every kind of transaction cost in gas, read from the chain: how many there were, and how much each took."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tallymesh.errors import ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain import Rpc
from tallymesh_ledger.index.page import sources

ASKED = 200  # blocks, or receipts, in one request


class Spent(msgspec.Struct):
    """`gas` of all transactions of a kind together; those that reverted paid, too."""

    count: int = 0
    gas: int = 0

    @property
    def each(self) -> int:
        return round(self.gas / self.count) if self.count else 0


async def spent(rpc: Rpc, network: Network, first: int) -> dict[str, Spent]:
    """kind (`JobEscrow.settle`) -> what it took, from block `first` on; what is dearest in all comes first."""
    kinds = _kinds(network)
    head = (await rpc.block()).number
    found: dict[str, Spent] = {}
    calls: list[tuple[str, str]] = []  # kind, hash
    for block in await _all(rpc, [("eth_getBlockByNumber", [hex(n), True]) for n in range(first, head + 1)]):
        calls += [(_kind(kinds, each), each["hash"]) for each in block["transactions"]]
    receipts = await _all(rpc, [("eth_getTransactionReceipt", [hash_]) for _, hash_ in calls])
    for (kind, _), receipt in zip(calls, receipts, strict=True):
        entry = found.setdefault(kind, Spent())
        entry.count += 1
        entry.gas += int(receipt["gasUsed"], 16)
    return dict(sorted(found.items(), key=lambda item: -item[1].gas))


def _kinds(network: Network) -> dict[tuple[str, str], str]:
    """(address, selector) -> its name."""
    return {
        ("0x" + address.hex(), "0x" + function.selector.hex()): f"{source.name}.{name}"
        for address, source in sources(network).items()
        for name, function in source.interface.functions.items()
    }


def _kind(kinds: dict[tuple[str, str], str], transaction: dict[str, Any]) -> str:
    if not transaction["to"]:
        return "a contract"
    if transaction["input"] in ("", "0x"):
        return "gas coin sent"
    return kinds.get((transaction["to"].lower(), transaction["input"][:10]), "another contract")


async def _all(rpc: Rpc, requests: list[tuple[str, list[Any]]]) -> Iterable[Any]:
    answers: list[Any] = []
    for start in range(0, len(requests), ASKED):
        answers += await rpc.batch(requests[start : start + ASKED])
    for answer in answers:
        if isinstance(answer, ChainError):
            raise answer
    return answers
