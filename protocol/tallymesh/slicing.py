"""The part of a script or notebook that a function needs: its imports, definitions and values, and nothing else.

A script that submits a job also reads data, prints and waits; none of that may run again on a worker. So `__main__`
is not shipped whole: starting from the wanted names, the top-level statements that bind what is used are kept at
their lines, names that hold plain data are captured by value, and everything else is dropped. This module does not
import anything and knows no archive.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

from tallymesh import program, syntax, values
from tallymesh.errors import CallerError

_MISSING = object()
_Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Text(NamedTuple):
    """One source: a script, or a notebook's cell."""

    name: str
    source: str


class Slice(NamedTuple):
    source: str
    captured: dict[str, Any]


class _Statement:
    """A top-level statement with the names it binds, uses and changes."""

    def __init__(self, node: ast.stmt, text: Text, future: bool) -> None:
        self.node = node
        self.text = text
        self.guard = _is_main_guard(node)
        self._future = future

    @cached_property
    def _table(self) -> symtable.SymbolTable:
        # Annotations count as used unless the module postpones them.
        head = "from __future__ import annotations\n" if self._future else ""
        return symtable.symtable(head + ast.unparse(self.node), self.text.name, "exec")

    @cached_property
    def binds(self) -> frozenset[str]:
        return frozenset(s.get_name() for s in self._table.get_symbols() if s.is_assigned() or s.is_imported())

    @cached_property
    def uses(self) -> frozenset[str]:
        top = {s.get_name() for s in self._table.get_symbols() if s.is_referenced()}
        return frozenset(top | set(_globals_of(self._table)))

    @property
    def simple(self) -> bool:
        """A definition: the last one alone decides what the name is (``import a.b`` adds to what ``import a`` gave)."""
        return isinstance(self.node, (*_Definition, ast.ImportFrom))

    @property
    def literal(self) -> bool:
        if not isinstance(self.node, (ast.Assign, ast.AnnAssign)) or self.node.value is None:
            return False
        try:
            ast.literal_eval(self.node.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return False
        return not isinstance(self.node, ast.AnnAssign)

    def changes(self, name: str, instance: bool) -> bool:
        """Whether the statement changes the object `name` holds without binding it: an item, an attribute, a method's
        effect (of instances: a call on a function or class is a use)."""
        acts = instance and isinstance(self.node, (ast.Expr, ast.For, ast.While, ast.With))
        for node in ast.walk(self.node):
            if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
                if _root(node) == name:
                    return True
            elif (
                acts
                and isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and _root(node.func) == name
            ):
                return True
        return isinstance(self.node, _Definition) and any(_root(d) == name for d in self.node.decorator_list)

    @property
    def first_line(self) -> int:
        decorators = self.node.decorator_list if isinstance(self.node, _Definition) else []
        return min([self.node.lineno, *(d.lineno for d in decorators)])

    @property
    def last_line(self) -> int:
        return self.node.end_lineno or self.node.lineno


def slice_main(namespace: Mapping[str, Any], texts: Sequence[Text], wanted: Sequence[str]) -> Slice:
    """What the names in `wanted` need. CallerError naming file and line where a needed value cannot travel."""
    statements = [statement for text in texts for statement in _statements(text)]
    kept: set[int] = set()
    captured: dict[str, Any] = {}
    generated: list[str] = []
    seen: set[str] = set()
    queue = list(reversed(wanted))

    def keep(index: int) -> None:
        if index not in kept:
            kept.add(index)
            queue.extend(sorted(statements[index].uses - seen))

    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        value = namespace.get(name, _MISSING)
        places = [index for index, statement in enumerate(statements) if name in statement.binds]
        free = [index for index in places if not statements[index].guard]
        if free and len(places) == 1 and statements[free[0]].literal and not _changed(statements, name):
            keep(free[0])
        elif value is not _MISSING and (values.is_data(value) or has_literal(value)):
            captured[name] = value
        elif free and not _is_ours(value):
            for index in free[-1:] if all(statements[index].simple for index in free) else free:
                keep(index)
            instance = value is not _MISSING and not isinstance(
                value, (ModuleType, type, FunctionType, BuiltinFunctionType)
            )
            for index, statement in enumerate(statements):
                if not isinstance(value, ModuleType) and not statement.guard and statement.changes(name, instance):
                    keep(index)
        elif value is not _MISSING and (line := _import_line(name, value)):
            generated.append(line)
        elif value is not _MISSING and not hasattr(builtins, name) and not name.startswith("__"):
            raise _cannot_travel(name, value, [statements[index] for index in places], texts)
    return Slice(_render(statements, kept, sorted(generated), texts), captured)


def global_names(source: str, name: str) -> frozenset[str]:
    """Global names used anywhere in `source` (a definition at its top level)."""
    table = symtable.symtable(source, name, "exec")
    return frozenset(_globals_of(table)) | {s.get_name() for s in table.get_symbols() if s.is_referenced()}


def _globals_of(table: symtable.SymbolTable) -> Iterator[str]:
    for child in table.get_children():
        for symbol in child.get_symbols():
            if symbol.is_global() and (symbol.is_referenced() or symbol.is_assigned()):
                yield symbol.get_name()
        yield from _globals_of(child)


def _statements(text: Text) -> list[_Statement]:
    try:
        tree = syntax.parse(text.source, text.name)
    except SyntaxError:
        return []  # a cell that never ran, or holds magic
    future = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
    return [_Statement(node, text, future) for statement in tree.body for node in _single_imports(statement)]


def _single_imports(node: ast.stmt) -> list[ast.stmt]:
    """``import torch, sklearn`` as two statements: only one of them may be wanted."""
    if isinstance(node, ast.Import):
        return [ast.copy_location(ast.Import([alias]), node) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [ast.copy_location(ast.ImportFrom(node.module, [alias], node.level), node) for alias in node.names]
    return [node]


def _changed(statements: list[_Statement], name: str) -> bool:
    return any(statement.changes(name, True) for statement in statements)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))


