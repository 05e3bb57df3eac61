"""A network file that is not there: what to do about it depends on whether this machine runs a network of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallymesh import network
from tallymesh.errors import CallerError


@pytest.mark.parametrize("started", [False, True], ids=["no local network", "a local network"])
def test_who_has_no_network_file_is_told_of_the_local_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path))
    local = tmp_path / "up" / "network.json"
    if started:
        local.parent.mkdir()
        local.touch()
    with pytest.raises(CallerError, match="There is no network file at ") as refused:
        network.load(tmp_path / "network.json")
    said = f"'tallymesh up' wrote {local}." if started else "'tallymesh up' makes a local network."
    assert refused.value.remedy.endswith(said)
