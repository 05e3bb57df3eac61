"""From a Python function or class in memory to a source archive and entries: what `map` and `train` send.

The defining module and the local modules that it imports are found statically and shipped whole; `__main__` (a script
or a notebook) is shipped under another name and only as far as the function needs it (slicing.py). What every sandbox
has (the standard library and the base set) is not shipped; other installed packages are refused. This module runs no
user code and does not know torch.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import textwrap
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

from tallymesh import imports, program, slicing, syntax, values
from tallymesh.errors import CallerError
from tallymesh.slicing import Text

_BASE_SET: Final = "workers have only Python, numpy, torch and safetensors"
_MAIN: Final = ("__main__", "__mp_main__")


class Program(NamedTuple):
    """An archive, and an entry ``module:qualname`` for each captured object, in their order."""

    archive: bytes
    entries: tuple[str, ...]


def capture(*objects: Any, packages: Collection[str] = ()) -> Program:
    """The program that holds `objects` (functions or classes). `packages` are the modules that travel beside it.
    CallerError naming file, line and remedy where one of them, or what it needs, cannot travel."""
    builder = _Builder(packages)
    places = [builder.place(obj) for obj in objects]
    builder.finish()
    return Program(program.pack(builder.files), tuple(places))


class _Main(NamedTuple):
    """A `__main__` in the making."""

    module: str  # its name in the archive
    namespace: dict[str, Any]
    texts: list[Text]
    wanted: list[str]


class _Builder:
    def __init__(self, packages: Collection[str]) -> None:
        self._packages = packages
        self.files: dict[str, bytes] = {}
        self._main: _Main | None = None
        self._done: set[str] = set()

    def place(self, obj: Any) -> str:
        """Ship what defines `obj` and return its entry."""
        module, qualname = _names(obj)
        if "<locals>" in qualname:
            return self._closure(obj)
        if module in _MAIN:
            main = self._main_of(obj)
            _check_reachable(obj, main.namespace, qualname, module)
            main.wanted.append(qualname.partition(".")[0])
            return f"{main.module}:{qualname}"
        loaded = sys.modules.get(module)
        if loaded is None:
            raise _refuse(obj, f"its module {module} is not imported", "Import the function from a module file.")
        _check_reachable(obj, loaded.__dict__, qualname, module)
        if imports.origin(module) != "local":
            raise _refuse(
                obj,
                f"it belongs to {module}, which is not a module of yours",
                "Write a function of your own around it, with def, and pass that.",
            )
        self._add(module)
        self._check_own_imports(module, qualname)
        return f"{module}:{qualname}"

    def finish(self) -> None:
        main = self._main
        if main is None:
            return
        result = slicing.slice_main(main.namespace, main.texts, sorted(set(main.wanted)))
        stem = main.module.replace(".", "/")
        self.files[stem + program.SOURCE] = result.source.encode()
        if result.captured:
            self.files[stem + program.CAPTURED] = program.write_captured(result.captured)
        package = main.module.rpartition(".")[0]
        for parent in imports.parents(main.module):
            self._add(parent)
        # Only what is needed is left of it, so every import in it must hold, those inside functions too.
        self._follow(main.module, package, syntax.parse(result.source), main.texts[0].name, strict=True)

    # Modules

    def _add(self, name: str) -> None:
        """Ship a local module, its packages and what it imports."""
        if name in self._done:
            return
        self._done.add(name)
        for parent in imports.parents(name):
            self._add(parent)
        spec = imports.find(name)
        if spec is None or (spec.origin is None and spec.submodule_search_locations is not None):
            return  # a package without __init__ has no file
        path = Path(spec.origin or "")
        if path.suffix != ".py":
            raise CallerError(
                "no_source",
                f"The module {name} ({path}) is not Python source and cannot travel.",
                remedy="Keep what runs on workers in .py files and the base set (Python, numpy, torch, safetensors).",
            )
        source = path.read_bytes()
        try:
            tree = syntax.parse(source, str(path))
            text = source.decode("utf-8-sig")
        except (SyntaxError, UnicodeDecodeError, ValueError) as error:
            raise CallerError(
                "no_source", f"{path} cannot be read: {error}", remedy="Save it as UTF-8 Python."
            ) from None
        package = spec.submodule_search_locations is not None
        stem = name.replace(".", "/")
        self.files[f"{stem}/__init__.py" if package else f"{stem}.py"] = text.replace("\r\n", "\n").encode()
        self._follow(name, name if package else name.rpartition(".")[0], tree, str(path), strict=False)

    def _follow(self, module: str, package: str, tree: ast.AST, file: str, *, strict: bool) -> None:
        for found in imports.imports_in(tree, eager=True):
            base = imports.absolute(found, package)
            for target in [base, *(f"{base}.{name}" for name in found.names)] if base else []:
                self._need(target, base, found, file, strict=strict)

    def _need(self, target: str, base: str, found: imports.Import, file: str, *, strict: bool) -> None:
        kind = self._origin(target)
        if kind == "local":
            self._add(target)
        elif target == base and kind in ("third-party", "missing") and not found.optional and (found.eager or strict):
            raise _not_available(target, kind, f"{file}:{found.line}")

    def _origin(self, module: str) -> str:
        kind = imports.origin(module)
        travels = kind in ("third-party", "missing") and module.partition(".")[0] in self._packages
        return "package" if travels else kind

    def _check_own_imports(self, module: str, qualname: str) -> None:
        """An entry's own body may not import what no sandbox has; other functions may (they run with the payer)."""
        spec = imports.find(module)
        assert spec is not None
        assert spec.origin is not None
        node: ast.AST = syntax.parse(Path(spec.origin).read_bytes())
        for part in qualname.split("."):
            found = [n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == part]
            if not found:
                return  # bound by an assignment or a conditional
            node = found[-1]
        for item in imports.imports_in(node, eager=True):
            base = imports.absolute(item, module if spec.submodule_search_locations else module.rpartition(".")[0])
            kind = self._origin(base) if base else "standard"
            if kind in ("third-party", "missing") and not item.optional:
                raise _not_available(base, kind, f"{spec.origin}:{item.line}")

    # `__main__` and functions inside functions

    def _main_of(self, obj: Any) -> _Main:
        namespace = _namespace(obj)
        if self._main is None:
            texts = _main_texts(obj, namespace)
            self._main = _Main(_main_name(namespace), namespace, texts, [])
        elif _code(obj) is not None:
            known = {text.name for text in self._main.texts}
            self._main.texts.extend(text for text in _main_texts(obj, namespace) if text.name not in known)
        return self._main

    def _closure(self, obj: Any) -> str:
        """A function made inside another one: its definition alone, with the data that it closed over."""
        if not isinstance(obj, FunctionType):
            raise _refuse(obj, "it is defined inside a function", "Move it to the top level of its module.")
        captured: dict[str, Any] = {}
        for name, cell in zip(obj.__code__.co_freevars, obj.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                raise _refuse(
                    obj, f"it closes over {name}, which has no value yet", "Pass it as an argument."
                ) from None
            if value is obj:
                continue
            if not (values.is_data(value) or slicing.has_literal(value)):
                raise _refuse(
                    obj,
                    f"it closes over {name}, a {type(value).__module__}.{type(value).__qualname__}",
                    f"Pass {name} as an argument, or move the function to the top level of its module.",
                )
            captured[name] = value
        source = _definition(obj)
        used = slicing.global_names(source, obj.__name__) & set(obj.__globals__) - {obj.__name__} - set(captured)
        if obj.__module__ in _MAIN:
            main = self._main_of(obj)
            main.wanted.extend(sorted(used))
            home = main.module
        else:
            home = obj.__module__
            if imports.origin(home) != "local":
                raise _refuse(obj, f"it was made by {home}, which is not a module of yours", "Write it out with def.")
            self._add(home)
        module = f"closure_{obj.__name__}"
        while f"{module}.py" in self.files:
            module += "_"
        head = f"from {home} import {', '.join(sorted(used))}\n" if used else ""
        self.files[f"{module}.py"] = (head + source).encode()
        if captured:
            self.files[f"{module}.captured"] = program.write_captured(captured)
        self._follow(module, "", syntax.parse(source), obj.__code__.co_filename, strict=True)
        return f"{module}:{obj.__name__}"


def _names(obj: Any) -> tuple[str, str]:
    module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if isinstance(obj, MethodType):
        raise _refuse(obj, "a bound method carries its object", "Write a function that makes the object and calls it.")
    if isinstance(obj, ModuleType) or not callable(obj):
        raise _refuse(obj, "it is not a function or class", "Pass a function made with def, or a class.")
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise _refuse(obj, "it is an object, not a function or class", "Write a function with def that does the same.")
    if "<lambda>" in qualname:
        raise _refuse(obj, "a lambda has no name to find it by", "Give it a name: def name(...): return ...")
    return module, qualname


def _check_reachable(obj: Any, namespace: dict[str, Any], qualname: str, module: str) -> None:
    first, *rest = qualname.split(".")
    found = namespace.get(first)
    for part in rest:
        found = getattr(found, part, None)
    if found is not obj:
        raise _refuse(
            obj,
            f"{module}.{qualname} is another object",
            "A decorator must use functools.wraps and be applied with @, and a name must be defined only once.",
        )


def _code(obj: Any) -> Any:
    """The code object of a function, or of a class's first method."""
    while hasattr(obj, "__wrapped__"):
        obj = obj.__wrapped__
    if isinstance(obj, type):
        for member in vars(obj).values():
            member = getattr(member, "__func__", member)
            if isinstance(member, FunctionType) and member.__qualname__.startswith(obj.__qualname__ + "."):
                return member.__code__
        return None
    return getattr(obj, "__code__", None)


def _namespace(obj: Any) -> dict[str, Any]:
    while hasattr(obj, "__wrapped__"):
        obj = obj.__wrapped__
    if isinstance(obj, type):
        for member in vars(obj).values():
            member = getattr(member, "__func__", member)
            if isinstance(member, FunctionType) and member.__module__ == obj.__module__:
                return member.__globals__
        return sys.modules[obj.__module__].__dict__
    found: dict[str, Any] = obj.__globals__
    return found


def _main_texts(obj: Any, namespace: dict[str, Any]) -> list[Text]:
    """The sources of `__main__`: the script, or the cells of the notebook in the order in which they ran."""
    code = _code(obj)
    file = code.co_filename if code is not None else namespace.get("__file__", "")
    lines = linecache.getlines(file, namespace) if file else []
    if not lines:
        raise _refuse(obj, "its source cannot be found", "Put it into a file and run or import that.")
    names = [file]
    if not os.path.exists(file):
        # IPython names cells <ipython-input-…> or /tmp/ipykernel_…/….py and keeps them in linecache.
        family = os.path.dirname(file) or file[: file.find("-") + 1]
        names = [name for name in linecache.cache if family and name.startswith(family)] or [file]
    return [Text(name, "".join(linecache.getlines(name, namespace))) for name in names]


def _main_name(namespace: dict[str, Any]) -> str:
    spec = namespace.get("__spec__")
    file = namespace.get("__file__")
    stem = Path(file).stem if file else "notebook"
    name = "main_" + "".join(char if char.isalnum() and char.isascii() else "_" for char in stem)
    package = namespace.get("__package__") if spec is not None else None  # python -m package.module
    return f"{package}.{name}" if package else name


def _definition(obj: FunctionType) -> str:
    """The source of a function inside a function, as a definition at the top level."""
    code = obj.__code__
    text = "".join(linecache.getlines(code.co_filename, obj.__globals__))
    try:
        tree = syntax.parse(text)
    except SyntaxError:
        tree = ast.Module([], [])
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == obj.__name__:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first == code.co_firstlineno:
                if any(isinstance(inner, ast.Nonlocal) for inner in ast.walk(node)):
                    raise _refuse(obj, "it changes a variable of the function around it", "Return the value instead.")
                lines = text.splitlines()[first - 1 : node.end_lineno]
                return textwrap.dedent("\n".join(lines)) + "\n"
    raise _refuse(obj, "its source cannot be found", "Put it into a file and run or import that.")


def _refuse(obj: Any, why: str, remedy: str) -> CallerError:
    code = _code(obj) if not isinstance(obj, MethodType) else obj.__func__.__code__
    where = f"{code.co_filename}:{code.co_firstlineno}: " if code is not None else ""
    name = getattr(obj, "__qualname__", None) or f"a {type(obj).__module__}.{type(obj).__qualname__} object"
    return CallerError("cannot_capture", f"{where}{name} cannot travel: {why}.", remedy=remedy)


def _not_available(module: str, kind: str, where: str) -> CallerError:
    top = module.partition(".")[0]
    if kind == "missing":
        return CallerError(
            "no_module",
            f"{where}: the module {module} cannot be found.",
            remedy=f'Check its name; {_BASE_SET}. A package travels with the job: requires=["{_distribution(top)}"].',
        )
    return CallerError(
        "not_in_base_set",
        f"{where}: the program imports {top}, and {_BASE_SET}.",
        remedy=f'Let its package travel with the job: requires=["{_distribution(top)}"]. Or use {top} on your side (in '
        "another file, or inside the function that reads the data) and pass what it makes as inputs or data.",
    )


def _distribution(module: str) -> str:
    """What has to be asked for to get a module, as far as this environment knows."""
    return metadata.packages_distributions().get(module, [module])[0]
