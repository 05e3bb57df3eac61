"""`tallymesh build`: the package that `run` would send, shown and kept; nothing is submitted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import wheels as made
from fakes.shell import CliRunner
from tallymesh.ids import blob_id
from tallymesh.prepare import PreparedJob
from tallymesh.program import unpack
from tallymesh_node.cli.app import app
from tallymesh_node.cli.build import size

pytestmark = pytest.mark.slow  # its children import torch

SCRIPT = """import helper, tallymesh
def area(x): return helper.square(x)
print("about to map")
try:
    job = tallymesh.map(area, [1, 2, 2], budget="2.5", verify="integrity")
except Exception as error:
    print("caught", error)
print("after it", job.results())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("TALLYMESH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "helper.py").write_text("def square(x): return x * x\n")
    return tmp_path


def build(*arguments: str, code: int = 0) -> tuple[Any, str]:
    """What the real program says on standard output, read as JSON, and on standard error."""
    command = [sys.executable, "-m", "tallymesh_node.cli", "build", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_script_is_built_as_far_as_its_job_without_node_or_money(folder: Path) -> None:
    told, said = build(str(folder / "script.py"), "--out", str(folder / "package"))
    assert "about to map" in said, "what the program prints does not stand in the JSON"
    assert "after it" not in said
    assert "caught" not in said
    assert (told["kind"], told["units"], told["inputs"]) == ("map", 3, 3)
    assert (told["budget_wei"], told["verify"]) == ("2500000000000000000", "integrity")
    assert [file["path"] for file in told["files"]] == ["helper.py", "main_script.py"]
    assert told["files"][0]["bytes"] == len("def square(x): return x * x\n")
    kept = PreparedJob.load(folder / "package")
    assert (folder / "package" / "blobs" / told["program"]).exists()
    assert blob_id((folder / "package" / "spec").read_bytes()).hex() == told["job"]
    archive = unpack(kept.blobs[kept.spec.program])  # type: ignore[index]
    assert {file["path"]: file["hash"] for file in told["files"]} == {
        path: blob_id(data).hex() for path, data in archive.items()
    }
    files = [path for path in (folder / "package").rglob("*") if path.is_file() and path.name != "terms"]
    assert told["bytes"] == sum(path.stat().st_size for path in files)


def test_a_job_file_is_built_and_shown_to_people(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = made.build("plot", "1.0", {"plot.py": made.MODULE})
    made.offer(made.index(folder / "index", ("plot", "1.0", wheel)), monkeypatch)
    (folder / "job.toml").write_text(
        'map = "helper.py:square"\ninputs = [1, 2, 3, 4]\nrequires = ["plot==1.*"]\nverify = "replicate"\n'
    )
    shown = CliRunner().invoke(app, ["build", str(folder / "job.toml")])
    assert shown.exit_code == 0, shown.output
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines() if line)
    assert lines["job"] == "square: map, 4 units"
    assert lines["inputs"].startswith("4, ")
    assert lines["runs"] == "8 (replicate)"
    assert lines["helper.py"].split()[:2] == ["28", "B"]
    assert lines["plot==1.0"].startswith(f"--hash=sha256:{hashlib.sha256(wheel).hexdigest()}")


def test_what_cannot_be_built_is_refused(folder: Path) -> None:
    (folder / "idle.py").write_text("print('nothing to do')\n")
    assert build(str(folder / "idle.py"), code=1)[0]["error"]["code"] == "no_job"
    (folder / "broken.py").write_text("import tallymesh\ntallymesh.map(lambda x: x, [1])\n")
    told, said = build(str(folder / "broken.py"), code=1)
    assert told["error"]["code"] == "program_failed"
    assert "lambda" in said
    assert build(str(folder / "none.py"), code=1)[0]["error"]["code"] == "no_program"
    (folder / "there").mkdir()
    assert build(str(folder / "script.py"), "--out", str(folder / "there"), code=1)[0]["error"]["code"] == "exists"


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024 * 1024, "5.0 MiB")]
)
def test_sizes_are_for_people(count: int, words: str) -> None:
    assert size(count) == words
