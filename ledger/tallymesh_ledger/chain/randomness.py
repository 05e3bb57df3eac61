"""Which of the contracts' sources of randomness a chain has (contracts/src/interfaces/IRandomness.sol), found out by
calls before anything is paid for.

Claims and the Court draw from the hash of a block that comes four blocks after the question. On some chains BLOCKHASH
gives something else: nothing at all, or a value that belongs to another chain's numbers. So what it gives there is
compared with what the chain's own nodes say that the block's hash is.
"""

from __future__ import annotations

from typing import Literal

from tallymesh.errors import ChainError
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.eip712 import word

# block hashes kept by the history contract of EIP-2935; the last 256, by BLOCKHASH; none that a draw could be made from
Randomness = Literal["history", "blockhash", "none"]
CONTRACTS: dict[Randomness, str] = {"history": "HistoryRandomness", "blockhash": "BlockhashRandomness"}

HISTORY = bytes.fromhex("0000f90827f1c53a10cb7a02335b175320002935")
_TRIES = 3  # a block may come between two questions, and nodes behind one URL may differ by one
# Creation code that returns the parent's number and what BLOCKHASH says of it.
_PARENT = "6001430380600052406020526040" + "6000f3"


async def find(rpc: Rpc) -> Randomness:
    """The best that works here. ChainError where the chain cannot be asked at all."""
    for _ in range(_TRIES):
        if await _own_hashes(rpc):
            return "history" if await _has_history(rpc) else "blockhash"
    return "none"


async def _own_hashes(rpc: Rpc) -> bool:
    """Whether a block's number and hash are in contracts what they are for everybody else."""
    said = await _call(rpc, {"data": "0x" + _PARENT})
    if said is None or len(said) != 64:
        return False
    number = int.from_bytes(said[:32], "big")
    return said[32:] == await _hash_of(rpc, number)


async def _has_history(rpc: Rpc) -> bool:
    head = (await rpc.block()).number
    number = max(0, head - 1)  # every chain has it, even one that began a minute ago
    said = await _call(rpc, {"to": "0x" + HISTORY.hex(), "data": "0x" + word(number).hex()})
    return said is not None and said == await _hash_of(rpc, number)


async def _hash_of(rpc: Rpc, number: int) -> bytes | None:
    """None where there is no block of that number, as the chain's own nodes count."""
    try:
        block = await rpc.call("eth_getBlockByNumber", hex(number), False)
    except ChainError as error:
        if error.code == "chain_unavailable":
            raise
        return None
    return bytes.fromhex(block["hash"][2:]) if block else None


async def _call(rpc: Rpc, transaction: dict[str, str]) -> bytes | None:
    """What it returns; None where it reverts, or means nothing to this node."""
    (answer,) = await rpc.batch([("eth_call", [transaction, "latest"])])
    if isinstance(answer, ChainError) and answer.code == "chain_unavailable":
        raise answer
    return bytes.fromhex(answer[2:]) if isinstance(answer, str) else None
