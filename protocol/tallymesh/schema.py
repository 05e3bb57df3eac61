"""The one schema of the signed messages: which field has which ABI type.

EIP-712 type strings, the wire codec, the Solidity library and the golden vectors are all derived from the
annotations made here; nothing else in the project spells a message's fields out a second time.
This module does not know signatures, keys or any particular message.
"""

from __future__ import annotations

import functools
import typing
from typing import Annotated, Any, ClassVar

import msgspec

MAX_TEXT_BYTES = 240  # longest `string` field of a signed message: an offer must stay under 512 bytes as a whole


class Abi:
    """Marks a field with its ABI type (``uint96``, ``bytes32``, ``address``, ``bool``, ``string``)."""

    __slots__ = ("bits", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.bits = int(name[4:]) if name.startswith("uint") else 0

    def __repr__(self) -> str:
        return f"Abi({self.name!r})"


U8 = Annotated[int, Abi("uint8")]
U16 = Annotated[int, Abi("uint16")]
U32 = Annotated[int, Abi("uint32")]
U40 = Annotated[int, Abi("uint40")]
U64 = Annotated[int, Abi("uint64")]
U96 = Annotated[int, Abi("uint96")]  # wei: 79 billion tokens of 18 decimals
U256 = Annotated[int, Abi("uint256")]
Bytes32 = Annotated[bytes, Abi("bytes32")]
Address = Annotated[bytes, Abi("address")]  # 20 bytes; people see it as EIP-55 hex
Flag = Annotated[bool, Abi("bool")]
Text = Annotated[str, Abi("string")]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every signed message. Subclasses are EIP-712 structs; field order is the order of the type string."""

    TYPE: ClassVar[int]  # number on the wire, never reused
    VERSION: ClassVar[int] = 1
    DOMAIN: ClassVar[str]  # "registry" or "escrow": whose EIP-712 domain the message belongs to


@functools.cache
def fields(message_type: type[Message]) -> tuple[tuple[str, Abi], ...]:
    """(field name in snake_case, ABI type) in order."""
    hints = typing.get_type_hints(message_type, include_extras=True)
    result = []
    for name in message_type.__struct_fields__:
        marks = [mark for mark in typing.get_args(hints[name])[1:] if isinstance(mark, Abi)]
        assert len(marks) == 1, f"{message_type.__name__}.{name} needs exactly one ABI type"
        result.append((name, marks[0]))
    return tuple(result)


def camel(name: str) -> str:
    """``seat_by`` -> ``seatBy``: Solidity's spelling of a field."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


@functools.cache
def type_string(message_type: type[Message]) -> str:
    """EIP-712 `encodeType`, e.g. ``Receipt(bytes32 seat,uint40 position,bytes32 leaf)``."""
    inner = ",".join(f"{abi.name} {camel(name)}" for name, abi in fields(message_type))
    return f"{message_type.__name__}({inner})"


def check(message: Message) -> None:
    """Raise ValueError where a field's value does not fit its ABI type. Decoding and signing both call this."""
    for name, abi in fields(type(message)):
        problem = _problem(getattr(message, name), abi)
        if problem:
            raise ValueError(f"{type(message).__name__}.{name}: {problem}")


def _problem(value: Any, abi: Abi) -> str:
    if abi.bits:
        if not isinstance(value, int) or isinstance(value, bool):  # an IntEnum is a number, a bool is not
            return f"expected an integer, got {type(value).__name__}"
        return "" if 0 <= value < 1 << abi.bits else f"{value} does not fit {abi.name}"
    if abi.name == "bool":
        return "" if type(value) is bool else "expected a boolean"
    if abi.name == "string":
        if type(value) is not str:
            return "expected text"
        return "" if len(value.encode("utf-8", "surrogatepass")) <= MAX_TEXT_BYTES else "text is too long"
    size = 20 if abi.name == "address" else 32
    return "" if type(value) is bytes and len(value) == size else f"expected {size} bytes"
