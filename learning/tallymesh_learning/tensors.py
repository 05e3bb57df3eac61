"""Named tensors as bytes: safetensors in one canonical form, so that equal tensors have one content id.

The form is the library's own (wider dtypes first, then by name; no metadata); a test compares the two. Reading uses
the library, which checks offsets and shapes. This module does not know what the names mean.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch

Tensors = Mapping[str, torch.Tensor]

MAX_TENSORS: Final = 100_000  # in one blob: its header stays under 20 MB

_NAMES: Final = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# The order of equally wide dtypes is the library's: that of its own list, widest first.
_ORDER: Final = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
_RANK: Final = {name: rank for rank, name in enumerate(_ORDER)}


class BadTensors(ValueError):
    """These bytes are not named tensors, or not the ones that were expected."""


def can_hold(tensor: torch.Tensor) -> bool:
    """Whether the format has a place for such a tensor."""
    return tensor.dtype in _NAMES and tensor.layout is torch.strided


def encode(tensors: Tensors) -> bytes:
    """Canonical safetensors bytes. BadTensors where a dtype has no place in the format."""
    named: list[tuple[str, str, torch.Tensor]] = []
    for name, tensor in tensors.items():
        kind = _NAMES.get(tensor.dtype)
        if kind is None or tensor.layout is not torch.strided:
            raise BadTensors(f"{name} is a {tensor.dtype} tensor with layout {tensor.layout}, which no state can hold.")
        named.append((name, kind, tensor))
    named.sort(key=lambda row: (_RANK[row[1]], row[0]))
    header: dict[str, Any] = {}
    bodies: list[bytes] = []
    at = 0
    for name, kind, tensor in named:
        body = to_bytes(tensor)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + len(body)]}
        bodies.append(body)
        at += len(body)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *bodies])


def decode(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors in `data` (copies), or BadTensors."""
    try:
        found: dict[str, torch.Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise BadTensors(f"Not named tensors: {error}") from None
    # torch may only borrow the buffer that the library made; a state is written to in place.
    return {name: tensor.clone() for name, tensor in found.items()}


def open_file(path: Path) -> Any:
    """A reader of one tensor at a time (`keys()`, `get_tensor(name)`): many states need not fit into memory."""
    try:
        return safetensors.safe_open(path, framework="pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise BadTensors(f"Not named tensors: {error}") from None


def to_bytes(tensor: torch.Tensor) -> bytes:
    """Little-endian elements in C order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def first_not_finite(tensors: Tensors) -> str:
    """Name of a tensor that holds NaN or infinity, or ""."""
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return ""


def same_form(tensors: Tensors, wanted: Tensors) -> str:
    """Why `tensors` do not have the names, dtypes and shapes of `wanted`, or ""."""
    for name in sorted(tensors.keys() ^ wanted.keys()):
        return f"{name} is {'not expected' if name in tensors else 'missing'}"
    for name in sorted(wanted):
        if tensors[name].dtype != wanted[name].dtype or tensors[name].shape != wanted[name].shape:
            return (
                f"{name} is {tensors[name].dtype} {list(tensors[name].shape)}, "
                f"not {wanted[name].dtype} {list(wanted[name].shape)}"
            )
    return ""
