"""What every test gets: hypothesis without chance, and a run that fails where a promised test was skipped."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Thousands of tests and all that they import stay until the end: the collector would walk over them again and again, a
# third of what collecting tests costs, and later in the middle of a test. It begins once they are all there.
gc.disable()

settings.register_profile("tallymesh", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("tallymesh")

_PROMISED = set(re.findall(r"`(tests/[^`]+::[^`]+)`", (Path(__file__).parent.parent / "docs/promises.md").read_text()))
_skipped: list[str] = []
_RECURSION_LIMIT = sys.getrecursionlimit()


# End-to-end files, longest group first. Those of a group share one process, and so one market (end_to_end/conftest.py);
# the demo and the kills start networks of their own.
GROUPS = (
    ("test_claims", "test_accusations", "test_faults", "test_operator", "test_probation"),
    ("test_blindness", "test_cheats", "test_programs"),
    ("test_demo",),
    ("test_chaos",),
)


class Together(LoadScopeScheduling):
    """Where several processes run the tests (`scripts/test`), a file stays with one of them, and so does a group."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.split("::")[0])
        return f"group {_group(file)}" if _end_to_end(file) else str(file)


def _end_to_end(file: Path) -> bool:
    return file.parent.name == "end_to_end"


def _group(file: Path) -> int:
    return next((number for number, group in enumerate(GROUPS) if file.stem in group), 0)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The end-to-end tests come first: they wait more than they compute, and the run would else wait for the longest at
    its end."""
    items.sort(key=lambda item: _group(item.path) if _end_to_end(item.path) else len(GROUPS))
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:  # the processes that share the tests must agree on their names
        raise pytest.UsageError(f"A test's name holds an address in memory: {unstable[0]}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Importing eth-account or web3 raises the recursion limit of the whole process to 100,000 (py_ecc does it): tests
    of deeply nested input would overflow the C stack instead of meeting the RecursionError that users get."""
    sys.setrecursionlimit(_RECURSION_LIMIT)
    gc.freeze()
    gc.enable()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and report.nodeid.split("[")[0] in _PROMISED:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for nodeid in _skipped:
        terminalreporter.write_line(f"PROMISED BUT SKIPPED: {nodeid}", red=True)
