"""Programs as strangers write them: each runs with the expected result, or is refused with the right line and remedy.

Each is a folder of its own, run as its author would run it: another process, that folder as the place, backend="local".
(What importing torch costs, they share: fakes/interpreter.py. Two of them run in a Python of their own, on the network,
in end_to_end/test_programs.py.)
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fakes.interpreter import Interpreter

pytestmark = pytest.mark.slow  # processes that import torch

HERE = Path(__file__).parent
PATIENCE_S = 580.0  # for what takes seconds


class Outcome(NamedTuple):
    code: int
    printed: str
    complained: str


class Author:
    """Somebody with a copy of a program, in an own folder."""

    def __init__(self, interpreter: Interpreter, place: Path) -> None:
        self.interpreter = interpreter
        self.place = place

    def run(self, name: str, *program: str) -> Outcome:
        """The program of folder `name`, as `python program.py` where nothing else is given."""
        folder = self.place / name
        shutil.copytree(HERE / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("TALLYMESH_", "PYTHON"))}
        environment |= {"TALLYMESH_BACKEND": "local", "TALLYMESH_HOME": str(self.place / "home")}
        environment["IPYTHONDIR"] = str(self.place / "i")
        done = self.interpreter.run(
            program or ("program.py",), cwd=folder, environment=environment, timeout_s=PATIENCE_S
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def author(interpreter: Interpreter, tmp_path: Path) -> Author:
    return Author(interpreter, tmp_path)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("images", ["SmallNet False True", "better than half: True"]),
        ("text", ["3 segments, the loss fell: True", "torch.Size([2])"]),
        ("doubles", ["torch.float64 [1.5, -2.0, 0.5] 0.7"]),
        ("tied", ["torch.bfloat16 still tied: True", "['loss']"]),
        (
            "arrays",
            [
                "0 bool float16 (4, 3) torch.int16",
                "1 bool float16 (4, 4) torch.int16",
                "2 bool float16 (4, 4) torch.int16",
                "as here: True light [None, True, -1, 0.5]",
            ],
        ),
        ("closure", ["[0.81, 1.08, 0.0] EUR the loop went on: True"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_strangers_program_runs(name: str, printed: list[str], author: Author) -> None:
    outcome = author.run(name)
    assert (outcome.code, outcome.printed.splitlines()) == (0, printed), outcome.complained


def test_a_notebook_runs_cell_by_cell_in_ipython(author: Author) -> None:
    outcome = author.run("notebook", str(HERE / "notebook_shell.py"), "program.ipynb")
    assert "done 10/10 units" in outcome.printed, "await works at the top level of a cell"
    assert "25 primes, the last one 97" in outcome.printed
    assert "[4, 2]" in outcome.printed, "a function that was written anew is the one that is sent"
    assert re.search(r"<ipython-input-10-\w+>:1: <lambda> cannot travel: .* Give it a name: def", outcome.printed)


def test_a_program_with_type_hints_runs_and_mypy_reads_it_with_the_project(author: Author) -> None:
    outcome = author.run("typed", "typed_program.py")
    assert (outcome.code, outcome.printed) == (0, "no_node\n"), outcome.complained
    settings = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"]
    assert "typed_program" in settings["modules"]
    assert "tests/strangers/typed" in settings["mypy_path"]
    for package in ("tallymesh", "tallymesh_learning", "tallymesh_ledger", "tallymesh_scheduler", "tallymesh_node"):
        assert (resources.files(package) / "py.typed").is_file(), "without it a checker takes everything for Any"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "failing_map",
            r"The call for input 2 failed \(program\): ZeroDivisionError: division by zero\. The item was "
            r"\[5, 0\]\.\nTraceback[\s\S]*"
            r'line 10, in aspect\n[\s\S]*geometry\.py", line 3, in ratio\n    return a / b\n[\s\S]*ZeroDivisionError',
        ),
        (
            "broken_item",
            r"Reading data\[40\] failed: .*/broken_item/program\.py:18: JSONDecodeError\(.*\)\nTraceback.*\n.*line 18, "
            r"in __getitem__\n    row = json\.loads\(LINES\[index\]\)",
        ),
        (
            "packages",
            r"/packages/features\.py:2: the program imports sklearn, and workers have only Python, numpy, torch and "
            r"safetensors\. Let its package travel with the job: requires=\[\"scikit-learn\"\]\. Or use sklearn on "
            r"your side \(in another file, .*\) and pass what it makes",
        ),
        (
            "instance",
            r"model= is a Sequential that exists already; .*\n    def model\(\):\n        return torch\.nn\."
            r"Sequential\(",
        ),
        (
            "gpu",
            r"The model cannot be made: AssertionError: Torch not compiled with CUDA enabled\n[\s\S]*line 11, in "
            r"__init__\n[\s\S]*\nUnits compute on the CPU: leave out \.cuda\(\)",
        ),
        (
            "guard",
            r"/guard/program\.py:13: lock, which the program uses, is a _thread\.lock and cannot travel\. Move the "
            r"definition of lock out of the 'if __name__' part\.",
        ),
    ],
    ids=lambda value: value if str(value).isidentifier() else "",
)
def test_a_strangers_mistake_is_told_with_its_line_and_what_to_do(name: str, says: str, author: Author) -> None:
    outcome = author.run(name)
    assert outcome.code == 1
    assert re.search(says, outcome.complained), outcome.complained
    assert own_line(outcome.complained) == f'File "{author.place / name / "program.py"}"', "the call is where it begins"


def own_line(complained: str) -> Any:
    """The first frame of the last exception's traceback."""
    found = re.search(r"^Traceback \(most recent call last\):\n  (File \".*?\")", complained, re.MULTILINE)
    return found and found[1]
