"""As in every tutorial: the model is made first and handed over."""

import torch
from torch import nn

import tallymesh

net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
criterion = nn.CrossEntropyLoss()
data = torch.utils.data.TensorDataset(torch.randn(60, 4), torch.randint(0, 3, (60,)))
job = tallymesh.train(net, criterion, data, budget="1")
