"""Shards: columns of examples as bytes, and batches from them as a DataLoader would collate them.

An item of a data set is a tensor, a tuple or a dict; each of its parts becomes a column. Columns of numbers are
stored as safetensors named ``item``, ``0``, ``1``, … or ``key.NAME``; where a column is text, all are stored in the
value codec instead. This module does not know models, and not where the data came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import torch

from tallymesh import values
from tallymesh.errors import RemoteError
from tallymesh.plan import derive_seed
from tallymesh_learning import tensors

ITEM: Final = "item"
KEY: Final = "key."
_TEXT_HEAD: Final = b"\x81\xa7columns"  # how canonical msgpack of {"columns": …} begins

Column: TypeAlias = torch.Tensor | list[str]


@dataclass(frozen=True, eq=False)
class Shard:
    """Examples: one column a part, all of one length. Also a map-style Dataset of its items."""

    columns: Mapping[str, Column]

    @cached_property
    def examples(self) -> int:
        return len(next(iter(self.columns.values())))

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, row: int) -> Any:
        """One example as it was read: a tensor, a tuple or a dict of its parts. IndexError after the last."""
        if not -self.examples <= row < self.examples:
            raise IndexError(f"There is no example {row} of {self.examples}.")
        return self.whole({name: column[row] for name, column in self.columns.items()}, tuple)

    def batch(self, rows: Sequence[int]) -> Any:
        """The examples at `rows`: a tensor, a list of columns or a dict of columns, whatever the items were."""
        index = torch.tensor(rows, dtype=torch.int64)
        parts = {
            name: column.index_select(0, index) if isinstance(column, torch.Tensor) else [column[row] for row in rows]
            for name, column in self.columns.items()
        }
        return self.whole(parts, list)

    @staticmethod
    def whole(parts: Mapping[str, Any], kind: type[list[Any]] | type[tuple[Any, ...]]) -> Any:
        """What the parts are parts of: the one of an item, a dict, or a sequence."""
        if ITEM in parts:
            return parts[ITEM]
        if all(name.startswith(KEY) for name in parts):
            return {name.removeprefix(KEY): part for name, part in parts.items()}
        return kind(parts[str(position)] for position in range(len(parts)))

    def select(self, rows: Sequence[int]) -> Shard:
        """A shard of the examples at `rows`, in their order."""
        index = torch.tensor(rows, dtype=torch.int64)
        return Shard(
            {
                name: column.index_select(0, index)
                if isinstance(column, torch.Tensor)
                else [column[row] for row in rows]
                for name, column in self.columns.items()
            }
        )


def encode(shard: Shard) -> bytes:
    """Canonical bytes."""
    numeric = {name: column for name, column in shard.columns.items() if isinstance(column, torch.Tensor)}
    if len(numeric) == len(shard.columns):
        return tensors.encode(numeric)
    return values.encode({"columns": dict(shard.columns)}, what="data")


def decode(data: bytes) -> Shard:
    """The shard in `data`, or BadTensors."""
    columns: Mapping[str, Any]
    if data.startswith(_TEXT_HEAD):
        try:
            columns = values.decode(data)["columns"]
        except (RemoteError, KeyError) as error:
            raise tensors.BadTensors(f"Not a shard: {error}") from None
    else:
        columns = tensors.decode(data)
    _check(columns)
    return Shard(columns)


def _check(columns: Any) -> None:
    if not isinstance(columns, dict) or not columns:
        raise tensors.BadTensors("A shard has at least one column.")
    names = sorted(columns)
    numbered = sorted(str(position) for position in range(len(names)))
    if not (names == [ITEM] or names == numbered or all(name.startswith(KEY) for name in names)):
        raise tensors.BadTensors(f"Columns are named item, 0, 1, … or key.NAME, not {', '.join(names)[:200]}.")
    lengths = set()
    for column in columns.values():
        if isinstance(column, torch.Tensor):
            lengths.add(column.shape[0] if column.dim() else -1)
        elif isinstance(column, list) and all(type(text) is str for text in column):
            lengths.add(len(column))
        else:
            lengths.add(-1)
    if len(lengths) != 1 or min(lengths) < 1:
        raise tensors.BadTensors("The columns of a shard are tensors or texts of one length of at least 1.")


def spans(examples: int, batch: int) -> list[tuple[int, int]]:
    """Where the batches of one pass begin and end. A last batch of one example joins the one before it: batch
    normalisation cannot be trained on one, and dropping it would lose data."""
    starts = list(range(0, examples, batch))
    if batch > 1 and len(starts) > 1 and examples - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], examples], strict=True))


def order(examples: int, seed: int, epoch: int) -> list[int]:
    """The permutation in which pass number `epoch` goes through the data: from the seed alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    rows: list[int] = torch.randperm(examples, generator=generator).tolist()
    return rows
