"""Bodies of requests as hostile peers make them out of good ones: cut, stretched, changed; and each signed message in
them signed by somebody else, for another network, in another form, or with another word in each field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fakes.chain import DOMAINS
from hostile.inputs import NASTY
from hostile.targets import bodies
from tallymesh import messages, schema, wire
from tallymesh.errors import RemoteError
from tallymesh_ledger import keys
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey

ELSEWHERE = Domains(
    msgspec.structs.replace(DOMAINS.registry, chain_id=999_999),
    msgspec.structs.replace(DOMAINS.escrow, chain_id=999_999),
)
NOBODY = AccountKey(b"\x77" * 32)
FLIPS = 12  # places of a body in which one byte is changed
_HALF_ORDER_TWICE = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

Variant = tuple[str, bytes]


def bent(body: bytes) -> Iterator[Variant]:
    """Changes of the bytes alone."""
    yield "empty", b""
    yield "half", body[: len(body) // 2]
    yield "all but the last byte", body[:-1]
    yield "one byte more", body + b"\x00"
    yield "twice", body + body
    yield "over the limit", bytes(1 << 20)
    for place in range(FLIPS):
        at = place * len(body) // FLIPS
        if at < len(body):
            yield f"byte {at} changed", body[:at] + bytes([body[at] ^ 0x55]) + body[at + 1 :]
    for number, nasty in enumerate(NASTY):
        yield f"nasty {number}", nasty


def forged(name: str, body: bytes, known: Mapping[bytes, AccountKey]) -> Iterator[Variant]:
    """Every signed message in it, signed by nobody of the job, for another network, or in a second form."""
    for field, signed in _signed(name, body):
        for kind, made in _forms(signed, _signer(signed, known)):
            yield f"{field}: {kind}", _with(name, body, field, made)


def lied(name: str, body: bytes, known: Mapping[bytes, AccountKey]) -> Iterator[Variant]:
    """Every field of every signed message in it, replaced and signed again by who signed it."""
    for field, signed in _signed(name, body):
        signer = _signer(signed, known)
        if signer is None:
            continue
        for part, abi in schema.fields(type(signed.message)):
            for number, value in enumerate(_others(abi)):
                lie = msgspec.structs.replace(signed.message, **{part: value})
                yield f"{field}.{part} {number}", _with(name, body, field, signer.sign(DOMAINS, lie).body)


def unsigned_lies(name: str, body: bytes) -> Iterator[Variant]:
    """Every plain field of the body itself at its extremes."""
    kind = _kind(name)
    for place in range(len(kind.__struct_fields__)):
        yield from unsigned_lies_of(body, place)


def unsigned_lies_of(body: bytes, place: int) -> Iterator[Variant]:
    """One plain field of a body at its extremes."""
    good = msgspec.msgpack.decode(body)
    for number, value in enumerate((0, -1, 2**63 - 1, "", "x" * 5000, b"", bytes(32), [], {}, None, 1e308)):
        yield f"field {place} {number}", msgspec.msgpack.encode([*good[:place], value, *good[place + 1 :]])


def _signer(signed: wire.Signed, known: Mapping[bytes, AccountKey]) -> AccountKey | None:
    return known.get(keys.recover(DOMAINS.digest(signed.message), signed.signature))


def _kind(name: str) -> Any:
    return next(kind for kind in bodies().values() if getattr(kind, "NAME", "") == name)


def _signed(name: str, body: bytes) -> Iterator[tuple[str, wire.Signed]]:
    request = msgspec.msgpack.decode(body, type=_kind(name))
    for field in type(request).__struct_fields__:
        data = getattr(request, field)
        if type(data) is not bytes:
            continue
        for kind in messages.ALL:
            try:
                yield field, wire.decode(data, kind)
            except RemoteError:
                continue


def _with(name: str, body: bytes, field: str, data: bytes) -> bytes:
    request = msgspec.msgpack.decode(body, type=_kind(name))
    return msgspec.msgpack.encode(msgspec.structs.replace(request, **{field: data}))


def _forms(signed: wire.Signed, signer: AccountKey | None) -> Iterator[Variant]:
    message, signature = signed.message, signed.signature
    yield "signed by somebody else", NOBODY.sign(DOMAINS, message).body
    if signer is not None:
        yield "signed for another network", signer.sign(ELSEWHERE, message).body
    yield "no signature", wire.encode(message, bytes(65))
    high = _HALF_ORDER_TWICE - int.from_bytes(signature[32:64], "big")
    flipped = signature[:32] + high.to_bytes(32, "big") + bytes([55 - signature[64]])
    yield "the signature's twin", wire.encode(message, flipped)
    plain = msgspec.msgpack.decode(signed.body)
    yield "another version", msgspec.msgpack.encode([plain[0], plain[1] + 1, *plain[2:]])
    yield "a field too many", msgspec.msgpack.encode([plain[0], plain[1], [*plain[2], 0], plain[3]])
    yield "a field too few", msgspec.msgpack.encode([plain[0], plain[1], plain[2][:-1], plain[3]])
    yield "in a second form", b"\xdc\x00\x04" + signed.body[1:]
    for kind in messages.ALL:
        if kind is not type(message):
            yield f"a {kind.__name__} in its place", msgspec.msgpack.encode([kind.TYPE, *plain[1:]])


def _others(abi: schema.Abi) -> list[Any]:
    if abi.bits:
        return [0, 1, (1 << abi.bits) - 1]
    plain: dict[str, list[Any]] = {
        "bool": [True, False],
        "string": ["", "\x1b[2J" * 50, "/ip4/1.2.3.4/tcp/0"],
        "address": [bytes(20), b"\xff" * 20],
        "bytes32": [bytes(32), b"\xff" * 32],
    }
    return plain[abi.name]
