"""A check of the Python side switched off: an `if` whose condition becomes false, or a call for its errors left out.

Knows no test. A guard is named as docs/TRUST.md does: `module:Class.function` and the condition (or the call) as
`ast.unparse` writes it.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path


class NoSuchGuard(Exception):
    """Nothing, or more than one thing, in that function reads so."""


def source_of(module: str) -> str:
    """Without importing it; its packages are imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise NoSuchGuard(f"no module {module}")
    return Path(spec.origin).read_text()


def found(tree: ast.Module, where: str, text: str) -> ast.AST:
    """The guard. `where`: a function's qualified name."""
    nodes = [node for node in ast.walk(_function(tree, where)) if _reads(node, text)]
    if len(nodes) != 1:
        raise NoSuchGuard(f"{where}: {len(nodes)} guards read {text!r}")
    return nodes[0]


def switched_off(source: str, where: str, text: str) -> str:
    """The module without that guard."""
    tree = ast.parse(source)
    node = found(tree, where, text)
    if isinstance(node, ast.Expr):
        node.value = ast.Constant(None)
    elif isinstance(node, ast.If | ast.IfExp):
        node.test = ast.Constant(False)
    else:
        assert isinstance(node, ast.Assert)
        node.test = ast.Constant(True)
    return ast.unparse(tree)


def _reads(node: ast.AST, text: str) -> bool:
    if isinstance(node, ast.If | ast.IfExp | ast.Assert):
        return ast.unparse(node.test) == text
    return isinstance(node, ast.Expr) and ast.unparse(node.value) == text


def _function(tree: ast.Module, where: str) -> ast.AST:
    node: ast.AST = tree
    for name in where.split("."):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        inside = (each for each in ast.walk(node) if isinstance(each, kinds) and each.name == name and each is not node)
        first = next(inside, None)
        if first is None:
            raise NoSuchGuard(f"no {where}")
        node = first
    return node
