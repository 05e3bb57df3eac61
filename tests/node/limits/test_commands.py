"""`node pause|resume|limit` as an owner types them, against the file that a node reads."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.shell import CliRunner
from tallymesh_node.cli.app import app
from tallymesh_node.limits import orders
from tallymesh_node.store.lock import FolderLock


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path))
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["node", *words])
    assert done.exit_code == code, done.output
    return done.output


def test_a_pause_and_its_end(home: Path) -> None:
    assert "resume" in run("pause")
    pause = orders.load(home).pause
    assert pause is not None
    assert (pause.until, pause.at_once) == (math.inf, False)
    run("pause", "--now")
    assert orders.load(home).pause.at_once  # type: ignore[union-attr]
    assert "lent again" in run("resume")
    assert orders.load(home).pause is None
    assert "was not paused" in run("resume")


@pytest.mark.parametrize(("text", "seconds"), [("90min", 5400), ("2h", 7200), ("30s", 30), ("1 d", 86400)])
def test_a_pause_for_a_while(home: Path, text: str, seconds: float) -> None:
    before = time.time()
    run("pause", "--for", text)
    until = orders.load(home).pause.until  # type: ignore[union-attr]
    assert before + seconds <= until <= time.time() + seconds


@pytest.mark.parametrize("text", ["soon", "2", "-1h", "0h", "1w", "1e9s"])
def test_what_is_no_length_of_time_is_refused_and_changes_nothing(home: Path, text: str) -> None:
    run("pause", f"--for={text}", code=1)
    assert orders.load(home).pause is None


def limits(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("limit", "--json", *words))["limits"]
    return found


def test_limits_add_up_over_the_configured_ones_until_reset(home: Path) -> None:
    (home / "config.toml").write_text("cores = 4\nmemory_mib = 8192\n")
    limits("--cores", "2")
    run("pause")
    found = limits("--hours", "22:00-07:00", "--hours", "sat,sun", "--only-idle", "--bandwidth", "3")
    assert (found["cores"], found["memory_mib"], found["only_idle"], found["bandwidth_mib_s"]) == (2, 8192, True, 3)
    assert found["hours"] == ["22:00-07:00", "sat,sun"]
    assert orders.load(home).pause is not None, "another limit is no end of a pause"
    assert limits("--hours", "")["hours"] == []
    assert "cores            2 (changed)" in run("limit")
    assert limits("--reset")["cores"] == 4


def test_a_limit_that_makes_no_sense_is_refused_and_changes_nothing(home: Path) -> None:
    for words in (("--hours", "night"), ("--cores", "5000"), ("--memory-mib", "-1")):
        run("limit", *words, code=1)
    assert not (home / orders.NAME).exists()


def test_hours_that_are_none_are_refused_in_a_sentence_with_what_to_write() -> None:
    shown = CliRunner().invoke(app, ["node", "limit", "--hours", "foo", "--json"])
    assert json.loads(shown.output)["error"]["sentence"] == (
        "tallymesh node limit: hours = foo: 'foo' is no day (mon, tue, wed, thu, fri, sat, sun): "
        "write 22:00-07:00, 'mon-fri 19:00-23:30' or 'sat,sun'"
    )


def test_what_holds_is_shown_in_words_that_say_what_a_zero_means(home: Path) -> None:
    shown = run("limit", "--hand-over", "0")
    rows = dict(line.split(None, 1) for line in shown.splitlines())
    assert rows["cores"] == "all there are"
    assert rows["disk_gib"] == "half of what is free"
    assert rows["bandwidth_mib_s"] == "no limit"
    assert rows["hand_over_s"] == "0 (changed)"
    assert "paused" not in rows


def test_a_home_of_nobody_is_refused_in_a_sentence() -> None:
    assert "nobody on this machine" in run("limit", "--home", "~nobody-of-that-name/node", code=1)


def test_what_holds_includes_a_pause_until_it_is_over(home: Path) -> None:
    run("pause")
    assert "paused           until: tallymesh node resume" in run("limit")
    assert json.loads(run("limit", "--json"))["paused"] is True
    run("pause", "--for", "2h")
    assert "paused           until 2" in run("limit")
    orders.save(home, orders.Orders(pause=orders.Pause(until=time.time() - 1)))
    assert "paused" not in run("limit")
    assert json.loads(run("limit", "--json"))["paused"] is False


@pytest.mark.parametrize("words", [["pause"], ["resume"], ["limit", "--cores", "1"]], ids=" ".join)
def test_who_means_a_folder_in_which_no_node_runs_is_told_so(home: Path, words: list[str]) -> None:
    warning = f"no node runs in {home} now: it holds from the next start on"
    assert warning in run(*words)
    assert json.loads(run(*words, "--json"))["node_runs"] is False
    with FolderLock(home):
        assert warning not in run(*words)
        assert json.loads(run(*words, "--json"))["node_runs"] is True


def test_to_look_writes_nothing(home: Path) -> None:
    run("limit")
    assert list(home.iterdir()) == []
