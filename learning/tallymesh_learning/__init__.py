"""Training: unit runner, numeric profile, canary, algorithms, local backend. The only package that imports torch.

Its public classes are loaded when they are first used: most of the package, and the node's daemon, need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallymesh_learning.data import Shard
    from tallymesh_learning.federated import (
        ClientContext,
        ClientTrainer,
        ServerAggregator,
        ServerContext,
        Update,
        Weights,
    )

__all__ = ["ClientContext", "ClientTrainer", "ServerAggregator", "ServerContext", "Shard", "Update", "Weights"]

_WHERE = dict.fromkeys(__all__, "tallymesh_learning.federated")


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'tallymesh_learning' has no attribute {name!r}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
