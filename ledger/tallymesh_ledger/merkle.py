"""What a worker commits to: leaves, roots, paths and the chain of tallies (docs/PROTOCOL.md section 5.1).

Hashes are keccak over ABI words, because a contract may have to check them.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from tallymesh.errors import CallerError
from tallymesh.exchange import Opening
from tallymesh_ledger.eip712 import keccak, word

DOMAIN_LEAF = keccak(b"tallymesh.leaf.1")
ZERO = bytes(32)
MAX_LEAVES = 1 << 20  # a tally has at most a few hundred; bounds what a path may cost


def leaf(seat: bytes, position: int, opening: Opening) -> bytes:
    """Leaf of one unit. `end` hides behind the salt until the worker opens it; hashed twice, so that no inner node of a
    tree can pass for a leaf."""
    hidden = keccak(word(opening.end) + word(opening.salt))
    parts = (DOMAIN_LEAF, seat, position, opening.unit_id, opening.start, hidden, opening.aux)
    return keccak(keccak(b"".join(word(part) for part in parts)))


def salt(account_secret: bytes, seat: bytes, position: int) -> bytes:
    """Derived from the worker's key, so that an honest repeat after a crash is the same bytes."""
    return hmac.digest(account_secret, b"tallymesh.salt.1" + seat + word(position), "sha256")


def root(leaves: Sequence[bytes]) -> bytes:
    """``keccak(abi.encode(count, top))`` over the leaves padded with zero words to a power of two."""
    return keccak(word(len(leaves)) + _levels(leaves)[-1][0])


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Siblings from the leaf at `index` up to the top."""
    siblings = []
    for level in _levels(leaves)[:-1]:
        siblings.append(level[index ^ 1])
        index >>= 1
    return siblings


def verify(expected_root: bytes, count: int, index: int, value: bytes, siblings: Sequence[bytes]) -> bool:
    """Whether the leaf `value` stands at `index` of the `count` leaves under `expected_root`."""
    if not 0 <= index < count <= MAX_LEAVES or len(siblings) != (count - 1).bit_length():
        return False
    for sibling in siblings:
        value = keccak(sibling + value if index & 1 else value + sibling)
        index >>= 1
    return keccak(word(count) + value) == expected_root


def chain_value(previous: bytes, tally_root: bytes, start: int, count: int) -> bytes:
    """``keccak(abi.encode(chain_{e-1}, root_e, from, count))``: one word that stands for a history."""
    return keccak(word(previous) + word(tally_root) + word(start) + word(count))


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    if not 0 < len(leaves) <= MAX_LEAVES:
        raise CallerError("bad_tally", f"A tally has 1 to {MAX_LEAVES} units, not {len(leaves)}.")
    size = 1 << (len(leaves) - 1).bit_length()
    level = [*leaves, *([ZERO] * (size - len(leaves)))]
    levels = [level]
    while len(level) > 1:
        level = [keccak(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(level)
    return levels
