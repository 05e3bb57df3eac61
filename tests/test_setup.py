"""The set-up on a machine that lacks something: it says all that is missing and the one line that installs it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("bash", "cat", "cut", "dirname", "env", "grep", "mktemp", "rm", "sha256sum", "sleep", "tail")


def machine(tmp_path: Path, *tools: str) -> tuple[Path, dict[str, str]]:
    """A clone without a virtual environment, and a PATH on which only `tools` and the plainest ones are."""
    clone, path = tmp_path / "clone", tmp_path / "bin"
    path.mkdir()
    (clone / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup"):
        shutil.copy(ROOT / name, clone / name)
    for tool in (*NEEDED, *tools):
        # The interpreter itself rather than what finds one (pyenv's shims, the virtual environment's link).
        found = os.path.realpath(sys.executable) if tool == "python3" else shutil.which(tool)
        assert found, tool
        (path / tool).symlink_to(found)
    return clone, {"PATH": str(path), "HOME": str(tmp_path)}


def setup(clone: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(clone / "scripts/setup")], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_machine_without_what_it_needs_is_told_in_one_line(tmp_path: Path) -> None:
    done = setup(*machine(tmp_path))
    assert done.returncode == 1
    assert "Missing on this machine: python3.11 python3.11-venv python3.11-dev gcc libgmp-dev" in done.stderr
    assert "sudo apt-get install -y python3.11 python3.11-venv python3.11-dev gcc libgmp-dev" in done.stderr
    assert not (tmp_path / "clone/.venv").exists()


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told_only_that(tmp_path: Path) -> None:
    done = setup(*machine(tmp_path, "python3"))
    assert done.returncode == 1
    assert "Missing on this machine: gcc libgmp-dev" in done.stderr


def ready_to_install(tmp_path: Path, pip: str) -> tuple[Path, dict[str, str]]:
    """Nothing is missing, and the environment's Python does what the test says instead of asking a package index."""
    clone, environment = machine(tmp_path, "python3")
    (tmp_path / "bin/gcc").write_text("#!/bin/bash\ncat >/dev/null\n")
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").write_text(f"#!/bin/bash\n{pip}\n")
    for program in (tmp_path / "bin/gcc", clone / ".venv/bin/python"):
        program.chmod(0o755)
    return clone, environment


def test_each_step_is_named_with_its_time_and_the_second_run_is_quiet(tmp_path: Path) -> None:
    clone, environment = ready_to_install(
        tmp_path, 'echo "Collecting $*"; echo "$*" >> .venv/asked; : > .venv/bin/tallymesh; cd .venv/bin; chmod +x *'
    )
    (tmp_path / "bin/chmod").symlink_to(shutil.which("chmod") or "")
    done = setup(clone, environment)
    assert done.returncode == 0, done.stderr
    packages = sum(line[:1].isalpha() for line in (ROOT / "constraints.txt").read_text().splitlines())
    lines = [line.strip() for line in done.stderr.splitlines()]
    assert [line for line in lines if line[0].isdigit()] == [
        "1/3  creating the environment ...",
        "2/3  installing torch, the largest package ...",
        f"3/3  installing tallymesh and the rest of {packages} packages ...",
    ]
    told = [line for line in lines if line.startswith("done in ")]
    assert len(told) == 3
    assert all(re.fullmatch(r"done in \d+ s", line) for line in told)
    assert lines[-1].startswith("Ready after ")
    assert "Collecting" not in done.stderr
    asked = (clone / ".venv/asked").read_text().splitlines()
    assert [line.split()[-1] for line in asked] == ["torch==2.13.0", ".[test]"]
    again = setup(clone, environment)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_package_index_that_refuses_is_quoted_and_nothing_is_called_ready(tmp_path: Path) -> None:
    clone, environment = ready_to_install(tmp_path, 'echo "No matching distribution"; exit 1')
    done = setup(clone, environment)
    assert done.returncode == 1
    assert "No matching distribution" in done.stderr
    assert "Ready" not in done.stderr
    assert not (clone / ".venv/.installed").exists()


def test_a_set_up_that_is_up_to_date_does_nothing(tmp_path: Path) -> None:
    clone, environment = machine(tmp_path)
    (clone / ".venv/bin").mkdir(parents=True)
    program = clone / ".venv/bin/tallymesh"
    program.write_text("")
    program.chmod(0o755)
    text = b"".join((clone / name).read_bytes() for name in ("pyproject.toml", "constraints.txt", "scripts/setup"))
    (clone / ".venv/.installed").write_text(hashlib.sha256(text).hexdigest() + "\n")
    done = setup(clone, environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_scripts_are_programs() -> None:
    for script in (ROOT / "scripts").iterdir():
        if script.is_file():
            assert os.access(script, os.X_OK), script
            assert script.read_text().startswith("#!"), script
