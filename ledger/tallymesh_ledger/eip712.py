"""EIP-712 digests of the signed messages, derived from their schema (https://eips.ethereum.org/EIPS/eip-712).

This module knows no keys and no chain; it turns a message and a domain into 32 bytes.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from Crypto.Hash import keccak as _keccak

from tallymesh import schema
from tallymesh.network import Network
from tallymesh.schema import Message

WORD = 32


def keccak(data: bytes) -> bytes:
    """keccak-256, the hash that contracts use."""
    return _keccak.new(digest_bits=256, data=data).digest()


def word(value: int | bytes | bool) -> bytes:
    """One ABI word: integers and booleans big-endian, bytes32 as they are, addresses left-padded."""
    if isinstance(value, bytes):
        return value.rjust(WORD, b"\0") if len(value) == 20 else value
    return int(value).to_bytes(WORD, "big")


class Domain(msgspec.Struct, frozen=True):
    """EIP-712 domain of one contract: name, version "1", chain id, address (20 bytes)."""

    name: str
    chain_id: int
    contract: bytes

    @property
    def separator(self) -> bytes:
        return _separator(self)


_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


@functools.lru_cache(maxsize=64)  # a handful of networks at most
def _separator(domain: Domain) -> bytes:
    parts = (
        keccak(_DOMAIN_TYPE),
        keccak(domain.name.encode()),
        keccak(b"1"),
        word(domain.chain_id),
        word(domain.contract),
    )
    return keccak(b"".join(parts))


class Domains(msgspec.Struct, frozen=True):
    """The domains of one network; a message type says which one it belongs to."""

    registry: Domain
    escrow: Domain

    @classmethod
    def of(cls, network: Network) -> Domains:
        contracts = network.contracts
        return cls(
            Domain("Tallymesh Registry", network.chain_id, bytes.fromhex(contracts.registry[2:])),
            Domain("Tallymesh JobEscrow", network.chain_id, bytes.fromhex(contracts.escrow[2:])),
        )

    def digest(self, message: Message) -> bytes:
        """What is signed: keccak(0x1901 || domain separator || struct hash)."""
        domain = self.registry if message.DOMAIN == "registry" else self.escrow
        return keccak(b"\x19\x01" + domain.separator + struct_hash(message))


@functools.cache
def type_hash(message_type: type[Message]) -> bytes:
    return keccak(schema.type_string(message_type).encode())


def struct_hash(message: Message) -> bytes:
    """EIP-712 `hashStruct`. Raises ValueError where a field does not fit its type."""
    schema.check(message)
    parts = [type_hash(type(message))]
    parts += [_encode(getattr(message, name), abi.name) for name, abi in schema.fields(type(message))]
    return keccak(b"".join(parts))


def _encode(value: Any, abi: str) -> bytes:
    return keccak(value.encode()) if abi == "string" else word(value)
