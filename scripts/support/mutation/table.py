"""The tables of docs/TRUST.md that say which test fails without which check: read and written. Runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/TRUST.md"
HEADING = "## Every check and the test that fails without it"
CONTRACTS = "### Contracts"
OPEN = "open"  # no test is known yet
PROGRAMS = "### Programs"


class Row(msgspec.Struct, frozen=True, order=True):
    """`where`: `JobEscrow.open`, or `module:Class.function`; `check`: the condition under which it refuses; `why`: the
    error or the refusal; `test`: "path::name", or what is to be said of a check that no test can miss."""

    where: str
    check: str
    why: str
    test: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.where, self.check, self.why

    @property
    def named(self) -> bool:
        return "::" in self.test


def rows(part: str) -> list[Row]:
    """Of one of the two tables."""
    _, _, section = PAGE.read_text().partition(f"{HEADING}\n")
    _, _, text = section.partition(f"{part}\n")
    text = re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = []
    for line in text.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if len(cells) == 4 and cells[0].startswith("`"):
            found.append(Row(*(cell.strip("`") for cell in cells)))
    return found


def write(part: str, told: Iterable[Row]) -> None:
    """In place of what stands there."""
    lines = [
        f"| `{row.where}` | `{_cell(row.check)}` | {row.why} | {f'`{row.test}`' if row.named else row.test} |"
        for row in told
    ]
    before, heading, rest = PAGE.read_text().partition(f"{HEADING}\n")
    assert heading, f"docs/TRUST.md has no {HEADING}"
    introduction, title, tail = rest.partition(f"{part}\n")
    assert title
    head = re.match(r"(?:(?!\|).*\n)*\|.*\n\|---.*\n", tail)
    assert head
    after = re.sub(r"\A(?:\|.*\n)*", "", tail[head.end() :])
    PAGE.write_text(before + heading + introduction + title + head[0] + "\n".join(lines) + "\n" + after)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
