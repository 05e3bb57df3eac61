"""Account keys: sign a digest, recover who signed one. coincurve underneath (20,000/s a core, 20 times the pure one).

Signatures are 65 bytes r || s || v with low s and v 27 or 28, the one form that OpenZeppelin's ECDSA accepts.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import TypeVar

import coincurve
from coincurve._libsecp256k1 import ffi  # what `custom_nonce` is made of; coincurve gives it no other name

from tallymesh import wire
from tallymesh.errors import RemoteError
from tallymesh.schema import Message
from tallymesh.wire import Signed
from tallymesh_ledger.eip712 import Domains, keccak

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
M = TypeVar("M", bound=Message)


def address_of(public_key: coincurve.PublicKey) -> bytes:
    return keccak(public_key.format(compressed=False)[1:])[12:]


@lru_cache(maxsize=4096)  # of a process's peers and contracts: each message names some of them
def checksum(address: bytes) -> str:
    """EIP-55 hex of a 20-byte address."""
    plain = address.hex()
    nibbles = keccak(plain.encode()).hex()
    return "0x" + "".join(c.upper() if int(n, 16) >= 8 else c for c, n in zip(plain, nibbles, strict=False))


class AccountKey:
    """A secp256k1 key. Its repr shows the address and never the secret."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        self._key = coincurve.PrivateKey(secret)
        self.address = address_of(self._key.public_key)

    @classmethod
    def generate(cls) -> AccountKey:
        return cls(secrets.token_bytes(32))

    @property
    def secret(self) -> bytes:
        return bytes(self._key.secret)

    def __repr__(self) -> str:
        return f"<AccountKey {checksum(self.address)}>"

    def sign_digest(self, digest: bytes, *, salt: bytes = b"") -> bytes:
        """Low s. Deterministic (RFC 6979); `salt`, of 32 bytes or none, goes into it as its section 3.6 has it, and
        gives another signature that is as good."""
        assert len(salt) in (0, 32), "libsecp256k1 reads 32 bytes"
        extra = ffi.from_buffer(salt) if salt else ffi.NULL
        raw: bytes = self._key.sign_recoverable(digest, hasher=None, custom_nonce=(ffi.NULL, extra))
        return raw[:64] + bytes([27 + raw[64]])

    def sign(self, domains: Domains, message: Message) -> Signed:
        return wire.signed(message, self.sign_digest(domains.digest(message)))


def recover(digest: bytes, signature: bytes) -> bytes:
    """Address that signed `digest`. ValueError for anything that is not a canonical signature."""
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise ValueError("not a 65-byte signature with v 27 or 28")
    if int.from_bytes(signature[32:64], "big") > _ORDER // 2:
        raise ValueError("s is high: the signature is malleable")
    raw = signature[:64] + bytes([signature[64] - 27])
    try:
        return address_of(coincurve.PublicKey.from_signature_and_message(raw, digest, hasher=None))
    except Exception as error:  # coincurve raises bare Exception for r, s outside the curve
        raise ValueError(f"no key gives this signature: {error}") from None


def check(domains: Domains, signed: Signed, account: bytes, *, peer: str = "") -> None:
    """RemoteError `bad_signature` unless `account` signed the message on this network."""
    name = type(signed.message).__name__
    try:
        found = recover(domains.digest(signed.message), signed.signature)
    except ValueError as error:
        raise RemoteError("bad_signature", f"{name}: {error}.", peer=peer) from None
    if found != account:
        raise RemoteError(
            "bad_signature",
            f"{name} is not signed by {checksum(account)} on this network (by {checksum(found)}, or for another one).",
            peer=peer,
        )


def open_signed(domains: Domains, data: bytes, expected: type[M], account: bytes, *, peer: str = "") -> Signed:
    """Decode and check in one step: the message of type `expected` signed by `account`, or RemoteError."""
    signed = wire.decode(data, expected, peer=peer)
    check(domains, signed, account, peer=peer)
    return signed
