"""Docs that are generated say what the code says, and links between pages lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_state_machines_in_the_docs_are_those_of_the_code() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/sync_docs", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_begins_with_what_it_is_the_two_commands_and_a_balance() -> None:
    text = (ROOT / "README.md").read_text()
    parts = ["A decentralized compute marketplace", "scripts/demo", "scripts/test", "## See a balance move", "│ payer"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert places[0] < 40
    for command in ("scripts/demo", "scripts/test"):
        assert (ROOT / command).exists()


def test_every_decision_is_dated_and_no_page_speaks_of_a_machine_of_ours() -> None:
    for page in (ROOT / "docs/decisions").glob("*.md"):
        assert re.search(r"20\d\d-\d\d-\d\d", page.read_text()), page.name
    for page in PAGES:
        assert "/work/" not in page.read_text(), page.name
