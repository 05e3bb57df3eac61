"""What `scripts/gpu_check` trains: alone in its file, as what is beside it travels with it."""

from __future__ import annotations

from typing import Any

import torch


def model() -> torch.nn.Module:
    """Convolution, normalisation, dropout: what is hardest to repeat on a card."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.GELU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(16 * 14 * 14, 10),
    )


def loss(net: torch.nn.Module, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(net(batch[0]), batch[1])
