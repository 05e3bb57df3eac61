"""Data of one's own: scikit-learn's digits as map-style Datasets, a fixed fifth held out."""

import torch
from sklearn.datasets import load_digits

_digits = load_digits()
_features = torch.tensor(_digits.data / 16.0, dtype=torch.float32)
_labels = torch.tensor(_digits.target, dtype=torch.int64)
_held_out = torch.arange(len(_labels)) % 5 == 0

train_set = torch.utils.data.TensorDataset(_features[~_held_out], _labels[~_held_out])
test_set = torch.utils.data.TensorDataset(_features[_held_out], _labels[_held_out])
