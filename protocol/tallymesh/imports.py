"""Which modules a source imports, and where they come from, found without importing or running anything."""

from __future__ import annotations

import ast
import importlib.machinery
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final, NamedTuple

from tallymesh import program

_THIRD_PARTY: Final = ("site-packages", "dist-packages")


class Import(NamedTuple):
    level: int
    module: str
    names: tuple[str, ...]
    line: int
    eager: bool  # runs when the module is imported
    optional: bool  # inside try … except ImportError


def imports_in(node: ast.AST, *, eager: bool, optional: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(0, alias.name, (), child.lineno, eager, optional)
        elif isinstance(child, ast.ImportFrom):
            names = tuple(alias.name for alias in child.names if alias.name != "*")
            yield Import(child.level, child.module or "", names, child.lineno, eager, optional)
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports_in(child, eager=False, optional=optional)
        elif isinstance(child, ast.Try) and _catches_import_error(child):
            for part in child.body:
                yield from imports_in(ast.Module([part], []), eager=eager, optional=True)
            rest: list[Any] = [*child.handlers, *child.orelse, *child.finalbody]
            yield from imports_in(ast.Module(rest, []), eager=eager, optional=True)
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from imports_in(ast.Module(child.orelse, []), eager=eager, optional=optional)
        else:
            yield from imports_in(child, eager=eager, optional=optional)


def _catches_import_error(node: ast.Try) -> bool:
    names = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
    for handler in node.handlers:
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        if any(kind is None or (isinstance(kind, ast.Name) and kind.id in names) for kind in caught):
            return True
    return False


def absolute(found: Import, package: str) -> str:
    if not found.level:
        return found.module
    parts = package.split(".") if package else []
    parts = parts[: len(parts) - found.level + 1]
    return ".".join([*parts, *([found.module] if found.module else [])])


def origin(module: str) -> str:
    """``standard``, ``base``, ``local``, ``third-party`` or ``missing``."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return "standard"
    if top in program.BASE:
        return "base"
    spec = find(module)
    if spec is None:
        return "missing"
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    if any(part in _THIRD_PARTY for place in places for part in Path(place).parts):
        return "third-party"
    return "local"


def find(name: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of a module without importing anything (importlib.util.find_spec would import its packages)."""
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None)
    if spec is not None and (spec.origin or spec.submodule_search_locations):
        return spec  # type: ignore[no-any-return]
    parent, _, _ = name.rpartition(".")
    if not parent:
        return PathFinder.find_spec(name, None)
    above = find(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(name, list(above.submodule_search_locations))


def parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