def _root(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def has_literal(value: Any) -> bool:
    try:
        program.literal(value)
    except (ValueError, RecursionError):
        return False
    return True


def _is_ours(value: Any) -> bool:
    """A job, a client, an endpoint: what talks to a node has no place in a unit."""
    kind = type(value)
    return kind.__module__.partition(".")[0] == "tallymesh" and not isinstance(value, (type, FunctionType))


def _import_line(name: str, value: Any) -> str:
    """An import that gives `value` under `name`, for what ``import *`` or another cell brought."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or module in ("__main__", "builtins") or not str(qualname).isidentifier():
        return ""
    return f"from {module} import {qualname} as {name}"


def _cannot_travel(name: str, value: Any, places: list[_Statement], texts: Sequence[Text]) -> CallerError:
    where = f"{places[-1].text.name}:{places[-1].first_line}" if places else texts[0].name
    if places and places[-1].guard:
        remedy = f"Move the definition of {name} out of the 'if __name__' part."
    else:
        remedy = (
            "Make it inside the function, pass it as an argument, or keep only JSON, bytes, numpy or torch data in it."
        )
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    sentence = f"{where}: {name}, which the program uses, is a {kind} and cannot travel."
    return CallerError("cannot_capture", sentence, remedy=remedy)


def _render(statements: list[_Statement], kept: set[int], generated: list[str], texts: Sequence[Text]) -> str:
    future = [s for s in statements if isinstance(s.node, ast.ImportFrom) and s.node.module == "__future__"]
    chosen = [s for index, s in enumerate(statements) if index in kept and s not in future]
    if len(texts) > 1:
        # Cells have no common line numbers; what was kept is written one after the other.
        heads = sorted({ast.unparse(s.node) for s in future})
        return "\n".join([*heads, *generated, *(ast.unparse(s.node) for s in chosen)]) + "\n"
    # Each statement stays at its line, so that a traceback shows the line of the script.
    lines = texts[0].source.splitlines()
    crowded = {
        line for a, b in pairwise(statements) for line in (a.first_line, b.first_line) if a.last_line >= b.first_line
    }
    out = [""] * (len(lines) + 1)
    for statement in sorted([*future, *chosen], key=lambda s: s.first_line):
        first = statement.first_line
        if first in crowded or isinstance(statement.node, (ast.Import, ast.ImportFrom)):
            out[first] += ("; " if out[first] else "") + ast.unparse(statement.node)
        else:
            out[first : statement.last_line + 1] = lines[first - 1 : statement.last_line]
    if generated:  # after those from __future__, on a line that nothing else covers where there is one
        covered = {line for s in [*future, *chosen] for line in range(s.first_line, s.last_line + 1)}
        after = max((s.last_line for s in future), default=0)
        place = next((line for line in range(after + 1, len(out)) if line not in covered), 0)
        out[place : place + bool(place)] = ["; ".join(generated)]
        if not place:
            out.insert(0, "")
            out[1 : after + 2] = [*out[2 : after + 2], out[1]]
    return "\n".join(out[1:]).rstrip("\n") + "\n"
