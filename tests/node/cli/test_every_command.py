"""What holds of every command: found by walking the command line itself, so that a new one cannot be forgotten."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

import tallymesh
from fakes.area import area
from fakes.node import FakeNode, Served, serve
from fakes.shell import CliRunner
from tallymesh import CallerError, values
from tallymesh.client import discover
from tallymesh_node.cli import later
from tallymesh_node.cli.app import app

ROOT = typer.main.get_command(app)


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that can be called, with the words that call it; groups that only hold others are left out."""
    if isinstance(command, TyperGroup):
        if path and command.invoke_without_command:
            yield path, command
        for name, inner in command.commands.items():
            yield from walk(inner, (*path, name))
    else:
        yield path, command


EVERY = list(walk(ROOT))
SHOWN = [(path, command) for path, command in EVERY if not command.hidden]
PATHS = pytest.mark.parametrize("path", [path for path, _ in EVERY], ids=" ".join)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("TALLYMESH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "home"


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    with serve(FakeNode(home)) as running:
        yield running


def test_the_walk_finds_commands_of_every_depth() -> None:
    found = {path for path, _ in EVERY}
    assert {("up",), ("build",), ("node", "start"), ("network",), ("network", "deploy"), ("wallet", "import")} <= found
    assert {(name,) for name in later.COMMANDS} <= found


@PATHS
def test_every_help_says_what_it_does_and_has_examples_of_this_very_command(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    usage, _, rest = shown.stdout.partition("\n\n")
    assert "Usage: " in usage
    assert len(rest.split(".")[0].split()) >= 2, "a sentence before anything else"
    examples = re.search(r"^  Examples:\n((?:    .*\n)+)", shown.stdout, re.MULTILINE)
    assert examples, "an example is a line of its own, as people type it"
    assert f"tallymesh {' '.join(path)}" in examples[1]
    assert "\b" not in shown.stdout


GROUPS = [(), *((name,) for name, inner in ROOT.commands.items() if isinstance(inner, TyperGroup))]


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: " ".join(path) or "tallymesh")
def test_a_list_of_commands_says_what_each_does_to_the_end_and_where_to_begin(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = CliRunner().invoke(app, [*path, "--help"]).stdout
    rows = re.findall(r"^  [a-z]+ .*$", listed.partition("Commands:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert len(rows) >= 2
    assert [row for row in rows if row.endswith("...") or len(row.split()) < 3] == []
    assert re.search(r"'tallymesh \w+|^    tallymesh \w+", listed, re.MULTILINE), "a command to type first"


@PATHS
def test_every_command_takes_json(path: tuple[str, ...]) -> None:
    assert "--json" in CliRunner().invoke(app, [*path, "--help"]).stdout


@pytest.mark.parametrize(
    ("path", "command"), EVERY, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_refusal_of_any_command_is_one_json_value(
    path: tuple[str, ...], command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise CallerError("out_of_paper", "There is no paper.", remedy="Buy some.")

    monkeypatch.setattr(command, "callback", refuse)
    arguments = ["x" for each in command.params if each.param_type_name == "argument" and each.required]
    for flags in (["--json"], []):
        with pytest.raises(SystemExit) as ended:
            ROOT(args=[*path, *arguments, *flags], prog_name="tallymesh")
        assert ended.value.code == 1
        shown = capsys.readouterr()
        if flags:
            error = {"code": "out_of_paper", "sentence": "There is no paper.", "remedy": "Buy some."}
            assert json.loads(shown.out) == {"error": error}
        else:
            assert (shown.out, shown.err) == ("", "error: There is no paper. Buy some.\n")


@pytest.mark.parametrize("path", [path for path, _ in SHOWN], ids=" ".join)
def test_a_command_line_that_cannot_be_read_is_one_json_value_too(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = (
        [] if path in {("run",), ("build",)} else ["--no-such-option"]
    )  # their script's options; it is what is missing
    for flags in (["--json"], []):
        with pytest.raises(SystemExit) as ended:
            ROOT(args=[*path, *wrong, *flags], prog_name="tallymesh")
        assert ended.value.code == 2
        shown = capsys.readouterr()
        if flags:
            error = json.loads(shown.out)["error"]
            assert (error["code"], shown.err) == ("bad_usage", "")
            assert error["sentence"]
            assert error["remedy"] == f"'tallymesh {' '.join(path)} --help' shows what it takes."
        else:
            assert shown.out == ""
            assert "Usage: " in shown.err


@pytest.mark.parametrize("words", [["--json", "ls"], ["lss", "--json"], ["node", "strat", "--json"]], ids=" ".join)
def test_a_command_that_does_not_exist_is_one_json_value(words: list[str]) -> None:
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"], done.stderr) == (2, "bad_usage", "")


def test_a_word_behind_the_dashes_asks_for_no_json() -> None:
    done = CliRunner().invoke(app, ["ls", "--no-such-option", "--", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")


def test_examples_use_options_and_commands_that_exist() -> None:
    """An example that is refused is worse than none."""
    known = {path: command for path, command in EVERY}
    seen = 0
    for path, _ in SHOWN:
        shown = CliRunner().invoke(app, [*path, "--help"]).stdout
        for line in re.findall(r"^    (?:\w+=\S+ )?(?:eval \"\$\()?tallymesh (.*)$", shown, re.MULTILINE):
            words = re.split(r" [|<>] |  #|\)\"", line)[0].split()
            of = max((p for p in known if tuple(words[: len(p)]) == p), key=len, default=None)
            assert of is not None, line
            options = {name for each in known[of].params for name in (*each.opts, *each.secondary_opts)}
            for word in words[len(of) :]:
                if word == "--":
                    break
                assert not word.startswith("-") or word.partition("=")[0] in options, f"{line}: {word}"
            seen += 1
    assert seen >= len(SHOWN)


# -- names that come later


@pytest.mark.parametrize("name", sorted(later.COMMANDS))
def test_a_command_that_comes_later_says_so_and_what_to_do_now(name: str) -> None:
    done = CliRunner().invoke(app, [name, "share", "notes", "./x.csv", "--group", "hospitals", "--ask", "--json"])
    error = json.loads(done.stdout)["error"]
    assert (done.exit_code, error["code"]) == (1, "not_yet")
    assert "comes in a later version" in error["sentence"]
    assert error["remedy"]


def test_what_comes_later_is_not_in_the_list_of_commands() -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout.partition("Commands:")[2]
    names = re.findall(r"^  (\w+)", listed, re.MULTILINE)
    assert "build" in names
    assert not set(names) & set(later.COMMANDS)


# -- JSON where there is a result


def test_every_way_of_asking_for_a_result_speaks_json(served: Served, tmp_path: Path) -> None:
    served.payer.on_submit = lambda job_id: served.payer.finish_map(job_id, [values.encode(area(x)) for x in range(3)])
    job = tallymesh.map(area, range(3), budget="1")
    out = tmp_path / "outputs.json"
    for options, holds in (
        (["--report"], {"job": job.id, "report": job.report()}),
        (["--out", str(out)], {"job": job.id, "outputs": 3, "written": str(out)}),
        ([], [{"area": float(x * x)} for x in range(3)]),
    ):
        told = CliRunner().invoke(app, ["result", *options, "--json"])
        assert (told.exit_code, json.loads(told.stdout)) == (0, holds)
    assert json.loads(out.read_bytes()) == [{"area": float(x * x)} for x in range(3)]
    refused = CliRunner().invoke(app, ["result", "--out", str(tmp_path / "none" / "x"), "--json"])
    assert json.loads(refused.stdout)["error"]["code"] == "not_written"


# -- completion


def complete(words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("_TALLYMESH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    done = CliRunner().invoke(app, [], prog_name="tallymesh")
    assert (done.exit_code, done.stderr) == (0, ""), "an error in the middle of a line that somebody types"
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_jobs(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("tallymesh ver", monkeypatch) == ["version"]
    assert complete("tallymesh node st", monkeypatch) == ["start", "status", "stop"]
    assert complete("tallymesh build --o", monkeypatch) == ["--out"]
    assert complete("tallymesh dep", monkeypatch) == [], "what comes later is not offered"
    first, second = (tallymesh.map(area, [x], budget="1").id for x in (1.0, 2.0))
    assert complete("tallymesh why 0", monkeypatch) == [second[:12], first[:12]]
    assert complete("tallymesh stop f", monkeypatch) == []


def test_completion_without_a_node_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CallerError):
        discover.find()
    assert complete("tallymesh why 0", monkeypatch) == []


def test_a_shell_is_given_its_script() -> None:
    """As `tallymesh --show-completion` prints it for somebody's own start-up file."""
    environment = {**os.environ, "_TALLYMESH_COMPLETE": "source_bash"}
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['tallymesh']; from tallymesh_node.cli import main; main()",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert "complete -o default -F _tallymesh_completion tallymesh" in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, timeout=300, check=False).returncode == 0
