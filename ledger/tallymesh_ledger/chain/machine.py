"""Whether a chain's EVM knows the instructions that our contracts use, found out before anything is paid for.

A contract whose constructor runs may still hold instructions that its chain does not know, and fail when it is first
used. So those that the bytecode holds and that are younger than the oldest EVM in use are tried by a call each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.rpc import Rpc

_RETURN_ONE = "600160005360016000f3"  # one byte 0x01
# instruction -> (name and where it is from, code that uses it and leaves the stack empty)
_YOUNG = {
    0x40: ("BLOCKHASH", "600143034050"),
    0x46: ("CHAINID (EIP-1344)", "4650"),
    0x47: ("SELFBALANCE (EIP-1884)", "4750"),
    0x48: ("BASEFEE (EIP-3198)", "4850"),
    0x5C: ("TLOAD (EIP-1153)", "60005c50"),
    0x5D: ("TSTORE (EIP-1153)", "600060005d"),
    0x5E: ("MCOPY (EIP-5656)", "6000600060005e"),
    0x5F: ("PUSH0 (EIP-3855)", "5f50"),
}
# What code compiled for Istanbul can hold of these: nothing younger, and no BLOCKHASH, which only sources of randomness
# ask for; such bytes in its constants are no instructions.
_ISTANBUL = frozenset({0x46, 0x47})
_PUSH1, _PUSH32 = 0x60, 0x7F


def bytecodes(machine: abi.Machine = "cancun") -> list[bytes]:
    """Creation code of every contract that is made for such a machine."""
    names = abi.ALL if machine == "cancun" else abi.DEPLOYED
    return [abi.creation_code(name, machine) for name in names]


async def choose(rpc: Rpc) -> abi.Machine:
    """The newest that this chain runs. ChainError `old_machine` that says what is missing even for the oldest."""
    if not await missing(rpc, bytecodes("cancun")):
        return "cancun"
    await check(rpc, bytecodes("istanbul"), among=_ISTANBUL)
    return "istanbul"


def instructions(bytecode: bytes) -> set[int]:
    """All that the code holds; what is pushed as data is skipped, constants behind the code are not."""
    found: set[int] = set()
    at = 0
    while at < len(bytecode):
        code = bytecode[at]
        found.add(code)
        at += 1 + (code - _PUSH1 + 1 if _PUSH1 <= code <= _PUSH32 else 0)
    return found


async def missing(rpc: Rpc, bytecodes: Iterable[bytes], *, among: Set[int] = _YOUNG.keys()) -> list[str]:
    """Names of the instructions that the contracts hold and the chain does not know. Empty also where its nodes cannot
    be asked this way."""
    held = set[int]().union(*map(instructions, bytecodes))
    wanted = [_YOUNG[code] for code in sorted(held & among)]
    probes = ["", *(probe for _, probe in wanted)]
    answers = await rpc.batch([("eth_call", [{"data": "0x" + probe + _RETURN_ONE}, "latest"]) for probe in probes])
    if not _worked(answers[0]):
        return []  # a call without a receiver means nothing to this node
    return [name for (name, _), answer in zip(wanted, answers[1:], strict=True) if not _worked(answer)]


async def check(rpc: Rpc, bytecodes: Sequence[bytes], *, among: Set[int] = _YOUNG.keys()) -> None:
    """ChainError `old_machine` that names what is missing."""
    unknown = await missing(rpc, bytecodes, among=among)
    if unknown:
        raise ChainError(
            "old_machine",
            f"The contracts use instructions that this chain's EVM does not know: {', '.join(unknown)}.",
            reverted=False,
            remedy="They cannot run there as they are compiled; nothing was sent.",
        )


def _worked(answer: object) -> bool:
    return answer == "0x01"
