"""Many participants of a round as one computation: their weights are stacked, and each step is made for all of them
whose next batch has as many examples (torch.func: functional_call, vmap).

It follows the loop (training.py) step by step: the same seeds, data order, batches and learning rates, SGD as
torch.optim writes it. Only the sums inside are added in another order, so that weights differ by rounding: measured,
no client of eight had the loop's bits. `TOLERANCE` is asserted by whoever uses this. It does not know rounds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from tallymesh_learning import data, tensors, training
from tallymesh_learning.options import Local
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import UnitFailure

TOLERANCE: Final = 1e-5  # of the difference from the loop, over the length of all weights
MAX_TOGETHER: Final = 512  # clients: more of them gain nothing, their tensors have outgrown the processor's caches
STACKED_BYTES: Final = 512 << 20  # of weights, gradients and momentum of clients that are computed together
_COPIES: Final = 4  # of a model that a client needs: weights, gradients, momentum, the next weights
REMEDY: Final = "leave out batched=True, and the clients are computed one by one"

_NO_RULE: Final = re.compile(r"Batching rule not implemented for ([\w:.]+[\w])")

Stacks = dict[str, torch.Tensor]
"""Tensors under the names of a state dict, with one more dimension before theirs: the clients."""


class Cohort:
    """A model, its loss, and the shards of all participants. UnitFailure ``program`` where they cannot be stacked."""

    def __init__(
        self,
        net: torch.nn.Module,
        local: Local,
        loss: training.Loss,
        shards: Sequence[data.Shard],
        *,
        prepare: training.Prepare | None = None,
        limit: int = 0,
    ) -> None:
        self.net = net
        self._local = local
        self._loss = loss
        self._prepare = prepare
        self._shards = shards
        self._limit = limit
        whole = _Whole(net, loss)
        self._whole = whole
        self._free = {name: each.detach() for name, each in whole.named_parameters() if each.requires_grad}
        self._fixed = {name: each.detach() for name, each in whole.named_parameters() if not each.requires_grad}
        self._buffers = dict(whole.named_buffers())
        if not self._free:
            training.make_optimizer(net, local)  # it says what is wrong
        self._names = _names(whole)
        self._columns = _joined(shards)
        self._offsets = [0]
        for shard in shards:
            self._offsets.append(self._offsets[-1] + shard.examples)
        size = sum(each.numel() * each.element_size() for each in self._free.values())
        self.together = max(1, min(MAX_TOGETHER, STACKED_BYTES // max(1, _COPIES * size)))

    def train(self, indices: Sequence[int], seeds: Sequence[int]) -> Stacks:
        """What the shards at `indices` make of the net's weights, each under its seed, in their order."""
        self._whole.train()
        places = [
            _Place(self._shards[index], seed, self._local, self._limit)
            for index, seed in zip(indices, seeds, strict=True)
        ]
        stacks = {name: _stacked(each, len(places)) for name, each in {**self._free, **self._buffers}.items()}
        speeds = {name: torch.zeros_like(stacks[name]) for name in self._free} if self._local.momentum else {}
        while open_ := [number for number, place in enumerate(places) if place.step < place.until]:
            sizes = Counter(places[number].size for number in open_)
            size = max(sizes, key=lambda each: (sizes[each], each))
            members = [number for number in open_ if places[number].size == size]
            self._step(members, [places[number] for number in members], indices, stacks, speeds)
        return {
            name: stacks[key] if key in stacks else _stacked(self._fixed[key], len(places))
            for name, key in self._names.items()
        }

    def _step(
        self, members: list[int], places: Sequence[_Place], indices: Sequence[int], stacks: Stacks, speeds: Stacks
    ) -> None:
        every = len(members) == len(indices)
        rows = slice(None) if every else torch.tensor(members)
        free = {name: stacks[name][rows] for name in self._free}
        buffers = {name: stacks[name][rows] for name in self._buffers}
        batch = self._batch([indices[number] for number in members], places)
        found, losses, after = _together(self._one, free, buffers, batch)
        if not bool(torch.isfinite(losses).all()):
            worst = int((~torch.isfinite(losses)).nonzero()[0])
            training.check_number(
                float(losses[worst]), f"at step {places[worst].step + 1} of client {indices[members[worst]]}"
            )
        found = _clipped(found, self._local.clip)
        rates = [self._local.lr_at(place.step, place.total) for place in places]
        for name, gradient in found.items():
            weight = free[name]
            if self._local.weight_decay:
                gradient = gradient.add(weight, alpha=self._local.weight_decay)
            if self._local.momentum:
                speed = speeds[name][rows].mul_(self._local.momentum).add_(gradient)
                speeds[name][rows] = speed
                gradient = gradient.add(speed, alpha=self._local.momentum) if self._local.nesterov else speed
            stacks[name][rows] = _moved(weight, gradient, rates)
        for name, value in after.items():
            stacks[name][rows] = value
        for place in places:
            place.advance()

    def _one(self, free: Stacks, buffers: Stacks, batch: Any) -> tuple[torch.Tensor, Stacks]:
        """Loss of one client, and its buffers afterwards."""
        after = {name: each.clone() for name, each in buffers.items()}  # what is shared may not be written to
        value = functional_call(self._whole, {**free, **self._fixed, **after}, (batch,))
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.is_floating_point():
            training.check_loss(value, "of a step")
        return value.reshape(()), after

    def _batch(self, indices: Sequence[int], places: Sequence[_Place]) -> Any:
        """The next batch of each, stacked."""
        if self._prepare is not None:
            made = []
            for index, place in zip(indices, places, strict=True):
                numeric.reseed(place.seed, "step", place.step)  # the random numbers of the loop
                made.append(self._prepare(self._shards[index].batch(place.rows())))
            return pytree.tree_map(lambda *parts: _same_shape(parts), *made)
        rows = [
            self._offsets[index] + row for index, place in zip(indices, places, strict=True) for row in place.rows()
        ]
        index = torch.tensor(rows)
        shape = (len(indices), len(rows) // len(indices))
        return data.Shard.whole(
            {
                name: each.index_select(0, index).reshape(*shape, *each.shape[1:])
                for name, each in self._columns.items()
            },
            list,
        )


def difference(found: tensors.Tensors, loop: tensors.Tensors) -> float:
    """Length of the difference of all floating tensors over the length of the loop's; infinite where a whole number
    differs."""
    off, length = 0.0, 0.0
    for name, tensor in loop.items():
        if not tensor.is_floating_point():
            if not torch.equal(tensor, found[name]):
                return float("inf")
            continue
        off += float((found[name].double() - tensor.double()).square().sum())
        length += float(tensor.double().square().sum())
    return math.sqrt(off / length if length else off)


class _Whole(torch.nn.Module):  # type: ignore[misc] # torch.func's stubs hide what it is
    """The user's loss as a part of the net, so that one call can be given all tensors."""

    def __init__(self, net: torch.nn.Module, loss: training.Loss) -> None:
        super().__init__()
        self.net = net
        self._loss_of = loss

    def forward(self, batch: Any) -> Any:
        return self._loss_of(self.net, batch)


class _Place:
    """Where a client stands in its data: as `training.Trainer`, without a model."""

    def __init__(self, shard: data.Shard, seed: int, local: Local, limit: int) -> None:
        self.seed = seed
        self.step = 0
        self._examples = shard.examples
        self._spans = data.spans(shard.examples, local.batch)
        self.total = local.epochs * len(self._spans)
        self.until = min(self.total, limit) if limit else self.total
        self._order: list[int] = []

    @property
    def size(self) -> int:
        start, end = self._spans[self.step % len(self._spans)]
        return end - start

    def rows(self) -> list[int]:
        epoch, position = divmod(self.step, len(self._spans))
        if not position:
            self._order = data.order(self._examples, self.seed, epoch)
        start, end = self._spans[position]
        return self._order[start:end]

    def advance(self) -> None:
        self.step += 1


def _together(
    one: Callable[..., Any], free: Stacks, buffers: Stacks, batch: Any
) -> tuple[Stacks, torch.Tensor, Stacks]:
    """Gradients (of weights that the loss uses), losses, and buffers afterwards, a row a client.

    A client's loss knows nothing of the others' weights, so the gradient of the sum is that of each. Plain autograd
    finds it: `torch.func.grad` would import torch's compiler, a second of CPU.
    """
    leaves = {name: each.detach().requires_grad_() for name, each in free.items()}
    try:
        losses, after = vmap(one, in_dims=(0, 0 if buffers else None, 0), randomness="error")(leaves, buffers, batch)
        found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UnitFailure("program", f"{_why(str(error))}: {REMEDY}.").with_traceback(error.__traceback__) from None
    gradients = {name: each for name, each in zip(leaves, found, strict=True) if each is not None}
    return gradients, losses.detach(), {name: each.detach() for name, each in after.items()}


def _why(text: str) -> str:
    head = "Clients cannot be computed together"
    if "random operation" in text:
        return f"{head}: a step draws random numbers (dropout, torch.rand), and each client needs its own"
    if ".item()" in text or "data-dependent" in text:
        return f"{head}: a step takes a value out of a tensor (.item(), if, a loop over it)"
    missing = _NO_RULE.search(text)
    if missing:
        return f"{head}: torch cannot compute {missing[1]} for several clients at once"
    return f"{head}: {text.strip().splitlines()[0][:300].rstrip('.') if text.strip() else 'vmap failed'}"


def _names(whole: _Whole) -> dict[str, str]:
    """Names in a state -> names in the module, of which tied ones have one."""
    own = {id(each): name for name, each in [*whole.named_parameters(), *whole.named_buffers()]}
    return {name: own[id(each)] for name, each in whole.net.state_dict(keep_vars=True).items()}


def _joined(shards: Sequence[data.Shard]) -> Mapping[str, torch.Tensor]:
    columns: dict[str, torch.Tensor] = {}
    for name in shards[0].columns:
        parts = [shard.columns[name] for shard in shards]
        if not all(isinstance(part, torch.Tensor) for part in parts):
            raise UnitFailure("program", f"Clients cannot be computed together: their data holds text: {REMEDY}.")
        columns[name] = torch.cat([part for part in parts if isinstance(part, torch.Tensor)])
    return columns


def _same_shape(parts: Sequence[Any]) -> torch.Tensor:
    if not all(isinstance(part, torch.Tensor) and part.shape == parts[0].shape for part in parts):
        raise UnitFailure(
            "program", f"Clients cannot be computed together: prepare= gives batches of several shapes: {REMEDY}."
        )
    return torch.stack(list(parts))


def _stacked(tensor: torch.Tensor, count: int) -> torch.Tensor:
    return tensor.detach().expand(count, *tensor.shape).clone()


def _clipped(found: Stacks, most: float) -> Stacks:
    """Each client's gradients, as `clip_grad_norm_` clips them."""
    if not most:
        return found
    norms = torch.stack([torch.linalg.vector_norm(each.flatten(1), dim=1) for each in found.values()])
    scale = (most / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    return {name: each * _wide(scale, each) for name, each in found.items()}


def _moved(weight: torch.Tensor, gradient: torch.Tensor, rates: Sequence[float]) -> torch.Tensor:
    if len(set(rates)) == 1:
        return weight.add(gradient, alpha=-rates[0])
    return weight - gradient * _wide(torch.tensor(rates, dtype=gradient.dtype), gradient)


def _wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))
