"""Which units are recomputed, and by whom: everything follows from a seed that nobody could choose
(docs/PROTOCOL.md sections 5.2, 5.3 and 5.6; golden vectors in tests/vectors/sampling.json).

Anyone who knows the tally and c_e can redo every draw later.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from math import comb

from blake3 import blake3

from tallymesh_ledger.eip712 import keccak, word

DOMAIN_SEED = keccak(b"tallymesh.seed.1")
BP = 10_000
MAX_ATTEMPTS = 4_096  # with 3 admissible slots of 1,000 the chance to miss them all is 5e-6


def secret(job_secret: bytes, seat: bytes, tally: int) -> bytes:
    """c_e, the payer's half of the coin flip: a PRF, so that a restarted payer shows the same."""
    return hmac.digest(job_secret, b"tallymesh.secret.1" + seat + word(tally), "sha256")


def secret_hash(value: bytes) -> bytes:
    return keccak(value)


def tally_seed(seat: bytes, tally: int, root: bytes, c_e: bytes) -> bytes:
    """``keccak(abi.encode(DOMAIN_SEED, seat, e, root, c_e))``."""
    return keccak(b"".join(word(part) for part in (DOMAIN_SEED, seat, tally, root, c_e)))


def sample_count(seed: bytes, count: int, rate_bp: int) -> int:
    """k: the rate times the count, its fraction rounded by the seed; at least 1, at most `count`."""
    whole, fraction = divmod(rate_bp * count, BP)
    extra = int(_uint(seed, "k") % BP < fraction)
    return min(count, max(1, whole + extra))


def draw_units(seed: bytes, count: int, k: int) -> list[int]:
    """Indices within the tally (0 … count-1) of the k units to recompute: the first k of a Fisher-Yates shuffle."""
    moved: dict[int, int] = {}
    drawn = []
    for j in range(k):
        other = j + _uint(seed, "unit", j) % (count - j)
        drawn.append(moved.get(other, other))
        moved[other] = moved.get(j, j)
    return drawn


def auditor_slot(seed: bytes, index: int, draw: int, attempt: int, total_slots: int) -> int:
    """Slot of `Registry` that attempt `attempt` of draw `draw` hits for the unit at `index` within the tally."""
    return _uint(seed, "auditor", index, draw, attempt) % total_slots


def draw_auditor(
    seed: bytes,
    index: int,
    draw: int,
    total_slots: int,
    account_at: Callable[[int], bytes | None],
    *,
    first_attempt: int = 0,
) -> tuple[int, bytes] | None:
    """(attempt, account) of the first admissible slot from `first_attempt` on, or None.

    `account_at(slot)` gives the account where it is admissible and None where it must be skipped; `attempt` counts
    every skip from 0. Splitting stake over accounts does not change the odds: slots are drawn, not accounts.
    """
    if total_slots <= 0:
        return None
    for attempt in range(first_attempt, MAX_ATTEMPTS):
        account = account_at(auditor_slot(seed, index, draw, attempt, total_slots))
        if account is not None:
            return attempt, account
    return None


def probe_key(seed: bytes, index: int, draw: int, auditor: bytes) -> bytes:
    """Key of an auditor's probe: BLAKE3 over (seed, i, draw, auditor), 32 bytes. Also draws the step (second half)."""
    return blake3(b"tallymesh.probe.1" + seed + word(index) + word(draw) + auditor).digest()


def commitment(end: bytes, salt: bytes, auditor: bytes, probe: bytes) -> bytes:
    """``keccak(abi.encode(end, salt, auditor, probe))``: what an AuditCommit binds its signer to."""
    return keccak(b"".join(word(part) for part in (end, salt, auditor, probe)))


def detection(count: int, bad: int, k: int) -> float:
    """P(at least one of `bad` units of `count` is among k sampled) = 1 - C(n-m, k) / C(n, k)."""
    return 1.0 - comb(count - bad, k) / comb(count, k)


def _uint(seed: bytes, label: str, *numbers: int) -> int:
    return int.from_bytes(keccak(_encode(seed, label, *numbers)), "big")


def _encode(seed: bytes, label: str, *numbers: int) -> bytes:
    # abi.encode(bytes32, string, uint256...): the string stands behind the heads
    text = label.encode()
    heads: Iterator[bytes] = (word(number) for number in numbers)
    offset = 32 * (2 + len(numbers))
    return seed + word(offset) + b"".join(heads) + word(len(text)) + text.ljust(32, b"\0")
