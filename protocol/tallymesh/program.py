"""Source archives: the bytes of a program, and importing from them without a file, bytecode or pickle.

An archive is canonical msgpack of sorted ``[[path, bytes], …]``: ``package/module.py`` holds source, and
``package/module.captured`` the values that the module's names had when it was captured (capture.py). Reading an
archive of a stranger gives an `Archive` or RemoteError; running what is in it belongs into a sandbox.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import CodeType, ModuleType
from typing import Any, Final

import msgspec

from tallymesh import values
from tallymesh.errors import CallerError, RemoteError

MAX_PROGRAM_BYTES: Final = 16 * 1024 * 1024  # source and captured values; data belongs into inputs
MAX_FILES: Final = 2000
MAX_PATH: Final = 200  # characters
SOURCE, CAPTURED = ".py", ".captured"
PREFIX: Final = "<program>/"  # of file names in tracebacks: frames of the user's code
BASE: Final = frozenset({"numpy", "torch", "safetensors", "tallymesh", "tallymesh_learning"})  # every sandbox has these

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[str, bytes]])

Archive = Mapping[str, bytes]


def pack(files: Archive) -> bytes:
    """Canonical bytes of an archive. CallerError where it is too large."""
    data = _encoder.encode(sorted(files.items()))
    if len(data) > MAX_PROGRAM_BYTES or len(files) > MAX_FILES:
        raise CallerError(
            "program_too_large",
            f"The program has {len(files)} files and {len(data)} bytes (at most {MAX_FILES} and {MAX_PROGRAM_BYTES}).",
            remedy="Pass data as inputs instead of keeping it in variables of the program.",
        )
    unpack(data)  # what we would refuse from others is not sent to them
    return data


def unpack(data: bytes, *, peer: str = "") -> dict[str, bytes]:
    """The files in an archive, or RemoteError: strictly ascending safe paths, Unicode sources, bounded sizes."""
    if len(data) > MAX_PROGRAM_BYTES:
        raise RemoteError("too_large", f"A program of {len(data)} bytes is over {MAX_PROGRAM_BYTES}.", peer=peer)
    try:
        rows = _decoder.decode(data)
        if _encoder.encode(rows) != data:
            raise ValueError("not in canonical form")
        if len(rows) > MAX_FILES:
            raise ValueError(f"{len(rows)} files are more than {MAX_FILES}")
        paths = [path for path, _ in rows]
        if any(first >= second for first, second in pairwise(paths)):
            raise ValueError("its files are not sorted")
        for path, content in rows:
            _check_path(path)
            if path.endswith(SOURCE):
                content.decode("utf-8")
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise RemoteError("bad_program", f"Not a program: {error}", peer=peer) from None
    return dict(rows)


def split_entry(entry: str) -> tuple[str, str]:
    """``module:qualname``, both made of identifiers; RemoteError for anything else."""
    module, colon, qualname = entry.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), *qualname.split(".")]):
        raise RemoteError("bad_entry", f"{entry[:100]!r} is not module:qualname.")
    return module, qualname


def resolve(entry: str) -> Any:
    """The object at `entry`, imported now. What the program raises while it is imported passes through."""
    module_name, qualname = split_entry(entry)
    found: Any = importlib.import_module(module_name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


@contextmanager
def importable(archive: Archive) -> Iterator[None]:
    """While open, ``import`` finds the archive's modules (before anything installed). Modules vanish afterwards.

    Nothing is written to disk. Not for two archives at once in one process.
    """
    finder = _Finder(archive)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        # Only what was asked of the finder: a look at every module copies thousands of pages in a warm fork (30 ms).
        for name in finder.found:
            if _loaded_by(sys.modules.get(name), finder):
                del sys.modules[name]


def _check_path(path: str) -> None:
    stem = path.removesuffix(SOURCE) if path.endswith(SOURCE) else path.removesuffix(CAPTURED)
    parts = stem.split("/")
    if stem == path or len(path) > MAX_PATH or not all(part.isidentifier() for part in parts):
        raise ValueError(f"{path[:MAX_PATH]!r} is not a path of a module")
    if parts[0] in BASE or parts[0] in sys.stdlib_module_names:
        raise ValueError(f"{path!r} would hide the module {parts[0]} that every sandbox has")


def _loaded_by(module: ModuleType | None, finder: _Finder) -> bool:
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return isinstance(loader, _Loader) and loader.finder is finder


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules, packages and packages without ``__init__`` in an archive."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.found: set[str] = set()
        self._folders = {
            "/".join(path.split("/")[:depth]) for path in archive for depth in range(1, path.count("/") + 1)
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        stem = fullname.replace(".", "/")
        for file, package in ((f"{stem}/__init__{SOURCE}", True), (f"{stem}{SOURCE}", False)):
            if file in self.archive:
                return self._spec(fullname, file, [PREFIX + stem] if package else None)
        if stem in self._folders:
            return self._spec(fullname, "", [PREFIX + stem])
        return None

    def _spec(self, name: str, file: str, locations: list[str] | None) -> importlib.machinery.ModuleSpec:
        self.found.add(name)
        loader = _Loader(self, file)
        spec = importlib.machinery.ModuleSpec(name, loader, origin=PREFIX + file, is_package=locations is not None)
        spec.submodule_search_locations = locations
        spec.has_location = bool(file)
        return spec


class _Loader(importlib.abc.InspectLoader):
    """Runs a module's source. `get_source` serves tracebacks and `inspect`."""

    def __init__(self, finder: _Finder, file: str) -> None:
        self.finder = finder
        self.file = file

    def get_source(self, fullname: str) -> str:
        return self.finder.archive[self.file].decode() if self.file else ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.get_source(fullname), PREFIX + self.file, "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        return not self.file or self.file.endswith(f"/__init__{SOURCE}")

    def exec_module(self, module: ModuleType) -> None:
        captured = self.finder.archive.get(self.file.removesuffix(SOURCE) + CAPTURED) if self.file else None
        if captured is not None:
            module.__dict__.update(read_captured(captured))
        exec(self.get_code(module.__name__), module.__dict__)  # noqa: S102 - this is what an importer does


def write_captured(names: Mapping[str, Any]) -> bytes:
    """Bytes of captured values: data by its canonical form, tuples and the like as Python literals.

    CallerError naming the variable where a value is neither."""
    data = {name: value for name, value in names.items() if values.is_data(value)}
    literals = {name: literal(value) for name, value in names.items() if name not in data}
    return values.encode({"data": data, "literals": literals})


def read_captured(data: bytes) -> dict[str, Any]:
    """The values, or RemoteError."""
    found = values.decode(data)
    try:
        literals = {name: ast.literal_eval(text) for name, text in found["literals"].items()}
        return {**found["data"], **literals}
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError, AttributeError) as error:
        raise RemoteError("bad_program", f"Not captured values: {error}") from None


def literal(value: Any) -> str:
    """`value` as a Python literal that gives an equal value of equal types; ValueError where there is none."""
    if not _is_literal(value):
        raise ValueError(f"{type(value).__qualname__} has no literal")
    return repr(value)


def _is_literal(value: Any) -> bool:
    # Sets are left out: the order of their texts differs between two processes.
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes):
        return True
    if kind is float:
        return math.isfinite(value)
    if kind in (tuple, list):
        return all(map(_is_literal, value))
    return kind is dict and all(_is_literal(key) and _is_literal(item) for key, item in value.items())
