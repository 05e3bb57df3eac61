"""FedAvg and sequential training as one would write them down, with the order of reduction of docs/PROTOCOL.md: what
network and local backend must agree with, bit for bit. Nothing of the product's training code is in it.

``python -m end_to_end.plain_loop federated FOLDER ROUNDS sequential FOLDER ROUNDS``, in an interpreter that was started
with the numeric profile's environment; each FOLDER holds the shards as safetensors, named by content. `train.model` and
`losses.loss` are the user's. Prints for each the content id of the final checkpoint.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from blake3 import blake3

from tallymesh.plan import derive_seed
from tallymesh_learning import tensors

EPOCHS, BATCH, LR, SEED = 2, 16, 0.1, 0
Weights = dict[str, torch.Tensor]


def batches(rows: torch.Tensor) -> list[torch.Tensor]:
    """A last batch of one example joins the one before it."""
    pieces = list(rows.split(BATCH))
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        last = pieces.pop()
        pieces[-1] = torch.cat([pieces[-1], last])
    return pieces


def epochs(net: torch.nn.Module, loss: Any, shard: Weights, seed: int) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    for epoch in range(EPOCHS):
        generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
        for rows in batches(torch.randperm(len(shard["0"]), generator=generator)):
            optimizer.zero_grad()
            loss(net, [shard["0"][rows], shard["1"][rows]]).backward()
            optimizer.step()


def weights_of(net: torch.nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def average(updates: list[tuple[Weights, int]]) -> Weights:
    """Pairwise in float64, in the order of the shards' content ids, rounded once."""
    total = sum(count for _, count in updates)

    def added(name: str, some: list[tuple[Weights, int]]) -> torch.Tensor:
        if len(some) == 1:
            return some[0][0][name].double() * some[0][1]
        half = len(some) // 2
        return added(name, some[:half]) + added(name, some[half:])

    return {name: (added(name, updates) / total).float() for name in updates[0][0]}


def federated(make: Any, loss: Any, shards: list[Weights], rounds: int) -> dict[str, Any]:
    torch.manual_seed(derive_seed(SEED, "model"))
    net = make()
    weights = weights_of(net)
    for number in range(rounds):
        updates = []
        for index, shard in enumerate(shards):
            net.load_state_dict(weights)
            epochs(net, loss, shard, derive_seed(SEED, "client", number, index))
            updates.append((weights_of(net), len(shard["0"])))
        weights = average(updates)
    return {**{f"model.{name}": tensor for name, tensor in weights.items()}, "step": torch.tensor(rounds)}


def sequential(make: Any, loss: Any, shards: list[Weights], rounds: int) -> dict[str, Any]:
    torch.manual_seed(derive_seed(SEED, "model"))
    net = make()
    (shard,) = shards
    epochs(net, loss, shard, SEED)
    steps = EPOCHS * len(batches(torch.arange(len(shard["0"]))))
    place = {"step": steps, "data.epoch": EPOCHS, "data.position": 0}
    return {
        **{f"model.{name}": tensor for name, tensor in weights_of(net).items()},
        **{name: torch.tensor(number) for name, number in place.items()},
    }


if __name__ == "__main__":
    from losses import loss as users_loss
    from train import model as users_model

    words = iter(sys.argv[1:])
    for kind, folder, count in zip(words, words, words, strict=True):
        found = [safetensors.torch.load_file(path) for path in sorted(Path(folder).iterdir())]
        end = {"federated": federated, "sequential": sequential}[kind](users_model, users_loss, found, int(count))
        print(f"end {blake3(tensors.encode(end)).hexdigest()}", file=sys.__stdout__)
