"""The owner's word as a file: written whole, read back, and never believed where it is something else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tallymesh.errors import CallerError, LocalError
from tallymesh_node.config import CHANGEABLE, Config, changed, load
from tallymesh_node.limits import orders
from tallymesh_node.limits.orders import NAME, Orders, Pause


@pytest.mark.parametrize("pause", [None, Pause(math.inf), Pause(1.8e9), Pause(math.inf, at_once=True)])
def test_what_was_said_is_read_again(tmp_path: Path, pause: Pause | None) -> None:
    said = Orders(pause=pause, changes={"cores": 2, "only_idle": True, "hours": ("22:00-07:00",)})
    orders.save(tmp_path / "new", said)
    assert orders.load(tmp_path / "new") == said
    assert [path.name for path in (tmp_path / "new").iterdir()] == [NAME]


def test_a_pause_beyond_all_calendars_is_one_for_ever(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"paused": true, "until": 1e300}')
    assert orders.load(tmp_path).pause == Pause(math.inf)


def test_nothing_was_said_where_there_is_no_file(tmp_path: Path) -> None:
    assert orders.load(tmp_path) == Orders()
    assert orders.stamp(tmp_path) == (0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"paused": 1}',
        b'{"pause": true}',
        b"\xff",
        b'{"changes": {"\xff": 1}}',
        b'{"x": ' + b"[" * 10_000,
        b'{"until": 1e400}',
        b" " * 20_000 + b"{}",
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / NAME).write_bytes(data)
    with pytest.raises(LocalError) as caught:
        orders.load(tmp_path)
    assert caught.value.code == "bad_orders"
    assert str(tmp_path / NAME) in caught.value.sentence
    assert "Remove it" in caught.value.remedy


def test_each_word_changes_the_stamp(tmp_path: Path) -> None:
    orders.save(tmp_path, Orders(pause=Pause(math.inf)))
    first = orders.stamp(tmp_path)
    orders.save(tmp_path, Orders())
    assert orders.stamp(tmp_path) != first


def test_a_folder_that_cannot_be_written_is_this_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError) as caught:
        orders.save(tmp_path / "file", Orders())
    assert caught.value.code == "disk"


# The same settings in config.toml, the environment and by `node limit`.


def config(tmp_path: Path) -> Config:
    return load({"home": tmp_path}, environment={})


def test_settings_of_the_file_and_the_environment_become_limits(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('hours = ["mon-fri 19:00-23:30", "sat,sun"]\nonly_idle = true\n')
    found = load({"home": tmp_path}, environment={"TALLYMESH_HAND_OVER_S": "5", "TALLYMESH_CORES": "3"})
    assert found.limits.only_idle
    assert (found.limits.hand_over_s, found.limits.cores, len(found.limits.hours.spans)) == (5, 3, 7)
    spans = load({"home": tmp_path}, environment={"TALLYMESH_HOURS": "mon,tue 1:00-2:00; sun"}).limits.hours.spans
    assert len(spans) == 3, "days of one span are apart by commas, spans by semicolons"


@pytest.mark.parametrize(
    "line",
    ['hours = ["night"]', "hours = 3", "only_idle = 2", 'only_idle = "perhaps',
     "hand_over_s = -1", "idle_after_s = 0"],
)  # fmt: skip
def test_a_limit_that_makes_no_sense_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "config.toml").write_text(f"\n{line}\n")
    with pytest.raises(CallerError) as caught:
        config(tmp_path)
    assert "line 2" in caught.value.sentence


def test_only_limits_change_while_a_node_runs(tmp_path: Path) -> None:
    base = config(tmp_path)
    assert changed(base, {"cores": 7, "hours": ("sat",)}).limits.cores == 7
    assert changed(base, {}) == base
    for name, value in (("home", "/"), ("password_file", "/x"), ("roles", ("submit",)), ("core", 1), ("cores", "many")):
        with pytest.raises(CallerError):
            changed(base, {name: value})
    assert set(CHANGEABLE) <= set(Config.__struct_fields__)
