"""A regression in double precision over numpy arrays, each site with data of its own ("natural")."""

import numpy as np
import torch

import tallymesh

TRUTH = np.array([1.5, -2.0, 0.5])


def site(number):
    random = np.random.default_rng(number)
    x = random.normal(size=(20 + number, 3))
    return x, x @ TRUTH + 0.7


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int32))
        self.bias = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.calls += 1
        return x @ self.weight + self.bias


def loss(net, batch):
    x, y = batch
    return ((net(x) - y) ** 2).mean()


if __name__ == "__main__":
    job = tallymesh.train(
        Line,
        loss,
        [site(1), site(2), site(3)],
        test=site(4),
        partition="natural",
        clients=3,
        rounds=6,
        local={"epochs": 5, "batch": 8, "lr": 0.1},
        budget="1",
    )
    net = job.wait(progress=False).result.load()
    print(net.weight.dtype, np.round(net.weight.detach().numpy(), 2).tolist(), round(net.bias.item(), 2))
