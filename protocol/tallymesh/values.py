"""One canonical byte form for what goes into and comes out of a function: JSON values, bytes, numpy and torch data.

msgpack with sorted keys and three extension types; the same value gives the same bytes on every machine, so it can be
named by its content. Decoding arbitrary bytes gives a value or RemoteError. numpy and torch are imported only where
a value of theirs is met. Tuples become lists, as in JSON. This module does not know what the values mean.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from tallymesh.errors import CallerError, LocalError, RemoteError

MAX_VALUE_BYTES: Final = 512 * 1024 * 1024  # what a unit may put out (Limits.output_mib)
MAX_DEPTH: Final = 64  # nesting; far under what Python's recursion allows, so that no input can exhaust the stack
MAX_ITEMS: Final = 4_000_000  # elements outside arrays: one byte of msgpack can cost 64 bytes as a Python object
UNSCANNED_BYTES: Final = MAX_ITEMS  # shorter data cannot hold more elements, so it is not counted first
MAX_DIMENSIONS: Final = 32  # of an array

ARRAY: Final = 1
TENSOR: Final = 2
SCALAR: Final = 3  # a numpy scalar: np.float32(1) is neither a float nor a 0-dim array

# name on the wire -> bytes per element. Little-endian, C order. bfloat16 exists in torch alone.
DTYPES: Final = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder()
# An extension's payload is decoded by itself; its shape and dtype are checked by hand.
_payload_decoder = msgspec.msgpack.Decoder(tuple[str, tuple[int, ...], bytes])


def encode(value: Any, *, what: str = "value") -> bytes:
    """Canonical bytes of `value`. CallerError where something in it has no canonical form; `what` names it then."""
    data = _encoder.encode(_to_wire(value, what, 0))
    if len(data) > MAX_VALUE_BYTES:
        raise CallerError("too_large", f"The {what} has {len(data)} bytes, over the limit of {MAX_VALUE_BYTES}.")
    return data


def decode(data: bytes, *, peer: str = "") -> Any:
    """The value in `data`, or RemoteError (naming `peer`); LocalError where it holds tensors and torch is missing.

    Arrays are copies and can be written to.
    """
    if len(data) > MAX_VALUE_BYTES:
        raise RemoteError("too_large", f"A value of {len(data)} bytes is over the limit.", peer=peer)
    try:
        if len(data) > UNSCANNED_BYTES:
            _count(data)
        raw = _decoder.decode(data)
        canonical = _encoder.encode(raw)
        if canonical != data:
            raise ValueError("not in canonical form")
        return _from_wire(raw, 0)
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteError("bad_value", f"Not a value: {error}", peer=peer) from None


def is_data(value: Any) -> bool:
    """Whether `value` comes back from `decode(encode(value))` with the very same types: what may be captured."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes):
        return kind is not int or -(1 << 63) <= value < 1 << 64
    if kind is list:
        return all(map(is_data, value))
    if kind is dict:
        return all(type(key) is str and is_data(item) for key, item in value.items())
    if _module(kind) == "numpy":
        return (_is_array(kind) or _is_scalar(value)) and str(value.dtype) in DTYPES
    return _is_tensor(value) and type(value).__name__ == "Tensor" and not value.requires_grad


