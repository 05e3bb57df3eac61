"""The packages of a job while one of its units runs: where ``import`` finds them, and what they cannot replace.

They come after the program's own modules and the base set, and before whatever else this machine has installed: a unit
gives the same everywhere only if it imports the same files everywhere. Their folder was made by unpacking.py; it is
read-only in a sandbox. Nothing in it runs unless it is imported: `site` never sees it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from tallymesh import wheels


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """While open, ``import`` finds what lies in `folder`. Not for two folders at once in one process."""
    finder = _Finder(folder)
    # What the template imported for itself under one of these names is of another version on every machine.
    for name in [name for name in sys.modules if name.partition(".")[0] in finder.tops]:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] in finder.tops]:
            del sys.modules[name]


class _Finder(importlib.abc.MetaPathFinder):
    """Modules at the top of the folder; those below them are found by their package's own path."""

    def __init__(self, folder: Path) -> None:
        self._path = [str(folder)]
        self.tops = frozenset(_tops(folder)) - wheels.RESERVED - sys.stdlib_module_names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.tops:  # of what lies deeper the name has a dot
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, self._path)

    def find_distributions(self, context: Any = None) -> Iterable[metadata.Distribution]:
        """So that a package that asks for its own version is told of this one."""
        name = getattr(context, "name", None)
        return metadata.MetadataPathFinder.find_distributions(
            metadata.DistributionFinder.Context(name=name, path=self._path)
        )


def _tops(folder: Path) -> Iterator[str]:
    """Names that can be imported from the folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            stem = entry.name.partition(".")[0]
            if stem.isidentifier() and (entry.name == stem or entry.name.endswith((".py", ".so"))):
                yield stem
