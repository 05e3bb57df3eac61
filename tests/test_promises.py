"""docs/promises.md names only tests that exist, and scripts that can be run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fakes.named import names_in

ROOT = Path(__file__).resolve().parent.parent


def promised() -> list[tuple[str, str]]:
    """(promise, what shows it) of every line of the tables."""
    lines = (ROOT / "docs/promises.md").read_text().splitlines()
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")]
    return [(row[0], row[1]) for row in rows if len(row) == 2 and row[1] and row[0] != "promise"]


@pytest.mark.parametrize(("promise", "shown_by"), promised())
def test_a_promise_is_shown_by_something_that_exists(promise: str, shown_by: str) -> None:
    if shown_by == "open":
        return
    named = re.findall(r"`([^`]+)`", shown_by)
    assert named, f"{promise}: nothing is named"
    for name in named:
        path, _, test = name.partition("::")
        file = ROOT / path.split()[0]
        assert file.is_file(), f"{promise}: {path} does not exist"
        if test:
            assert test in names_in(file), f"{promise}: {path} has no {test}"
        else:
            assert os.access(file, os.X_OK), f"{promise}: {path} cannot be run"


def test_every_line_has_its_proof_or_says_open() -> None:
    lines = (ROOT / "docs/promises.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| **")]
    assert all(len(row.strip("|").split("|")) == 2 for row in rows)
