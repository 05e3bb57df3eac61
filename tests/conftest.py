"""What every test gets: hypothesis without chance, and a run that fails where a promised test was skipped."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("tallymesh", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("tallymesh")

_PROMISED = set(re.findall(r"`(tests/[^`]+::[^`]+)`", (Path(__file__).parent.parent / "docs/promises.md").read_text()))
_skipped: list[str] = []
_RECURSION_LIMIT = sys.getrecursionlimit()


APART = {"test_demo": "apart", "test_chaos": "apart"}  # end-to-end tests that start networks of their own


class Together(LoadScopeScheduling):
    """Where several processes run the tests (`scripts/test`), a file stays with one of them, and so does the market."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.split("::")[0])
        return str(file) if file.parent.name != "end_to_end" else APART.get(file.stem, "market")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The end-to-end tests come last: they share one running market, whose address and environment stay set until the
    run ends, and whose processes would take the cores of whatever came after them."""
    items.sort(key=lambda item: item.path.parent.name == "end_to_end")
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:  # the processes that share the tests must agree on their names
        raise pytest.UsageError(f"A test's name holds an address in memory: {unstable[0]}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Importing eth-account or web3 raises the recursion limit of the whole process to 100,000 (py_ecc does it): tests
    of deeply nested input would overflow the C stack instead of meeting the RecursionError that users get."""
    sys.setrecursionlimit(_RECURSION_LIMIT)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and report.nodeid.split("[")[0] in _PROMISED:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for nodeid in _skipped:
        terminalreporter.write_line(f"PROMISED BUT SKIPPED: {nodeid}", red=True)
