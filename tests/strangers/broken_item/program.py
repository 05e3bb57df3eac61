"""The data set fails at one item, far into reading it."""

import json

import torch
from torch.utils.data import Dataset

import tallymesh

LINES = ['{"x": [1, 2], "y": 0}'] * 40 + ['{"x": [1, 2], "y": 0'] + ['{"x": [1, 2], "y": 1}'] * 9


class Lines(Dataset):
    def __len__(self):
        return len(LINES)

    def __getitem__(self, index):
        row = json.loads(LINES[index])
        return torch.tensor(row["x"], dtype=torch.float32), row["y"]


def loss(net, batch):
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])


def model():
    return torch.nn.Linear(2, 2)


tallymesh.train(model, loss, Lines(), rounds=1, clients=2, budget="1")
