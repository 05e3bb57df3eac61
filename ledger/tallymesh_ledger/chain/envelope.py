"""The bytes of a signed transaction: type 2 (EIP-1559), or a legacy one (EIP-155) for chains without a base fee.

Signed by `AccountKey`, which does not give its secret away; eth-account is the judge in the tests.
"""

from __future__ import annotations

import msgspec
import rlp

from tallymesh_ledger.eip712 import keccak
from tallymesh_ledger.keys import AccountKey


class Fees(msgspec.Struct, frozen=True):
    """Wei per gas: at most `max_fee`, of which `tip` goes to the miner; `legacy` where the chain has no base fee."""

    max_fee: int
    tip: int
    legacy: bool = False


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction before it is signed. `to` is empty where a contract is created."""

    chain_id: int
    nonce: int
    gas: int
    fees: Fees
    to: bytes
    data: bytes = b""
    value: int = 0


class Envelope(msgspec.Struct, frozen=True):
    """A signed transaction: what is sent, and the hash by which everybody knows it."""

    raw: bytes
    hash: bytes


def sign(key: AccountKey, plain: Plain, *, salt: bytes = b"") -> Envelope:
    """The same bytes each time; others with another `salt` of 32 bytes."""
    fees = plain.fees
    if fees.legacy:
        common = [plain.nonce, fees.max_fee, plain.gas, plain.to, plain.value, plain.data]
        r, s, parity = _signature(key, rlp.encode([*common, plain.chain_id, 0, 0]), salt)
        raw = bytes(rlp.encode([*common, 35 + 2 * plain.chain_id + parity, r, s]))
    else:
        fields = [
            plain.chain_id, plain.nonce, fees.tip, fees.max_fee, plain.gas, plain.to, plain.value, plain.data, [],
        ]  # fmt: skip
        r, s, parity = _signature(key, b"\x02" + rlp.encode(fields), salt)
        raw = b"\x02" + bytes(rlp.encode([*fields, parity, r, s]))
    return Envelope(raw, keccak(raw))


def parse(raw: bytes) -> Plain:
    """What `sign` signed: a kept envelope says all that is needed to replace it. ValueError for other bytes."""
    try:
        if raw[:1] == b"\x02":
            chain_id, nonce, tip, max_fee, gas, to, value, data = rlp.decode(raw[1:])[:8]
            fees = Fees(_int(max_fee), _int(tip))
        else:
            nonce, price, gas, to, value, data, v = rlp.decode(raw)[:7]
            chain_id, fees = ((_int(v) - 35) // 2).to_bytes(8, "big"), Fees(_int(price), _int(price), legacy=True)
    except (rlp.DecodingError, ValueError, TypeError, OverflowError):
        raise ValueError("these are not the bytes of a transaction") from None
    return Plain(
        chain_id=_int(chain_id), nonce=_int(nonce), gas=_int(gas), fees=fees, to=to, data=data, value=_int(value)
    )


def _int(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _signature(key: AccountKey, payload: bytes, salt: bytes) -> tuple[int, int, int]:
    signature = key.sign_digest(keccak(payload), salt=salt)
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64] - 27


def contract_address(creator: bytes, nonce: int) -> bytes:
    """Where a contract made by that transaction will be: known before, so that contracts can name each other."""
    return keccak(bytes(rlp.encode([creator, nonce])))[12:]
