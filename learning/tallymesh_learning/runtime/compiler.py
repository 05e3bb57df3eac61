"""Leaves torch's compiler on disk until somebody compiles.

Making an optimizer and `torch.use_deterministic_algorithms` import torch._dynamo and torch._inductor, which import
sympy and 800 more modules: a second of CPU and 100 MiB in every template, for units that compile nothing. All that
eager code asks of the compiler is that it stays out of the way. A stand-in says so until anything else is asked for;
then it gives way to the real module, for good. What eager code computes does not depend on it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

import torch

NAME: Final = "torch._dynamo"


class _Later(ModuleType):
    """Answers the two requests of eager code; `__getattr__` is asked for everything else."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.marked: list[Any] = []

    def disable(self, fn: Any = None, *_: Any, **__: Any) -> Any:
        """As `torch._dynamo.disable(fn)`: nothing is compiled, so `fn` is not either. `torch._disable_dynamo` keeps
        the answer with the function; it is taken back when the compiler comes."""
        self.marked.append(fn)
        return fn

    def graph_break(self, *_: Any, **__: Any) -> None:
        """There is no graph."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_load(), name)


_later: _Later | None = None


def postpone() -> None:
    """Put the stand-in into the place of the compiler, unless that was imported before. Idempotent."""
    global _later
    if NAME not in sys.modules:
        _later = _Later()
        sys.modules[NAME] = torch._dynamo = _later


def deterministic() -> None:
    """As ``torch.use_deterministic_algorithms(True)``; the compiler is told when it comes."""
    if _later is None:
        torch.use_deterministic_algorithms(True)
    else:
        torch._C._set_deterministic_algorithms(True, warn_only=False)


def _load() -> ModuleType:
    global _later
    if _later is not None:
        later, _later = _later, None
        for fn in later.marked:
            del fn.__dynamo_disable
        del sys.modules[NAME]
        import_module(NAME)  # also sets torch's own attribute
        if torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(True)
    return sys.modules[NAME]
