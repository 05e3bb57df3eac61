"""Targets that need torch: model states, shards and configs of training steps. Apart, because torch takes seconds to
import and the node's processes never do."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hostile.targets import Target


@cache
def _state() -> bytes:
    import torch

    from tallymesh_learning import tensors

    return tensors.encode({"model.w": torch.ones(2, 3), "step": torch.tensor(1)})


def _shards() -> list[bytes]:
    import torch

    from tallymesh_learning import data

    return [
        data.encode(data.Shard({"0": torch.ones(2, 3), "1": torch.tensor([0, 1])})),
        data.encode(data.Shard({"item": ["a", "b"]})),
    ]


def _tensors(blob: bytes) -> object:
    from tallymesh_learning import tensors

    try:
        return tensors.decode(blob)
    except tensors.BadTensors:
        return None


def _tensors_in_a_file(blob: bytes) -> object:
    from tallymesh_learning import tensors

    with TemporaryDirectory(prefix="tallymesh-hostile-") as folder:
        path = Path(folder) / "state"
        path.write_bytes(blob)
        try:
            opened = tensors.open_file(path)
            return [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118 - safetensors' own
        except tensors.BadTensors:
            return None


def _shard(blob: bytes) -> object:
    from tallymesh_learning import data, tensors

    try:
        return data.decode(blob)
    except tensors.BadTensors:
        return None


def _config(blob: bytes) -> object:
    from tallymesh_learning import options

    return options.decode(blob)


def _aggregation(blob: bytes) -> object:
    from tallymesh_learning import options

    return options.decode_aggregation(blob)


def _configs() -> list[bytes]:
    from tallymesh_learning import options

    return [options.encode(options.Config(model="m:model", loss="m:loss"))]


STATES: dict[str, Target] = {
    "tensors": Target(_tensors, lambda: [_state()], ()),
    "tensors in a file": Target(_tensors_in_a_file, lambda: [_state()], ()),
    "shard": Target(_shard, _shards, ()),
    "config of a step": Target(_config, _configs, (ValueError,)),
    "config of an aggregation": Target(_aggregation, lambda: [b"{}", b'{"aggregator":"m:Mine"}'], (ValueError,)),
}
