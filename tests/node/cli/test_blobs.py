"""`tallymesh blob`: what lies in the store and why, pins, and what goes at the owner's word."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.node import FakeNode, Served, serve
from fakes.shell import CliRunner
from tallymesh.ids import BlobId, blob_id
from tallymesh_node.blobs.room import FRESH_S, PINNED, Holder
from tallymesh_node.cli.app import app


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("TALLYMESH_NODE", "TALLYMESH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serve(FakeNode(tmp_path / "home")) as running:
        yield running


def stored(served: Served, data: bytes) -> BlobId:
    """A blob that was not used for a while."""
    blob = served.node.store.put(data)
    served.node.store._used[blob] = time.time() - 2 * FRESH_S
    return blob


def told(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["blob", *arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_what_lies_there_is_shown_with_who_needs_it(served: Served) -> None:
    big, small, free = stored(served, bytes(3 << 20)), stored(served, b"small"), stored(served, b"free")
    served.node.room.holders = [Holder(name="your jobs that run", now=lambda: {small})]
    later = blob_id(b"later")
    for blob in (big, later):
        told("pin", blob.hex())
    view = told("ls")
    assert [(row["id"], row["needed"], row["pinned"]) for row in view["rows"]] == [
        (big.hex(), [PINNED], True),
        (small.hex(), ["your jobs that run"], False),
        (free.hex(), [], False),
    ]
    assert view["needed"] == {"your jobs that run": 5, PINNED: 3 << 20}
    assert view["absent"] == [later.hex()]
    assert (view["blobs"], view["bytes"]) == (3, (3 << 20) + 9)
    shown = CliRunner().invoke(app, ["blob", "ls"]).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert lines[1] == [big.hex()[:12], "3.0", "MiB", "20", "min", "pinned", "by", "the", "owner"]
    assert ["pinned,", "not", "here", later.hex()[:12]] in lines


def test_pins_are_set_and_taken_away_and_last(served: Served) -> None:
    blob = stored(served, b"data")
    assert told("pin", blob.hex()[:12]) == {"id": blob.hex(), "pinned": True, "here": True}
    assert told("gc") == {"blobs": 0, "bytes": 0}
    assert told("rm", blob.hex()[:12], code=1)["error"]["code"] == "pinned"
    assert (served.node.store.folder / "pins" / blob.hex()).exists()
    assert told("unpin", blob.hex()[:12]) == {"id": blob.hex(), "pinned": False, "here": True}
    assert told("gc") == {"blobs": 1, "bytes": 4}
    said = CliRunner().invoke(app, ["blob", "pin", blob.hex()]).stdout
    assert said == f"pinned {blob.hex()[:12]}, which is not here yet\n"


def test_what_is_in_use_is_not_removed_and_what_is_not_there_is_said(served: Served) -> None:
    running, result = stored(served, b"running"), stored(served, b"result")
    served.node.room.holders = [Holder(name="your jobs that run", now=lambda: {running})]
    error = told("rm", running.hex(), code=1)["error"]
    assert (error["code"], "your jobs that run" in error["sentence"]) == ("needed", True)
    assert told("rm", result.hex()) == {"id": result.hex(), "bytes": 6}
    assert told("rm", result.hex(), code=1)["error"]["code"] == "no_blob"
    assert told("rm", "", code=1)["error"]["code"] == "no_blob"
    assert told("rm", "zz", code=1)["error"]["code"] == "no_blob"
    assert told("pin", "z" * 64, code=1)["error"]["code"] == "bad_blob_id"


def test_an_upload_makes_room_and_is_refused_by_what_holds_it(served: Served) -> None:
    from tallymesh.client.session import current
    from tallymesh.errors import LocalError

    old, used = stored(served, b"o" * 1000), stored(served, b"u" * 1000)
    room = served.node.room
    room._limit = lambda: 4 << 20
    room.holders = [Holder(name="your jobs that run", now=lambda: {used})]
    data = bytes((4 << 20) - 1500)
    current().upload({blob_id(data): data})
    assert [served.node.store.has(blob) for blob in (old, used, blob_id(data))] == [False, True, True]
    for more in (b"small" * 200, bytes(1 << 20)):  # in a bundle, and by itself
        with pytest.raises(LocalError) as error:
            current().upload({blob_id(more): more})
        assert error.value.code == "no_room"
        assert "your jobs that run" in error.value.sentence
