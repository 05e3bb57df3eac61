"""Signatures as contracts take them: compact (EIP-2098), and left zero where the caller itself is who must have signed.

Knows digests and addresses, no contract. Results are remembered, because a driver shows the same message many times.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from tallymesh.schema import Message
from tallymesh_ledger import keys
from tallymesh_ledger.eip712 import Domain, keccak, struct_hash
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # of secp256k1: a higher `s` is refused
REMEMBERED = 1 << 14  # messages of one long random run; a few MB


class Signature(NamedTuple):
    """`vs` is `s` with the parity of `v - 27` in its top bit."""

    r: bytes
    vs: bytes


NONE = Signature(ZERO_WORD, ZERO_WORD)


@functools.lru_cache(maxsize=REMEMBERED)
def hashed(message: Message) -> bytes:
    return struct_hash(message)


def digest(domain: Domain, message: Message) -> bytes:
    return keccak(b"\x19\x01" + domain.separator + hashed(message))


@functools.lru_cache(maxsize=REMEMBERED)
def recovered(signed: bytes, r: bytes, vs: bytes) -> bytes:
    """The address that signed, or the zero address where no key gives this signature (a high `s` is none)."""
    number = int.from_bytes(vs, "big")
    s = (number & ((1 << 255) - 1)).to_bytes(32, "big")
    try:
        return keys.recover(signed, r + s + bytes([27 + (number >> 255)]))
    except ValueError:
        return ZERO_ADDRESS


def says(who: bytes, signed: bytes, signature: Signature, caller: bytes) -> bool:
    """Whether `who` stands behind `signed`: it calls itself, whatever signature comes along, or it signed."""
    return who != ZERO_ADDRESS and (caller == who or recovered(signed, *signature) == who)
