"""What every test gets: the deterministic hypothesis profile, and a run that fails where a promised test was skipped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("tallymesh", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("tallymesh")

_PROMISED = set(re.findall(r"`(tests/[^`]+::[^`]+)`", (Path(__file__).parent.parent / "docs/promises.md").read_text()))
_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and report.nodeid.split("[")[0] in _PROMISED:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for nodeid in _skipped:
        terminalreporter.write_line(f"PROMISED BUT SKIPPED: {nodeid}", red=True)
