"""Other creation code in place of the checked-in one, or one module changed, for this process from here on.

The tests themselves do not know. `bytecode` is by contract's name, `sources` are by module's name.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules whose source is given here and not by their files."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name in self._sources else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._sources[module.__name__], f"<changed {module.__name__}>", "exec"), module.__dict__)


def swap(told: Mapping[str, Any]) -> None:
    sources = told.get("sources", {})
    early = [name for name in sources if name in sys.modules]
    assert not early, f"imported before it could be changed: {early}"
    sys.meta_path.insert(0, Changed(sources))
    if told.get("bytecode"):
        from tallymesh_ledger.chain import abi  # only now: it may be what changed

        for name, code in told["bytecode"].items():
            abi.load(name).bytecode = bytes.fromhex(code)
