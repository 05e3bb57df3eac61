"""What every test gets: hypothesis without chance, and a run that fails where a promised test was skipped."""

from __future__ import annotations

import functools
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from fakes.interpreter import Interpreter, start

# Thousands of tests and all that they import stay until the end: the collector would walk over them again and again, a
# third of what collecting tests costs, and later in the middle of a test. It begins once they are all there.
gc.disable()
# … and then looks after so many new objects, and after so many looks of the first and of the second kind. Python's own
# 700, 10, 10 are 4 % of what the tests take.
COLLECT = (5_000, 20, 20)

settings.register_profile("tallymesh", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("tallymesh")

_PROMISED = set(re.findall(r"`(tests/[^`]+::[^`]+)`", (Path(__file__).parent.parent / "docs/promises.md").read_text()))
_skipped: list[str] = []
_RECURSION_LIMIT = sys.getrecursionlimit()


# End-to-end files, longest group first. Those of a group share one process, and so one market (end_to_end/conftest.py);
# the demo and the kills start networks of their own.
GROUPS = (
    ("test_claims", "test_accusations", "test_faults", "test_operator", "test_probation"),
    ("test_blindness", "test_cheats", "test_programs", "test_noise"),
    ("test_demo", "test_chaos"),
)
# What computes steps back for the end-to-end tests of other processes, which wait most of the time and for each other.
NICE = 5
# Folders whose files share one process, too, for what is dear to start: two chains with all contracts, a template with
# torch, a database server. The slowest comes first.
TOGETHER = ("ledger/chain", "strangers", "learning", "node/sandbox", "ledger/index")


class Together(LoadScopeScheduling):
    """Where several processes run the tests, a file stays with one of them, and so does a group or such a folder."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(Path(nodeid.split("::")[0]))


@functools.cache
def _place(path: Path) -> int:
    """When its turn comes: end-to-end tests first, which wait more than they compute, then what is long."""
    if _end_to_end(path):
        return next((number for number, group in enumerate(GROUPS) if path.stem in group), 0)
    folder = path.parent.as_posix()
    found = (number for number, name in enumerate(TOGETHER) if folder.endswith(f"tests/{name}"))
    return len(GROUPS) + next(found, len(TOGETHER))


def _scope(path: Path) -> str:
    place = _place(path)
    return str(path) if place == len(GROUPS) + len(TOGETHER) else f"group {place}"


def _end_to_end(path: Path) -> bool:
    return path.parent.name == "end_to_end"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Together:
    return Together(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three for all tests, one more than two cores, since a fifth of the time is waiting; none for some: what a process
    of its own costs is more than it brings there."""
    return 3 if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The run would else wait for the longest at its end."""
    items.sort(key=lambda item: _place(item.path))
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:  # the processes that share the tests must agree on their names
        raise pytest.UsageError(f"A test's name holds an address in memory: {unstable[0]}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Importing eth-account or web3 raises the recursion limit of the whole process to 100,000 (py_ecc does it): tests
    of deeply nested input would overflow the C stack instead of meeting the RecursionError that users get."""
    sys.setrecursionlimit(_RECURSION_LIMIT)
    gc.freeze()
    gc.set_threshold(*COLLECT)
    gc.enable()


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """Runs users' programs, with torch loaded."""
    with start() as started:
        yield started


@functools.cache
def _step_back() -> None:
    """Once in a process."""
    os.nice(NICE)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not _end_to_end(item.path) and hasattr(item.config, "workerinput"):
        _step_back()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and report.nodeid.split("[")[0] in _PROMISED:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for nodeid in _skipped:
        terminalreporter.write_line(f"PROMISED BUT SKIPPED: {nodeid}", red=True)
