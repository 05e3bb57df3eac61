"""Who is drawn from Registry's slots: admissible accounts, auditors of a claim's units, members of the court."""

from __future__ import annotations

from typing import NamedTuple

from tallymesh_ledger.eip712 import keccak, word
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD, Machine
from tallymesh_ledger.model.registry import Registry

SEED_DELAY = 4  # blocks from the call of a draw to the one whose randomness seeds it
MAX_ATTEMPTS = 128  # after which a draw finds nobody
NOBODY = (ZERO_ADDRESS, 0)


class Parties(NamedTuple):
    """Whom a case concerns: none of them, nor their owners, may be drawn."""

    accused: bytes
    accuser: bytes
    payer: bytes
    signer: bytes
    numeric_class: bytes


NO_PARTIES = Parties(ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, ZERO_WORD)


class BlockhashRandomness:
    """The value of a block is its hash, kept for 256 blocks."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def value_at(self, block_number: int) -> bytes:
        return self._machine.block_hash(block_number)


class Draws:
    """Slots and their liveness are those of a past block, owners and classes those of now."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def admissible(self, parties: Parties, slot: int, block_number: int) -> bytes:
        """The account of the slot, or zero where it may not be drawn."""
        account, owner, numeric_class = self._registry.drawn(slot, block_number)
        people = (parties.accused, parties.accuser, parties.payer, parties.signer)
        owners = [self._registry.owner_of(one) for one in people]
        if account in people or owner in owners or numeric_class != parties.numeric_class:
            return ZERO_ADDRESS
        return account

    def member(
        self, parties: Parties, seed: bytes, member: int, round_: int, slots: int, block_number: int
    ) -> tuple[bytes, int]:
        """(account, attempt) of the first admissible slot."""
        for attempt in range(MAX_ATTEMPTS if slots else 0):
            slot = uint(seed, "member", member, round_, attempt) % slots
            account = self.admissible(parties, slot, block_number)
            if account != ZERO_ADDRESS:
                return account, attempt
        return NOBODY

    def auditor(
        self, parties: Parties, seed: bytes, index: int, slots: int, block_number: int, rank: int, limit: int
    ) -> tuple[bytes, int]:
        """(account, attempt) of the (rank + 1)-th different admissible account among the first `limit` attempts."""
        found: list[bytes] = []
        for attempt in range(limit if slots else 0):
            account = self.admissible(parties, uint(seed, "auditor", index, 0, attempt) % slots, block_number)
            if account == ZERO_ADDRESS or account in found:
                continue
            found.append(account)
            if len(found) == rank + 1:
                return account, attempt
        return NOBODY


def uint(seed: bytes, label: str, *numbers: int) -> int:
    """uint(keccak(abi.encode(seed, label, numbers…))): the text stands behind the heads."""
    text = label.encode()
    heads = b"".join(word(number) for number in numbers)
    offset = 32 * (2 + len(numbers))
    encoded = seed + word(offset) + heads + word(len(text)) + text.ljust(32, b"\0")
    return int.from_bytes(keccak(encoded), "big")


def words(*parts: bytes | int) -> bytes:
    """keccak(abi.encode(parts…)) of static values."""
    return keccak(b"".join(word(part) for part in parts))


def units(seed: bytes, count: int, k: int) -> list[int]:
    """The first k of a Fisher-Yates shuffle of 0 … count - 1 (docs/PROTOCOL.md section 5.3)."""
    order = list(range(count))
    for j in range(k):
        other = j + uint(seed, "unit", j) % (count - j)
        order[j], order[other] = order[other], order[j]
    return order[:k]
