"""Content ids: BLAKE3 for blobs and units. (keccak only where a contract must check; that lives in the ledger.)"""

from __future__ import annotations

from typing import NewType

from blake3 import blake3

BlobId = NewType("BlobId", bytes)  # 32 bytes
UnitId = NewType("UnitId", bytes)  # 32 bytes
SeatId = NewType("SeatId", bytes)  # 32 bytes, EIP-712 digest of the Lease
JobId = NewType("JobId", bytes)  # 32 bytes, see tallymesh_ledger.jobs

ZERO32 = bytes(32)


def blob_id(data: bytes | memoryview) -> BlobId:
    return BlobId(blake3(data).digest())


def short(value: bytes) -> str:
    """The first four bytes in hex: enough for a person to tell two apart in a log."""
    return value[:4].hex()
