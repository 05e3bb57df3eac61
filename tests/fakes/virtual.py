"""All trio tests of a folder under a virtual clock that jumps over idle time; and salts that are no chance."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing


def run(function: Any, clock: trio.abc.Clock | None = None, **options: Any) -> Any:
    return trio.run(function, clock=clock or trio.testing.MockClock(autojump_threshold=0), **options)


def use_virtual_time(items: Iterable[pytest.Item], folder: Path) -> None:
    """To be called from a conftest's `pytest_collection_modifyitems`."""
    for item in items:
        if folder in item.path.parents and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run))


def count_salts(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """The module's random bytes are 1, 2, 3, …: job ids follow from salts, and every draw from job ids."""
    numbers = itertools.count(1)
    monkeypatch.setattr(module.secrets, "token_bytes", lambda size: next(numbers).to_bytes(size, "big"))
