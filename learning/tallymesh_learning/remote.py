"""A training's data by URL: files of arrays or of items, read in the child that reads every data set."""

from __future__ import annotations

import io
from typing import Any

import numpy
import safetensors.torch
import torch

from tallymesh import urls
from tallymesh.errors import CallerError


def data(url: str) -> Any:
    """What a URL holds: columns (.npz, .safetensors), or items (.jsonl; their lists of numbers are tensors)."""
    items: list[Any] = []
    columns: dict[str, list[torch.Tensor]] = {}
    for path, content in urls.read(url):
        ending = urls.kind(path)
        if ending == ".jsonl":
            items += [_tensors(item) for item in urls.lines(path, content)]
        elif ending in (".npz", ".safetensors"):
            for name, tensor in _arrays(path, content, ending).items():
                columns.setdefault(f"key.{name}", []).append(tensor)
        else:
            raise CallerError(
                "bad_url",
                f"{path} is none of .npz, .safetensors and .jsonl.",
                remedy="Read it yourself, and pass a Dataset.",
            )
    if items and columns:
        raise CallerError("bad_url", f"{url} names files of arrays and files of items.")
    if not columns:
        if not items:
            raise CallerError("no_data", f"{url} holds no examples.")
        return items
    try:
        whole = {name: torch.cat(parts) for name, parts in sorted(columns.items())}
    except (RuntimeError, TypeError) as error:
        raise CallerError("ragged_data", f"The files of {url} do not fit together: {error}") from None
    if len({len(column) for column in whole.values()}) != 1:
        raise CallerError("ragged_data", f"The arrays of {url} are not of one length.")
    if not len(next(iter(whole.values()))):
        raise CallerError("no_data", f"{url} holds no examples.")
    return whole


def _arrays(path: str, data: bytes, ending: str) -> dict[str, Any]:
    try:
        if ending == ".safetensors":
            found: dict[str, Any] = safetensors.torch.load(data)
        else:
            with numpy.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found = {name: torch.from_numpy(numpy.ascontiguousarray(arrays[name])) for name in arrays.files}
    except Exception as error:  # of zipfile, numpy, safetensors and torch
        raise CallerError("bad_url", f"{path} cannot be read: {type(error).__name__}: {error}") from None
    if not found or not all(tensor.dim() for tensor in found.values()):
        raise CallerError("bad_url", f"{path} holds no arrays of examples.")
    return found


def _tensors(item: Any) -> Any:
    """JSON has no arrays: a list inside an item is one."""

    def part(value: Any) -> Any:
        try:
            return torch.tensor(value) if isinstance(value, list) else value
        except (TypeError, ValueError) as error:
            raise CallerError("bad_item", f"A list in the data is no array of numbers: {error}") from None

    if isinstance(item, dict):
        return {name: part(value) for name, value in item.items()}
    return [part(value) for value in item] if isinstance(item, list) else item
