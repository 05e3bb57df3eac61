"""Tallymesh: train and map on other people's machines, with the work checked.

Names are loaded when they are first used: a program that only logs a metric inside a sandbox pays for nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tallymesh.errors import CallerError, ChainError, LocalError, RemoteError, TallymeshError
from tallymesh.logs import log

if TYPE_CHECKING:
    from tallymesh.api import Require
    from tallymesh.client.discover import connect
    from tallymesh.client.job import Job
    from tallymesh.client.later import deploy, private
    from tallymesh.client.result import Result
    from tallymesh.client.submit import attach, map, train

__version__ = "0.1.0"
__all__ = [
    "CallerError",
    "ChainError",
    "Job",
    "LocalError",
    "RemoteError",
    "Require",
    "Result",
    "TallymeshError",
    "__version__",
    "attach",
    "connect",
    "deploy",
    "log",
    "map",
    "private",
    "train",
]

_WHERE = {
    "Job": "tallymesh.client.job",
    "Require": "tallymesh.api",
    "Result": "tallymesh.client.result",
    "attach": "tallymesh.client.submit",
    "connect": "tallymesh.client.discover",
    "deploy": "tallymesh.client.later",
    "map": "tallymesh.client.submit",
    "private": "tallymesh.client.later",
    "train": "tallymesh.client.submit",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'tallymesh' has no attribute {name!r}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
