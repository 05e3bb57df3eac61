"""The service's file: what it says, that systemd takes it, and that odd words in it stay what they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.shell import CliRunner
from tallymesh.errors import CallerError
from tallymesh.network import Contracts, Network, save
from tallymesh_node.cli.app import app
from tallymesh_node.installing import rooted, unit_file, unit_path

ODD = ["--home", '/srv/a "b" 100% $HOME\\x', "--announce", "/ip4/1.2.3.4/tcp/4001"]


def values(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folder with a network file, systemd's of its owner, and no systemd."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))
    save(
        Network("test", 5, ("http://127.0.0.1:1",), Contracts(*("0x" + "11" * 20,) * 3)), tmp_path / "home/network.json"
    )
    return tmp_path / "home"


def test_the_service_starts_the_same_command_again_and_keeps_its_folders() -> None:
    environment = {"TALLYMESH_HOME": "/srv/my node", "TALLYMESH_TOKEN": "secret", "PATH": "/bin"}
    text = unit_file(["--stake", "1"], environment, python="/opt/py/bin/python")
    assert values(text, "ExecStart") == ["/opt/py/bin/python -m tallymesh_node.cli node start --stake 1"]
    assert values(text, "Environment") == ['"TALLYMESH_HOME=/srv/my node"']
    assert values(text, "Restart") == ["on-failure"]
    assert values(text, "WantedBy") == ["default.target"]
    assert values(text, "User") == [], "a user's own service has none"


def test_words_are_quoted_as_systemd_reads_them() -> None:
    (command,) = values(unit_file(ODD, {}, python="python"), "ExecStart")
    assert command.endswith('--home "/srv/a \\"b\\" 100%% $$HOME\\\\x" --announce /ip4/1.2.3.4/tcp/4001')


@pytest.mark.parametrize("word", ["a\nExecStartPre=/bin/rm", "a\tb", "\x7f", "a\x00"])
def test_a_word_cannot_add_a_line(word: str) -> None:
    with pytest.raises(CallerError):
        unit_file([word], {})
    with pytest.raises(CallerError):
        unit_file([], {"TALLYMESH_HOME": f"/{word}"})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here to ask")
@pytest.mark.parametrize("arguments", [[], ["--stake", "1"], ODD])
def test_systemd_takes_the_file_as_it_is(tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "tallymesh.service"
    path.write_text(unit_file(arguments, {"TALLYMESH_HOME": str(tmp_path)}))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(path)],
        capture_output=True, text=True, timeout=300, check=False,
        env={"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if path.name in line]
    assert (done.returncode, said) == (0, []), done.stderr
    path.write_text(path.read_text().replace("Restart=on-failure", "Restart=perhaps"))
    wrong = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(path)],
        capture_output=True, text=True, timeout=300, check=False,
        env={"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    assert "perhaps" in wrong.stderr, "it does look at the file"


def test_install_writes_the_file_where_systemd_looks_and_remove_takes_it_away(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a systemctl that writes down how it was called: no test may start a service of this machine's user."""
    calls, tools = tmp_path / "calls", tmp_path / "bin"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$*" >> {calls}\n')
    (tools / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    path = unit_path({"XDG_CONFIG_HOME": str(tmp_path / "config")})
    done = CliRunner().invoke(app, ["node", "install", "--", "--stake", "1"])
    assert done.exit_code == 0, done.output
    assert values(path.read_text(), "ExecStart")[0].endswith("node start --stake 1")
    assert values(path.read_text(), "ExecStart")[0].startswith(sys.executable)
    assert values(path.read_text(), "Environment") == [f"TALLYMESH_HOME={tmp_path / 'home'}"]
    assert calls.read_text().splitlines() == ["--user daemon-reload", "--user enable --now tallymesh.service"]
    done = CliRunner().invoke(app, ["node", "install", "--remove"])
    assert done.exit_code == 0, done.output
    assert not path.exists()
    assert "--user disable --now tallymesh.service" in calls.read_text()
    assert CliRunner().invoke(app, ["node", "install", "--remove"]).exit_code == 1


def test_where_systemd_does_not_answer_the_next_step_is_named(tmp_path: Path, home: Path) -> None:
    done = CliRunner().invoke(app, ["node", "install"])
    assert done.exit_code == 1, "a script that goes on would believe that a node runs"
    told = CliRunner().invoke(app, ["node", "install", "--json"])
    assert (told.exit_code, json.loads(told.output)["started"]) == (1, False)
    assert CliRunner().invoke(app, ["node", "install", "--no-start"]).exit_code == 0, "nobody asked to start it"
    assert "There is no systemd here." in done.output
    assert "systemctl --user enable --now tallymesh" in done.output
    shown = CliRunner().invoke(app, ["node", "install", "--print"])
    assert shown.output == (tmp_path / "config/systemd/user/tallymesh.service").read_text()


def test_a_service_that_cannot_be_removed_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = unit_path({"XDG_CONFIG_HOME": str(tmp_path / "config")})
    path.mkdir(parents=True)  # which `unlink` refuses even to root
    done = CliRunner().invoke(app, ["node", "install", "--remove", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.output)["error"]["code"] == "disk"


def test_a_machine_without_a_network_file_gets_no_service_that_could_not_start(tmp_path: Path, home: Path) -> None:
    (home / "network.json").rename(tmp_path / "mynet.json")
    for words in ([], ["--", "--stake", "1"], ["--", "--network", "elsewhere.json"]):
        done = CliRunner().invoke(app, ["node", "install", "--json", *words])
        assert done.exit_code == 1
        error = json.loads(done.output)["error"]
        assert error["code"] == "no_network"
        assert "tallymesh node install -- --network FILE" in error["remedy"]
    assert not (tmp_path / "config").exists()
    for words in (["--network", str(tmp_path / "mynet.json")], [f"--network={tmp_path / 'mynet.json'}"]):
        assert CliRunner().invoke(app, ["node", "install", "--no-start", "--", *words]).exit_code == 0


def test_words_that_no_node_starts_with_make_no_service(tmp_path: Path, home: Path) -> None:
    done = CliRunner().invoke(app, ["node", "install", "--", "--stakes", "1"])
    assert done.exit_code == 2
    assert "--stakes" in done.output
    assert not (tmp_path / "config").exists()


def test_paths_mean_the_same_file_where_the_service_begins(tmp_path: Path) -> None:
    words = ["--network", "mynet.json", "--home=my node", "--stake", "1", "--config", "/etc/t.toml"]
    here = str(tmp_path)
    assert rooted(words, tmp_path) == [
        "--network", f"{here}/mynet.json", f"--home={here}/my node", "--stake", "1", "--config", "/etc/t.toml",
    ]  # fmt: skip
