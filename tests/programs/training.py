"""Programs that tests send through the runner: models, losses, functions, and the plain loop they are compared to."""

from __future__ import annotations

import sys
from typing import Any

import numpy
import torch
from torch import nn

import tallymesh


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def restless() -> nn.Module:
    """Everything that has a state or draws numbers: batch normalisation, dropout, a buffer that is not saved."""
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    net.register_buffer("noise", torch.randn(3), persistent=False)
    return net


def convolutions() -> nn.Module:
    """Buffers that training changes, and a layer that does not learn."""
    net = nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    net[1].bias.requires_grad_(False)
    return net


class Recurrent(nn.Module):
    """A GRU over the six numbers of an example."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(1, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x.unsqueeze(2))[0][:, -1])


class Tied(nn.Module):
    """Two names for one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)))


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def noisy(batch: Any) -> Any:
    """A random transform of what is trained on."""
    return [batch[0] + 0.5 * torch.randn_like(batch[0]), batch[1]]


def noisy_loss(net: nn.Module, batch: Any) -> torch.Tensor:
    """The same inside the loss."""
    return cross_entropy(net, noisy(batch) if net.training else batch)


def dict_loss(net: nn.Module, batch: Any) -> torch.Tensor:
    weights = torch.tensor([float(len(text)) for text in batch["text"]])
    return (nn.functional.cross_entropy(net(batch["x"]), batch["y"], reduction="none") * weights).mean()


def looking(net: nn.Module, batch: Any) -> torch.Tensor:
    value = cross_entropy(net, batch)
    return value if value.item() < 100 else value / 2


def outside(net: nn.Module, batch: Any) -> torch.Tensor:
    """Random numbers of which torch knows nothing."""
    return cross_entropy(net, batch) * (0.5 + numpy.random.rand())


def exploding(net: nn.Module, batch: Any) -> torch.Tensor:
    return net(batch[0]).sum() * float("inf")


def not_scalar(net: nn.Module, batch: Any) -> torch.Tensor:
    return net(batch[0])


def broken(net: nn.Module, batch: Any) -> torch.Tensor:
    return net(batch[7])


def not_a_model() -> int:
    return 3


def lazy() -> nn.Module:
    return nn.LazyLinear(3)


# Map functions


def square(item: Any, scale: float = 1.0) -> Any:
    print("squaring", item)
    print("no end", end="")
    tallymesh.log(item=item, half=item / 2)
    return {"value": item * item * scale}


def numbers(item: Any) -> Any:
    """What reseeding must fix: every generator, and the order of a set."""
    import random

    return [random.random(), float(numpy.random.rand()), float(torch.rand(())), list({"a", "b", "c", str(item)})]


def arrays(item: Any) -> Any:
    return {"sum": item.sum(), "tensor": torch.from_numpy(item) * 2}


def raises(item: Any) -> Any:
    return _deeper(item)


def _deeper(item: Any) -> Any:
    raise ValueError(f"cannot use {item}")


def leaves(item: Any) -> Any:
    sys.exit(3)


def returns_object(item: Any) -> Any:
    return {"a": object()}


def dies(item: Any) -> Any:
    import os

    os.kill(os.getpid(), 9)


def writes_bytes(item: Any = None) -> None:
    sys.stdout.buffer.write("half a char: ü".encode()[:-1])
    sys.stdout.buffer.write("ü".encode()[-1:] + b"; broken: \xff\n")
    sys.stdout.write(f"a lone surrogate: \udc80 in {sys.stdout.encoding}\n")
    sys.stdout.flush()


def talks(item: Any) -> Any:
    print("x" * 9000)
    sys.stderr.write("to stderr\n")
    return len(sys.argv)


def canary(item: Any) -> Any:
    from tallymesh_learning.runtime import canary as runtime_canary

    return runtime_canary.measure().numeric_class


# Written without the runtime's training code: what it must agree with, bit for bit.


def plain_federated(item: Any) -> Any:
    """FedAvg as one would write it down, with the order of reduction of the specification: `shards` by content id,
    added pairwise in float64. Returns the final state dict."""
    from tallymesh.plan import derive_seed

    seed, batch, lr = item["seed"], item["batch"], item["lr"]
    torch.manual_seed(derive_seed(seed, "model"))
    net = mlp()
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for round_index in range(item["rounds"]):
        updates = []
        for index, (x, y) in enumerate(item["shards"]):
            net.load_state_dict(weights)
            optimizer = torch.optim.SGD(net.parameters(), lr=lr)
            unit_seed = derive_seed(seed, "client", round_index, index)
            for epoch in range(item["epochs"]):
                generator = torch.Generator().manual_seed(derive_seed(unit_seed, "order", epoch))
                order = torch.randperm(len(x), generator=generator)
                pieces = list(order.split(batch))
                if len(pieces) > 1 and len(pieces[-1]) == 1:
                    last = pieces.pop()
                    pieces[-1] = torch.cat([pieces[-1], last])
                for rows in pieces:
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                    optimizer.step()
            updates.append(({name: tensor.clone() for name, tensor in net.state_dict().items()}, len(x)))
        total = sum(count for _, count in updates)

        def reduce(name: str, some: list[Any]) -> torch.Tensor:
            if len(some) == 1:
                return some[0][0][name].double() * some[0][1]
            half = len(some) // 2
            return reduce(name, some[:half]) + reduce(name, some[half:])

        weights = {name: (reduce(name, updates) / total).float() for name in weights}
    return dict(weights)
