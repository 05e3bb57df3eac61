"""The set-up on a machine that lacks something: it says all that is missing and the one line that installs it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("bash", "cat", "cut", "dirname", "env", "mktemp", "rm", "sha256sum")


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


def test_a_machine_without_a_compiler_is_told_only_that(tmp_path: Path) -> None:
    done = setup(*machine(tmp_path, "python3"))
    assert done.returncode == 1
    assert "Missing on this machine: gcc libgmp-dev" in done.stderr


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
