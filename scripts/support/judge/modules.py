"""The model's modules, as they are or with one of them changed: loaded again, beside those that are in use."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from tallymesh_ledger import model

PACKAGE = model.__name__
FOLDER = Path(model.__path__[0])


class Modules(msgspec.Struct, frozen=True):
    """What a run needs of the model."""

    World: Any
    Machine: Any
    Revert: Any


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name.startswith(f"{PACKAGE}.") and name.rpartition(".")[2] in self._sources:
            return importlib.util.spec_from_loader(name, self)
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = self._sources[module.__name__.rpartition(".")[2]]
        exec(compile(source, f"<changed {module.__name__}>", "exec"), module.__dict__)


def load(sources: Mapping[str, str] | None = None) -> Modules:
    """The model with `sources` (module name -> text) in place of its own files."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(f"{PACKAGE}.")}
    finder = _Changed(sources or {})
    sys.meta_path.insert(0, finder)
    try:
        world, machine = (importlib.import_module(f"{PACKAGE}.{name}") for name in ("world", "machine"))
        return Modules(world.World, machine.Machine, machine.Revert)
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
        sys.modules.update(kept)
