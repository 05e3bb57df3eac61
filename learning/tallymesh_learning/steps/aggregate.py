"""FedAvg as a unit of its own: the updates of a round become the next global model, bit for bit the same everywhere.

Floating-point addition depends on its order, so the order is fixed: participants by the content id of their shard,
added pairwise in float64, rounded once at the end. However messages arrive, there is one hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from tallymesh_learning import tensors, training
from tallymesh_learning.runtime.work import Result, UnitFailure, Work
from tallymesh_learning.steps.client import EXAMPLES

PREFIX: Final = "update/"  # of the inputs' names; the shard's content id in hex follows
MAX_EXAMPLES: Final = 1 << 28  # of one update: float32 times this is exact in float64


def run(work: Work) -> Result:
    """Inputs: ``state`` and ``update/<shard>`` for each participant. Output: the next state.

    Updates are read tensor by tensor: they need not fit into memory together."""
    with work.timed("load"):
        state = training.decode_state(work.input("state"), "state")
        named = sorted((item.name, item.blob) for item in work.unit.inputs if item.name.startswith(PREFIX))
        if not named:
            raise UnitFailure("inputs", "There is no update to aggregate.")
        try:
            readers = [tensors.open_file(work.path(blob)) for _, blob in named]
        except tensors.BadTensors as error:
            raise UnitFailure("inputs", f"An update cannot be read: {error}") from None
        names = sorted(name for name in state if name.startswith(training.MODEL))
        counts = [_examples(reader, names, update) for reader, (update, _) in zip(readers, named, strict=True)]
    with work.timed("compute"):
        after = {name: average(_column(readers, named, name, state[name]), counts) for name in names}
        after[training.STEP] = state[training.STEP] + 1 if training.STEP in state else torch.tensor(1)
    with work.timed("save"):
        return Result(training.encode_state(after), {"clients": float(len(named)), EXAMPLES: float(sum(counts))})


def average(column: Sequence[torch.Tensor], counts: Sequence[int]) -> torch.Tensor:
    """Mean of equally shaped tensors weighted by `counts`, in the order given; same dtype as the inputs.

    Whole numbers (a counter of batches) stay as they are where all agree, and are rounded to the nearest otherwise.
    """
    first = column[0]
    if not first.is_floating_point() and all(torch.equal(first, other) for other in column[1:]):
        return first.clone()
    mean = _pairwise(column, counts, 0, len(column)) / float(sum(counts))
    if first.dtype == torch.bool:
        return mean >= 0.5
    return mean.to(first.dtype) if first.is_floating_point() else mean.round().to(first.dtype)


def _pairwise(column: Sequence[torch.Tensor], counts: Sequence[int], start: int, end: int) -> torch.Tensor:
    """Sum of tensor x count over [start, end) by halving: fixed by the number of terms, error of log2(n) steps."""
    if end - start == 1:
        return column[start].to(torch.float64) * float(counts[start])
    middle = (start + end) // 2
    return _pairwise(column, counts, start, middle) + _pairwise(column, counts, middle, end)


def _examples(reader: Any, names: list[str], update: str) -> int:
    if sorted(reader.keys()) != sorted([*names, EXAMPLES]):
        raise UnitFailure("inputs", f"{update} does not hold the tensors of this model.")
    count = reader.get_tensor(EXAMPLES)
    if count.dtype != torch.int64 or count.dim() or not 1 <= int(count) <= MAX_EXAMPLES:
        raise UnitFailure("inputs", f"{update} claims an impossible number of examples.")
    return int(count)


def _column(
    readers: Sequence[Any], named: Sequence[tuple[str, bytes]], name: str, wanted: torch.Tensor
) -> list[torch.Tensor]:
    column = []
    for reader, (update, _) in zip(readers, named, strict=True):
        tensor = reader.get_tensor(name)
        wrong = tensors.same_form({name: tensor}, {name: wanted}) or (
            tensors.first_not_finite({name: tensor}) and f"{name} holds NaN or infinity"
        )
        if wrong:
            raise UnitFailure("inputs", f"{update}: {wrong}.")
        column.append(tensor)
    return column
