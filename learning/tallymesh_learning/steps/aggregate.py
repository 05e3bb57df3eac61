"""A round's updates become the next global model, as a unit of its own, bit for bit the same everywhere.

Floating-point addition depends on its order, so the order is fixed: participants by the content id of their shard,
added pairwise in float64, rounded once at the end. However messages arrive, there is one hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch

from tallymesh_learning import options, tensors, training
from tallymesh_learning.federated import ServerAggregator, ServerContext, Update
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import Result, UnitFailure, Work
from tallymesh_learning.steps import replaced
from tallymesh_learning.steps.client import EXAMPLES

PREFIX: Final = "update/"  # of the inputs' names; the shard's content id in hex follows
MEMORY: Final = "server."  # of the names in a state of what an aggregator keeps from round to round
MAX_EXAMPLES: Final = 1 << 28  # of one update: float32 times this is exact in float64


def run(work: Work) -> Result:
    """Inputs: ``state``, ``update/<shard>`` for each participant. Config: maybe `aggregator`. Output: the next state.

    FedAvg is `ServerAggregator` as it stands. Updates are read tensor by tensor: they need not fit into memory
    together."""
    with work.timed("load"):
        try:
            config = options.decode_aggregation(work.unit.config)
        except ValueError as error:
            raise UnitFailure("inputs", f"The config cannot be read: {error}") from None
        state = training.decode_state(work.input("state"), "state")
        wanted = {name: tensor for name, tensor in state.items() if name.startswith(training.MODEL)}
        updates = _updates(work, wanted)
    with work.timed("import"):
        kind = replaced.find(config.aggregator, ServerAggregator)
    with work.timed("compute"):
        done = training.place(state)[0] if training.STEP in state else 0
        ctx = ServerContext(
            round=done + 1,
            seed=work.unit.seed,
            weights={name.removeprefix(training.MODEL): tensor for name, tensor in wanted.items()},
            memory={name.removeprefix(MEMORY): each for name, each in state.items() if name.startswith(MEMORY)},
        )
        numeric.reseed(work.unit.seed, "aggregate")
        returned = kind().aggregate(updates, ctx)
    with work.timed("save"):
        after, memory = replaced.state(kind, returned, wanted, ctx.memory)
        after |= {MEMORY + name: tensor for name, tensor in memory.items()}
        after[training.STEP] = torch.tensor(done + 1, dtype=torch.int64)
        metrics = {"clients": float(len(updates)), EXAMPLES: float(sum(update.examples for update in updates))}
        return Result(training.encode_state(after), metrics)


def _updates(work: Work, wanted: tensors.Tensors) -> list[Update]:
    named = sorted((item.name, item.blob) for item in work.unit.inputs if item.name.startswith(PREFIX))
    if not named:
        raise UnitFailure("inputs", "There is no update to aggregate.")
    updates = []
    for name, blob in named:
        try:
            reader = tensors.open_file(work.path(blob))
        except tensors.BadTensors as error:
            raise UnitFailure("inputs", f"An update cannot be read: {error}") from None
        updates.append(Update(_Weights(reader, wanted, name), _examples(reader, sorted(wanted), name)))
    return updates


class _Weights(Mapping[str, torch.Tensor]):
    """An update's weights, each read and looked at when it is asked for."""

    def __init__(self, reader: Any, wanted: tensors.Tensors, update: str) -> None:
        self._reader = reader
        self._wanted = {name.removeprefix(training.MODEL): tensor for name, tensor in wanted.items()}
        self._update = update

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[str]:
        return iter(self._wanted)

    def __getitem__(self, name: str) -> torch.Tensor:
        wanted = self._wanted[name]
        key = training.MODEL + name
        tensor: torch.Tensor = self._reader.get_tensor(key)
        wrong = tensors.same_form({key: tensor}, {key: wanted}) or (
            tensors.first_not_finite({key: tensor}) and f"{key} holds NaN or infinity"
        )
        if wrong:
            raise UnitFailure("inputs", f"{self._update}: {wrong}.")
        return tensor


def _examples(reader: Any, names: list[str], update: str) -> int:
    if sorted(reader.keys()) != sorted([*names, EXAMPLES]):
        raise UnitFailure("inputs", f"{update} does not hold the tensors of this model.")
    count = reader.get_tensor(EXAMPLES)
    if count.dtype != torch.int64 or count.dim() or not 1 <= int(count) <= MAX_EXAMPLES:
        raise UnitFailure("inputs", f"{update} claims an impossible number of examples.")
    return int(count)
