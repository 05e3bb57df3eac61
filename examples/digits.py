"""A model, a loss and data of one's own: an MLP on scikit-learn's digits, a fixed fifth held out."""

import torch

ROUNDS = 12
LOCAL = {"epochs": 3, "batch": 16, "optimizer": "sgd", "lr": 0.05, "momentum": 0.9}


def model():
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def loss(net, batch):
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])


def train_set():
    features, labels, held_out = _digits()
    return torch.utils.data.TensorDataset(features[~held_out], labels[~held_out])


def test_set():
    features, labels, held_out = _digits()
    return torch.utils.data.TensorDataset(features[held_out], labels[held_out])


def _digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    features = torch.tensor(data.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(data.target, dtype=torch.int64)
    return features, labels, torch.arange(len(labels)) % 5 == 0
