"""The two halves of a federated round as classes that a program may replace: what a participant does, what is done with
what all of them made.

They are FedML's two abstractions (He et al., "FedML: A Research Library and Benchmark for Federated Machine Learning",
2020) over units: an object lives for one unit and sees nothing but its inputs, so that anybody can run the unit again
and gets the same bits. The classes as they stand are local SGD and weighted averaging (McMahan et al.,
"Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017), which plain training runs, too. This
module does not know units, files or messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, final

import torch

from tallymesh import logs
from tallymesh.plan import derive_seed
from tallymesh_learning import data as shards
from tallymesh_learning import options, tensors, training
from tallymesh_learning.data import Shard
from tallymesh_learning.runtime import numeric

Weights: TypeAlias = Mapping[str, torch.Tensor]
"""Parameters and persistent buffers under the names of `model.state_dict()`, with its shapes and dtypes."""


class Update(NamedTuple):
    """What one participant made of the model in a round: its weights, and how many examples stand behind them."""

    weights: Weights
    examples: int


class Watcher(Protocol):
    """Follows a participant's steps from outside."""

    def lost(self, loss: float) -> None: ...

    def stepped(self, state: Callable[[], tensors.Tensors]) -> None: ...


@final
class ClientContext:
    """What `ClientTrainer.train` is told beside model and data. The same unit is told the same on every machine.

    `round` counts from 1; `seed` (64 bits) is the unit's, another one for each participant and round, and `generator`
    is seeded by it; `local` is what the job's ``local=`` says (epochs, batch in examples, lr, …); `device` is where
    units compute; `loss` and `prepare` (None where there is none) are the job's functions.
    """

    def __init__(
        self,
        *,
        round: int,
        seed: int,
        local: options.Local,
        loss: training.Loss,
        prepare: training.Prepare | None,
        model: torch.nn.Module,
        watcher: Watcher,
        limit: int = 0,
    ) -> None:
        self.round = round
        self.seed = seed
        self.local = local
        self.loss = loss
        self.prepare = prepare
        self.device = numeric.device()
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "client"))
        self._model = model
        self._watcher = watcher
        self._limit = limit

    def __repr__(self) -> str:
        return f"<ClientContext round={self.round} seed={self.seed} {self.local}>"

    def steps(self, data: Shard) -> int:
        """How many batches `batches(data)` gives: those of `local.epochs` passes."""
        total = self.local.epochs * options.steps_per_epoch(len(data), self.local.batch)
        return min(total, self._limit) if self._limit else total

    def batches(self, data: Shard) -> Iterator[Any]:
        """The batches of plain training, in its order: `local.epochs` passes, each in a permutation drawn from the
        seed, and `prepare` applied. Every generator (torch, numpy, random) is seeded anew before each of them, so that
        random numbers that are drawn in a step follow from the unit alone."""
        spans = shards.spans(len(data), self.local.batch)
        rows: list[int] = []
        for step in range(self.steps(data)):
            epoch, position = divmod(step, len(spans))
            if not position:
                rows = shards.order(len(data), self.seed, epoch)
            start, end = spans[position]
            numeric.reseed(self.seed, "step", step)
            batch = data.batch(rows[start:end])
            yield training.to_device(batch if self.prepare is None else self.prepare(batch))
            self._watcher.stepped(lambda: training.model_tensors(self._model))

    def report(self, loss: torch.Tensor | float) -> None:
        """The loss of a step: it is shown live, and its mean over the last pass is the unit's ``loss``.

        Where it is no finite scalar the unit fails as the program's fault."""
        where = "that was reported"
        self._watcher.lost(
            training.check_number(loss, where) if isinstance(loss, float) else training.check_loss(loss, where)
        )

    def stepped(self, state: Callable[[], tensors.Tensors]) -> None:
        """A step was made without `batches`; `state()` gives named tensors of all that it left. An auditor proves by
        them that it computed the unit itself: a loop that says nothing is checked by its result alone."""
        self._watcher.stepped(state)

    def log(self, **values: float) -> None:
        """`tallymesh.log`: numbers under names, live."""
        logs.log(**values)


@final
class ServerContext:
    """What `ServerAggregator.aggregate` is told beside the updates.

    `round` counts from 1; `weights` are those that the round started from; `seed` and `generator` follow from the
    unit; `memory` holds named tensors from round to round (a momentum, say): what is in it afterwards is there in the
    next round, on whichever machine that is. Nothing else survives: attributes of the object do not."""

    def __init__(self, *, round: int, seed: int, weights: Weights, memory: Mapping[str, torch.Tensor]) -> None:
        self.round = round
        self.seed = seed
        self.weights = weights
        self.memory: dict[str, torch.Tensor] = dict(memory)
        self.device = torch.device("cpu")
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "server"))

    def __repr__(self) -> str:
        return f"<ServerContext round={self.round} {len(self.weights)} tensors>"

    def log(self, **values: float) -> None:
        """`tallymesh.log`: numbers under names, live."""
        logs.log(**values)


class ClientTrainer:
    """A participant's work in a round. Subclass it in your own module and pass the class: ``train(…, trainer=Mine)``.

    It is made without arguments, once a unit. A subclass may call ``super().train(model, data, ctx)``.
    """

    def train(self, model: torch.nn.Module, data: Shard, ctx: ClientContext) -> tuple[Weights, int]:
        """Train `model`, which holds the round's weights and is in training mode, on `data`, a Dataset of the
        participant's examples; return weights and the number of examples that stand behind them (1 to ``len(data)``).

        The weights have the names, shapes and dtypes of ``model.state_dict()`` and are finite: anything else fails the
        unit as the program's fault. It may use nothing but its arguments (no files, no clock, no network), for
        others compute it again and have to get the same bits.

        As it stands: `ctx.local.epochs` passes of the optimizer that `ctx.local` names, started anew in each round.
        """
        work = training.Trainer(model, ctx.local, ctx.loss, data, seed=ctx.seed, prepare=ctx.prepare)
        for loss in work.run(ctx.steps(data), ctx.local.epochs * work.steps_per_epoch):
            ctx.report(loss)
            ctx.stepped(work.state)
        return model.state_dict(), len(data)


class ServerAggregator:
    """What is made of a round's updates. Subclass it in your own module and pass the class: ``train(…,
    aggregator=Mine)``.

    It is made without arguments, once a round. A subclass may call ``super().aggregate(updates, ctx)``.
    """

    def aggregate(self, updates: Sequence[Update], ctx: ServerContext) -> Weights:
        """The next weights, with the names, shapes and dtypes of `ctx.weights`, finite: anything else fails the unit
        as the program's fault.

        `updates` come in one order wherever the unit runs, that of the content ids of the participants' shards: whoever
        adds them up in that order gets the same bits. Their tensors are read when they are asked for, so that the
        updates of many participants need not fit into memory together.

        As it stands: the mean weighted by numbers of examples, added pairwise in float64 and rounded once.
        """
        counts = [update.examples for update in updates]
        return {name: average([update.weights[name] for update in updates], counts) for name in sorted(ctx.weights)}


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
