"""What `import` finds while a unit with packages runs: those, in their place between the base set and what the machine
has, and nothing of them afterwards."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tallymesh import program, wheels
from tallymesh_learning.runtime import packages
from tallymesh_learning.runtime.packages import importable

NAME = "tallymesh_test_plot"  # of a module that nothing has


def made(folder: Path, version: str, *, name: str = NAME) -> Path:
    """A set of one package: a module, one below it, and what its wheel says of it."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"version = {version!r}\n")
    (folder / name / "below.py").write_text(f"version = {version!r}\n")
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def found(name: str = NAME) -> Any:
    return importlib.import_module(name).version


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this machine's own, in which `import` looks first."""
    folder = made(tmp_path / "machine", "0.1")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def test_a_set_goes_before_what_the_machine_has_and_leaves_nothing(tmp_path: Path, machine: Path) -> None:
    one, other = made(tmp_path / "one", "1.0"), made(tmp_path / "other", "2.0")
    assert found() == found(f"{NAME}.below") == metadata.version(NAME) == "0.1", "the template has imported it"
    before = list(sys.path), list(sys.meta_path)
    for folder, version in ((one, "1.0"), (other, "2.0")):
        with importable(folder):
            assert found() == found(f"{NAME}.below") == metadata.version(NAME) == version
            assert sys.path == [*before[0], str(folder)], "last: whatever else lies there hides nothing"
        assert (sys.path, sys.meta_path) == before
        assert found() == found(f"{NAME}.below") == "0.1"


def test_the_programs_own_modules_go_before_a_set(tmp_path: Path) -> None:
    folder = made(tmp_path / "set", "1.0")
    with importable(folder), program.importable({f"{NAME}.py": b"version = 'own'\n"}):
        assert found() == "own"


@pytest.mark.parametrize("name", ["colorsys", "json", *sorted(wheels.RESERVED)])
def test_nothing_of_a_set_takes_the_place_of_the_standard_library_or_the_base_set(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("version = 'taken'\n")
    finder = packages._Finder(tmp_path)
    assert finder.tops == frozenset()
    assert finder.find_spec(name, None) is None


def test_modules_that_are_not_in_a_set_are_left_alone(tmp_path: Path) -> None:
    folder = made(tmp_path / "set", "1.0")
    for name in ("pytest.txt", "pathlib.pyi", "not-a-name.py"):
        (folder / name).write_text("")
    (folder / "fast.cpython-311-x86_64-linux-gnu.so").write_bytes(b"")
    (folder / "single.py").write_text("")
    with importable(folder):
        finder = next(each for each in sys.meta_path if isinstance(each, packages._Finder))
        assert finder.tops == {NAME, "fast", "single"}
        assert sys.modules["pytest"] is pytest, "a file that is no module empties nothing"
        assert finder.find_spec("tomllib", None) is None
