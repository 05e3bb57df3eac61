"""Bytes of the signed messages: the msgpack array ``[type, version, fields, signature]``, canonical and bounded.

Integers over 64 bits travel as 32 big-endian bytes, one way everywhere. Decoding gives a message or `RemoteError`,
whatever the bytes are. This module does not check signatures.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

import msgspec

from tallymesh import messages, schema
from tallymesh.errors import RemoteError

MAX_MESSAGE_BYTES = 2048  # the largest (Order) is about 700 bytes; anything bigger is not one of ours
SIGNATURE_BYTES = 65  # r, s, v of secp256k1

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()

M = TypeVar("M", bound=schema.Message)


class Signed(msgspec.Struct, frozen=True):
    """A message with its signature, as it travels; `body` is the exact bytes."""

    message: Any
    signature: bytes
    body: bytes


def encode(message: schema.Message, signature: bytes) -> bytes:
    """Canonical bytes. Raises ValueError where a field does not fit its type."""
    schema.check(message)
    assert len(signature) == SIGNATURE_BYTES
    values = [_to_wire(getattr(message, name), abi) for name, abi in schema.fields(type(message))]
    return _encoder.encode([type(message).TYPE, type(message).VERSION, values, signature])


def signed(message: schema.Message, signature: bytes) -> Signed:
    return Signed(message, signature, encode(message, signature))


def decode(data: bytes, expected: type[M], *, peer: str = "") -> Signed:
    """The message in `data`, which must be of type `expected`; RemoteError (naming `peer`) for anything else."""

    def refuse(sentence: str) -> NoReturn:
        raise RemoteError("bad_message", f"{expected.__name__}: {sentence}", peer=peer)

    if len(data) > MAX_MESSAGE_BYTES:
        refuse(f"{len(data)} bytes are more than the {MAX_MESSAGE_BYTES} allowed")
    try:
        raw = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse(f"not msgpack: {error}")
    if not (isinstance(raw, list) and len(raw) == 4 and type(raw[0]) is int and type(raw[1]) is int):
        refuse("not [type, version, fields, signature]")
    kind, version, values, signature = raw
    if messages.BY_TYPE.get(kind) is not expected:
        refuse(f"type {kind} is not {expected.TYPE}")
    if version != expected.VERSION:
        refuse(f"version {version} is not {expected.VERSION}")
    wanted = schema.fields(expected)
    if not isinstance(values, list) or len(values) != len(wanted):
        refuse(f"expected {len(wanted)} fields")
    if type(signature) is not bytes or len(signature) != SIGNATURE_BYTES:
        refuse(f"a signature has {SIGNATURE_BYTES} bytes")
    try:
        message = expected(**{name: _from_wire(v, abi) for (name, abi), v in zip(wanted, values, strict=True)})
        canonical = encode(message, signature)
    except (ValueError, TypeError, UnicodeEncodeError) as error:
        refuse(str(error))
    if canonical != data:
        refuse("not in canonical form")
    return Signed(message, signature, data)


def _to_wire(value: Any, abi: schema.Abi) -> Any:
    return value.to_bytes(32, "big") if abi.bits > 64 else value


def _from_wire(value: Any, abi: schema.Abi) -> Any:
    if abi.bits > 64:
        if type(value) is not bytes or len(value) != 32:
            raise ValueError(f"{abi.name} travels as 32 bytes")
        return int.from_bytes(value, "big")
    return value
