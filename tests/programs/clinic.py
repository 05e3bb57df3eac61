"""A user's own module with its own halves of a federated round: own loops, subclasses that call super(), mistakes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy
import torch

from tallymesh_learning import ClientContext, ClientTrainer, ServerAggregator, ServerContext, Shard, Update, Weights


class Same(ClientTrainer):
    """What plain training does, by way of super()."""

    def train(self, model: torch.nn.Module, data: Shard, ctx: ClientContext) -> tuple[Weights, int]:
        return super().train(model, data, ctx)


class Loop(ClientTrainer):
    """The same, written out."""

    def train(self, model: torch.nn.Module, data: Shard, ctx: ClientContext) -> tuple[Weights, int]:
        optimizer = torch.optim.SGD(model.parameters(), ctx.local.lr)
        for batch in ctx.batches(data):
            optimizer.zero_grad()
            loss = ctx.loss(model, batch)
            loss.backward()
            optimizer.step()
            ctx.report(loss)
        return model.state_dict(), len(data)


class Prox(ClientTrainer):
    """FedProx (Li et al., "Federated Optimization in Heterogeneous Networks", 2020), and what a context has beside."""

    strength = 0.5

    def train(self, model: torch.nn.Module, data: Shard, ctx: ClientContext) -> tuple[Weights, int]:
        start = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), ctx.local.lr)
        for batch in ctx.batches(data):
            optimizer.zero_grad()
            pull = sum(((now - then) ** 2).sum() for now, then in zip(model.parameters(), start, strict=True))
            loss = ctx.loss(model, batch) + self.strength / 2 * pull
            loss.backward()
            optimizer.step()
            ctx.report(loss)
        ctx.log(round=ctx.round, steps=ctx.steps(data), draw=float(torch.rand((), generator=ctx.generator)))
        return dict(model.state_dict()), len(data) - 1


class Noisy(ClientTrainer):
    """Draws from every generator there is."""

    def train(self, model: torch.nn.Module, data: Shard, ctx: ClientContext) -> tuple[Weights, int]:
        weights, count = super().train(model, data, ctx)
        draw = torch.rand((), generator=ctx.generator).item() + random.random() + float(numpy.random.rand())
        return {name: tensor + draw * torch.rand_like(tensor) for name, tensor in weights.items()}, count


class SameMean(ServerAggregator):
    def aggregate(self, updates: Sequence[Update], ctx: ServerContext) -> Weights:
        return super().aggregate(updates, ctx)


class Momentum(ServerAggregator):
    """FedAvgM (Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019)."""

    def aggregate(self, updates: Sequence[Update], ctx: ServerContext) -> Weights:
        mean = super().aggregate(updates, ctx)
        after = {}
        for name, before in ctx.weights.items():
            speed = 0.9 * ctx.memory.get(name, torch.zeros_like(before)) + (mean[name] - before)
            ctx.memory[name] = speed
            after[name] = before + speed
        ctx.log(round=ctx.round, kept=len(ctx.memory))
        return after


class Forgets(ClientTrainer):
    def train(self, model, data, ctx):  # type: ignore[no-untyped-def]
        super().train(model, data, ctx)


class Diverges(ClientTrainer):
    def train(self, model, data, ctx):  # type: ignore[no-untyped-def]
        return {name: tensor * float("inf") for name, tensor in model.state_dict().items()}, len(data)


class Widens(ClientTrainer):
    def train(self, model, data, ctx):  # type: ignore[no-untyped-def]
        return {name: tensor.double() for name, tensor in model.state_dict().items()}, len(data)


class Parameters(ClientTrainer):
    def train(self, model, data, ctx):  # type: ignore[no-untyped-def]
        return list(model.parameters()), len(data)


class Boasts(ClientTrainer):
    def train(self, model, data, ctx):  # type: ignore[no-untyped-def]
        return model.state_dict(), 10 * len(data)


class Raises(ClientTrainer):
    def train(self, model, data, ctx):  # type: ignore[no-untyped-def]
        raise KeyError("the ward is closed")


class Lists(ServerAggregator):
    def aggregate(self, updates, ctx):  # type: ignore[no-untyped-def]
        return [update.weights for update in updates]


class Drops(ServerAggregator):
    def aggregate(self, updates, ctx):  # type: ignore[no-untyped-def]
        return {name: tensor for name, tensor in ctx.weights.items() if "bias" not in name}


class Hoards(ServerAggregator):
    def aggregate(self, updates, ctx):  # type: ignore[no-untyped-def]
        ctx.memory["rounds"] = ctx.round
        return super().aggregate(updates, ctx)


class Picky(ClientTrainer):
    def __init__(self, strength: float) -> None:
        self.strength = strength


class Short(ClientTrainer):
    def train(self, model):  # type: ignore[no-untyped-def, override]
        return model.state_dict(), 1


class Stranger:
    def train(self, model: object, data: object, ctx: object) -> object:
        return model