def _to_wire(value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise CallerError("not_a_value", f"The {where} is nested more than {MAX_DEPTH} deep.", remedy="Flatten it.")
    kind = type(value)
    if value is None or kind in (bool, bytes):
        return value
    if kind is str:
        return _text(value, where)
    if kind is int:
        if not -(1 << 63) <= value < 1 << 64:
            raise CallerError("not_a_value", f"The {where} is a whole number over 64 bits.", remedy="Pass it as text.")
        return value
    if kind is float:
        return math.nan if math.isnan(value) else value  # one bit pattern for every NaN
    if kind in (list, tuple):
        return [_to_wire(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise CallerError(
                    "not_a_value", f"The {where} has a key {key!r} that is not text.", remedy="Use str(key)."
                )
            _text(key, where)
        return {key: _to_wire(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if _module(kind) == "numpy" and (_is_array(kind) or _is_scalar(value)):
        return _from_numpy(value, where)
    if _is_tensor(value):
        return _from_tensor(value, where)
    raise CallerError(
        "not_a_value",
        f"The {where} is a {kind.__module__}.{kind.__qualname__}, which has no canonical bytes.",
        remedy=_instead(value)
        + "Values are JSON, bytes, numpy arrays or torch tensors, nested in lists and dicts with text keys.",
    )


def _instead(value: Any) -> str:
    """What to write for the kinds that people return most often."""
    kind = type(value)
    if isinstance(value, dict):
        return "Use dict(value). "  # a Counter, a defaultdict: what comes back would be a plain dict in silence
    if isinstance(value, (set, frozenset)):
        return "Use sorted(value): two processes give the items of a set in two orders. "
    if isinstance(value, complex):
        return "Use [value.real, value.imag]. "
    if hasattr(kind, "__dataclass_fields__"):
        return "Use dataclasses.asdict(value). "
    if hasattr(value, "isoformat"):
        return "Use value.isoformat(). "
    if hasattr(kind, "__members__"):
        return "Use value.name. "
    return "Use list(value). " if hasattr(value, "__iter__") else ""


def _from_wire(raw: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(raw, list):
        return [_from_wire(item, depth + 1) for item in raw]
    if isinstance(raw, dict):
        if any(type(key) is not str for key in raw):
            raise ValueError("a key is not text")
        return {key: _from_wire(item, depth + 1) for key, item in raw.items()}
    if isinstance(raw, msgspec.msgpack.Ext):
        return _extension(raw.code, bytes(raw.data))
    if type(raw) is float and math.isnan(raw):
        return math.nan
    if raw is None or type(raw) in (bool, int, float, str, bytes):
        return raw
    raise ValueError(f"{type(raw).__name__} is not part of the format")


def _count(data: bytes) -> None:
    """Walk over msgpack without building it; ValueError beyond MAX_ITEMS. Wrong data is left to the decoder."""
    at, left, seen, end = 0, 1, 0, len(data)
    while left and at < end:
        left -= 1
        seen += 1
        if seen > MAX_ITEMS:
            raise ValueError(f"more than {MAX_ITEMS} elements")
        head = data[at]
        at += 1
        if head < 0x80 or head >= 0xE0 or head in (0xC0, 0xC2, 0xC3):
            continue
        if head < 0xA0:  # fixmap, fixarray
            left += (head & 15) * (2 if head < 0x90 else 1)
        elif head < 0xC0:
            at += head & 31
        elif head in _FIXED:
            at += _FIXED[head]
        elif head in _SIZED:
            width, kind = _SIZED[head]
            size = int.from_bytes(data[at : at + width], "big")
            at += width
            if kind == "items":
                left += size
            elif kind == "pairs":
                left += 2 * size
            else:
                at += size + (kind == "ext")
        else:
            return


# head byte -> bytes that follow; and head byte -> (width of the size, what the size counts)
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_SIZED = {0xC4: (1, "bytes"), 0xC5: (2, "bytes"), 0xC6: (4, "bytes"), 0xD9: (1, "bytes"), 0xDA: (2, "bytes")}
_SIZED |= {0xDB: (4, "bytes"), 0xC7: (1, "ext"), 0xC8: (2, "ext"), 0xC9: (4, "ext")}
_SIZED |= {0xDC: (2, "items"), 0xDD: (4, "items"), 0xDE: (2, "pairs"), 0xDF: (4, "pairs")}


def _extension(code: int, payload: bytes) -> Any:
    if code not in (ARRAY, TENSOR, SCALAR):
        raise ValueError(f"extension {code} is unknown")
    dtype, shape, body = _payload_decoder.decode(payload)
    if _encoder.encode((dtype, shape, body)) != payload:
        raise ValueError("an array is not in canonical form")
    if dtype not in DTYPES or (dtype == "bfloat16" and code != TENSOR):
        raise ValueError(f"dtype {dtype!r} is unknown")
    if len(shape) > MAX_DIMENSIONS or any(not 0 <= size < 1 << 62 for size in shape) or (code == SCALAR and shape):
        raise ValueError("an array has an impossible shape")
    if math.prod(shape) * DTYPES[dtype] != len(body):
        raise ValueError("an array's bytes do not fill its shape")
    if 0 in shape and math.prod(size for size in shape if size) >= 1 << 62:
        raise ValueError("an empty array has an impossible shape")
    if dtype == "bool" and body.strip(b"\x00\x01"):
        raise ValueError("a boolean is neither 0 nor 1")
    return _tensor(dtype, shape, body) if code == TENSOR else _array(dtype, shape, body, scalar=code == SCALAR)


def _array(dtype: str, shape: tuple[int, ...], body: bytes, *, scalar: bool) -> Any:
    numpy = _import("numpy")
    array = numpy.frombuffer(bytearray(body), dtype=numpy.dtype(dtype).newbyteorder("<")).reshape(shape)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array[()] if scalar else array


def _tensor(dtype: str, shape: tuple[int, ...], body: bytes) -> Any:
    torch = _import("torch")
    if not body:
        return torch.empty(shape, dtype=getattr(torch, dtype))
    return torch.frombuffer(bytearray(body), dtype=torch.uint8).view(getattr(torch, dtype)).reshape(shape)


def _from_numpy(value: Any, where: str) -> msgspec.msgpack.Ext:
    name = str(value.dtype.newbyteorder("="))
    if name not in DTYPES:
        raise CallerError(
            "not_a_value", f"The {where} is a numpy array of {value.dtype}.", remedy="Use a numeric or boolean dtype."
        )
    little = value.astype(value.dtype.newbyteorder("<"), order="C", copy=False)
    scalar = not _is_array(type(value))
    return msgspec.msgpack.Ext(
        SCALAR if scalar else ARRAY, _encoder.encode((name, tuple(value.shape), little.tobytes(order="C")))
    )


def _from_tensor(value: Any, where: str) -> msgspec.msgpack.Ext:
    torch = _import("torch")
    name = str(value.dtype).removeprefix("torch.")
    if name not in DTYPES or value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
        raise CallerError(
            "not_a_value",
            f"The {where} is a tensor of {value.dtype} with layout {value.layout}.",
            remedy="Use a dense tensor of a numeric or boolean dtype.",
        )
    assert sys.byteorder == "little", "tensors are copied as they lie in memory"
    flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    body = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return msgspec.msgpack.Ext(TENSOR, _encoder.encode((name, tuple(value.shape), body)))


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CallerError(
            "not_a_value", f"The {where} holds text that is not Unicode.", remedy="Pass it as bytes."
        ) from None
    return value


def _module(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _is_array(kind: type) -> bool:
    return kind.__name__ == "ndarray"


def _is_scalar(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # a tensor cannot exist before torch is imported
    return torch is not None and isinstance(value, torch.Tensor)


def _import(name: str) -> Any:
    with _missing(name):
        return __import__(name)


@contextmanager
def _missing(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise LocalError(
            f"no_{name}",
            f"This value holds {name} data, and {name} is not installed here.",
            remedy=f"pip install {name}",
        ) from None
