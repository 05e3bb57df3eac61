"""Tests run by forks of a process that has imported everything that is not ours: a trial costs its tests, and not two
seconds of imports before them.

The process reads a question a line and answers with a line. Knows no check and no table.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mutation import swapped

ROOT = Path(__file__).resolve().parents[3]
LIKE = ("tests/node/payer/test_doors.py", "tests/contracts/test_cases.py")  # between them they import what most do
OURS = ("tallymesh", "fakes", "mutation", "judge", "conftest", "test_", "tests")
DEEP = ("eth.", "py_ecc")  # they raise the recursion limit of whoever imports them, and some tests go to that limit
# pytest would rewrite asserts of its own plugins, were it the first to import them. No trial needs that.
QUIET = "ignore::pytest.PytestAssertRewriteWarning"


class Answer(msgspec.Struct, frozen=True):
    """`failed`: ids of tests (or of files that cannot be read), the first first; `problem`: no test could be run."""

    failed: list[str]
    problem: str = ""


class Warm:
    """The process; it ends with its caller."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT / "scripts/support"), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mutation.warm"], cwd=ROOT, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def failing(self, told: Mapping[str, Mapping[str, str]], tests: Sequence[str], most: int, seconds: float) -> Answer:
        """What fails of these tests with `told` swapped (swapped.py), at most `most`. Raises TimeoutError."""
        assert self._process.stdin
        assert self._process.stdout
        question = {"told": told, "tests": list(tests), "most": most, "seconds": seconds}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process of the tests ended"
        answer = msgspec.json.decode(line, type=Answer | None)
        if answer is None:
            raise TimeoutError(f"no end after {seconds:g} s: {' '.join(tests)}")
        return answer


class _Failures:
    """A plugin of pytest: notes what failed."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report.failed, report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report.failed, report.nodeid)

    def _note(self, failed: bool, id_: str) -> None:
        if failed and id_ not in self.ids:
            self.ids.append(id_)


def _run(question: dict[str, Any]) -> Answer:
    swapped.swap(question["told"])
    failures = _Failures()
    arguments = ["-q", "-m", "", "-W", QUIET, "-p", "no:cacheprovider", "--tb=no", f"--maxfail={question['most']}"]
    try:
        status = pytest.main([*arguments, *question["tests"]], plugins=[failures])
    except ExceptionGroup:  # what was left open shows when all is over; no test's name is on it
        status = pytest.ExitCode.TESTS_FAILED
    if failures.ids or status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return Answer(failures.ids)
    return Answer([], f"pytest ended with {status!r}: {' '.join(question['tests'])}")


def _imported() -> list[str]:
    """Modules that collecting tests imports and that are not ours."""
    pytest.main(["--collect-only", "-q", "-m", "", "-p", "no:cacheprovider", *LIKE])
    return sorted(name for name in sys.modules if name != "eth" and not name.startswith((*OURS, *DEEP)))


def _forked(what: Callable[[], Any], seconds: float) -> bytes | None:
    """What a fork returns, as JSON; None where it did not end in time."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):  # what goes wrong in pytest itself is shown
            os.dup2(nothing, stream)
        data = msgspec.json.encode(what())
        while data:
            data = data[os.write(writer, data) :]
        os._exit(0)
    os.close(writer)
    found = b""
    try:
        while select.select([reader], [], [], seconds)[0]:
            piece = os.read(reader, 1 << 16)
            if not piece:
                return found
            found += piece
        return None
    finally:
        os.close(reader)
        os.killpg(child, signal.SIGKILL)  # with what it started; if it has ended, it still waits to be waited for
        os.waitpid(child, 0)


def main() -> None:
    limit = sys.getrecursionlimit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that warn when they are imported
        for name in json.loads(_forked(_imported, 120) or b"[]"):
            try:
                importlib.import_module(name)
            except ImportError:
                continue  # what has another name there than here
    assert sys.getrecursionlimit() == limit, "one of these modules is to be left out"
    for line in sys.stdin:
        question = json.loads(line)

        def run(question: dict[str, Any] = question) -> Answer:
            return _run(question)

        answer = _forked(run, question["seconds"])
        if answer == b"":
            answer = msgspec.json.encode(Answer([], "the tests' process died"))
        sys.stdout.write((answer or b"null").decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
