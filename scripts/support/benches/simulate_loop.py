"""What bar 7 compares with: logistic regression on digits, and federated averaging as anybody would write it down.

The loop is a map unit, so that it runs in a process like that of the units beside it: one thread, the same numeric
profile. Nothing of the product's training code is in it."""

from __future__ import annotations

import time
from typing import Any

import torch

LR, BATCH = 0.1, 32


def model() -> torch.nn.Module:
    return torch.nn.Linear(64, 10)


def loss(net: torch.nn.Module, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])


def plain(item: Any) -> list[float]:
    """Seconds of each of `rounds` rounds over the clients' `shards`, one pass each, metrics of `test` measured."""
    torch.manual_seed(0)
    net = model()
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    seconds = []
    for _ in range(item["rounds"]):
        began = time.perf_counter()
        total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        count = 0
        for x, y in item["shards"]:
            net.load_state_dict(weights)
            optimizer = torch.optim.SGD(net.parameters(), lr=LR)
            for rows in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                loss(net, [x[rows], y[rows]]).backward()
                optimizer.step()
            for name, tensor in net.state_dict().items():
                total[name] += len(x) * tensor
            count += len(x)
        weights = {name: tensor / count for name, tensor in total.items()}
        net.load_state_dict(weights)
        with torch.no_grad():
            x, y = item["test"]
            answers = net(x)
            torch.nn.functional.cross_entropy(answers, y).item()
            (answers.argmax(1) == y).sum().item()
        seconds.append(time.perf_counter() - began)
    return seconds
