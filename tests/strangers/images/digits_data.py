"""Reads the data on my side: this file uses scikit-learn, which workers do not have."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset


class Digits(Dataset):
    def __init__(self, held_out):
        digits = load_digits()
        mine = (np.arange(len(digits.target)) % 6 == 0) == held_out
        self.images = (digits.images[mine] * 15).astype(np.uint8)
        self.labels = digits.target[mine]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": torch.from_numpy(self.images[index])[None], "label": int(self.labels[index])}
