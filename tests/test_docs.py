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


def test_every_program_that_is_named_exists_or_is_plainly_the_readers_own() -> None:
    """A newcomer types what is shown: `train.py` once was nowhere to be found."""
    sources = [
        *PAGES,
        *sorted((ROOT / "node/tallymesh_node/cli").glob("*.py")),
        *sorted((ROOT / "examples").glob("*.py")),
    ]
    named: set[str] = set()
    for source in sources:
        for program in re.findall(r"tallymesh run (?:--\S+ (?:local )?)*([\w./]+)", source.read_text()):
            named.add(program)
            own = program in ("PROGRAM", "job.toml") or program.startswith("my_")
            assert own or (ROOT / program).is_file(), f"{source.name} runs {program}"
    assert {"examples/map_area.py", "examples/train_digits.py"} <= named


def test_what_an_example_imports_is_explained_where_it_is_shown() -> None:
    for page in (ROOT / "docs/how-to").glob("*.md"):
        text = page.read_text()
        for line in re.findall(r"^import (.+)$", text, re.MULTILINE):
            for module in line.split(", "):
                known = module in ("torch", "tallymesh") or f"examples/{module}.py" in text
                assert known, f"{page.name} imports {module} and does not say what it is"


def test_the_lowest_price_is_said_wherever_the_highest_one_is_described() -> None:
    described = [page for page in (ROOT / "docs/how-to").glob("*.md") if "max_price" in page.read_text()]
    assert len(described) >= 2
    for page in [*described, ROOT / "protocol/tallymesh/client/submit.py"]:
        assert "3600 wei" in page.read_text(), page.name
