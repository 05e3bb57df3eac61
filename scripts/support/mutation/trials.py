"""Who notices a change: the differential's judge, the Solidity tests on swapped artifacts, the Python tests on swapped
bytecode or on a swapped module. Each says which test failed first, or nothing.

Knows neither operators nor tables. A trial that takes far longer than the unchanged one counts as noticed.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from judge import teeth
from judge.modules import load

from mutation.compiler import NODE, PROJECT, ROOT
from mutation.warm import Warm

SOLIDITY_S = 90  # all but the slow files take 5
SLOW_S = 300
PYTEST_S = 120  # tests/contracts takes 40 on a busy machine
ALL_S = 900  # every test that a table names, once
SLOW_FILES = ("Invariants.t.sol", "QuarrelPaths.t.sol")
# They show what is refused in every state: right, but a test whose name states the case says more.
GENERIC = (
    "QuarrelStates.t.sol",
    "Invariants.t.sol",
    "QuarrelPaths.t.sol",
    "test_states.py",
    "test_money_invariants.py",
)
# contract -> Solidity tests that are about it: a second instead of five
ABOUT = {
    "Registry": ("Registry.t.sol",),
    "JobEscrow": ("Open.t.sol", "Settle.t.sol", "End.t.sol", "Audits.t.sol"),
    "Claims": ("Checks.t.sol", "Claims.t.sol", "Accusations.t.sol"),
    "Accusations": ("Checks.t.sol", "Accusations.t.sol"),
    "Court": ("Checks.t.sol", "Court.t.sol", "Accusations.t.sol"),
}
# Gas is no sense of the money: a change that only costs more is not noticed by these.
PYTHON_TESTS = tuple(
    f"tests/contracts/test_{name}.py"
    for name in (
        "constructors", "attacks", "dust", "rewards", "newcomers", "debt", "digests", "cases", "checks", "review",
        "states", "money_invariants",
    )
)  # fmt: skip
PYTHON_ABOUT = {
    "Registry": ("newcomers", "debt"),
    "JobEscrow": ("attacks", "dust", "newcomers"),
    "Rewards": ("rewards",),
    "Claims": ("cases", "review"),
    "Accusations": ("cases", "review"),
    "Court": ("cases", "review"),
}
Codes = Mapping[str, bytes]


def python_tests(codes: Codes) -> list[str]:
    """Those that run on the bytecode: the ones about these contracts first, the generic ones last."""
    first = [f"tests/contracts/test_{name}.py" for code in codes for name in PYTHON_ABOUT.get(code, ())]
    known = [path for path in dict.fromkeys((*first, *PYTHON_TESTS)) if (ROOT / path).exists()]
    others = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/contracts").glob("test_*.py"))
    return known[:-2] + [path for path in others if path not in known and "gas" not in path] + known[-2:]


def judged(codes: Codes, episodes: int) -> str:
    """How contract and model came to differ within so many episodes; empty where they did not."""
    calls, how = teeth.noticed(load(), codes, episodes)
    return f"after {calls} calls: {how}" if how else ""


def by_pytest(
    told: Mapping[str, Mapping[str, str]], tests: Sequence[str], most: int = 1, seconds: int = PYTEST_S
) -> list[str]:
    """Ids of tests that fail with these `bytecode` and `sources` (swapped.py), at most `most`; the first come first."""
    try:
        answer = _warm().failing(told, tests, most, seconds)
    except TimeoutError:
        return [f"{tests[0]} (no end)"]
    assert not answer.problem, answer.problem
    return answer.failed


@functools.cache
def _warm() -> Warm:
    return Warm()


class Solidity:
    """A context: a copy of the contracts' project, whose artifacts may be swapped."""

    def __enter__(self) -> Solidity:
        self._folder = tempfile.TemporaryDirectory(prefix="tallymesh-mutation-")
        top = Path(self._folder.name)
        self._project = top / "contracts"
        self._project.mkdir()
        for name in ("hardhat.config.js", "package.json"):
            shutil.copy(PROJECT / name, self._project)
        for name in ("src", "test", "artifacts"):
            shutil.copytree(PROJECT / name, self._project / name)
        shutil.copytree(PROJECT / "cache", self._project / "cache", ignore=shutil.ignore_patterns("mutation"))
        shutil.copytree(ROOT / "tests/vectors", top / "tests/vectors")
        (self._project / "node_modules").symlink_to((PROJECT / "node_modules").resolve())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._folder.cleanup()

    def files(self, slow: bool) -> list[str]:
        names = sorted(path.name for path in (self._project / "test").glob("*.t.sol"))
        return [f"test/{name}" for name in names if (name in SLOW_FILES) == slow]

    def about(self, codes: Codes) -> list[str]:
        """The quick files that are about these contracts; all quick ones where none is known to be."""
        names = dict.fromkeys(file for name in codes for file in ABOUT.get(name, ()))
        return [f"test/{name}" for name in names] or self.files(slow=False)

    def failing(self, codes: Codes, files: Iterable[str], grep: str = "", seconds: int = SOLIDITY_S) -> list[str]:
        """`contracts/test/File.t.sol::test_name` of each test that fails with this code."""
        asked = list(files)
        try:
            return list(self.reasons(codes, asked, grep, seconds))
        except subprocess.TimeoutExpired:
            return [f"contracts/{asked[0]} (no end)"]

    def reasons(self, codes: Codes, files: Iterable[str], grep: str = "", seconds: int = SOLIDITY_S) -> dict[str, str]:
        """The same tests, and what is said of each. Raises subprocess.TimeoutExpired."""
        kept = {name: self._swap(name, code) for name, code in codes.items()}
        try:
            return _failures(self._output(list(files), grep, seconds))
        finally:
            for name, text in kept.items():
                self._artifact(name).write_text(text)

    def _artifact(self, name: str) -> Path:
        return self._project / f"artifacts/src/{name}.sol/{name}.json"

    def _swap(self, name: str, code: bytes) -> str:
        text = self._artifact(name).read_text()
        self._artifact(name).write_text(json.dumps({**json.loads(text), "bytecode": f"0x{code.hex()}"}))
        return text

    def _output(self, files: list[str], grep: str, seconds: int) -> str:
        command = [
            str(NODE), "node_modules/hardhat/dist/src/cli.js", "test", "solidity", "--no-compile",
            *(["--grep", grep] if grep else []), *files,
        ]  # fmt: skip
        path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "HARDHAT_DISABLE_TELEMETRY": "true", "PATH": path}
        done = subprocess.run(
            command, cwd=self._project, env=environment, capture_output=True, text=True, timeout=seconds
        )
        ended = re.search(r"^\s+\d+ (passing|failing)", done.stdout, re.MULTILINE)
        assert ended, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout


def _failures(output: str) -> dict[str, str]:
    """Test -> reason, out of what hardhat prints: the suites with their files first, the failures with reasons last."""
    files = {suite: file for file, suite in re.findall(r"^\s+(test/\S+\.sol):(\w+)$", output, re.MULTILINE)}
    failed = re.split(r"^\s+\d+ failing", output, maxsplit=1, flags=re.MULTILINE)
    if len(failed) < 2:
        return {}
    parts = re.split(r"^\s+\d+\) (\w+)#(\w+)\(", failed[1], flags=re.MULTILINE)
    return {
        f"contracts/{files[suite]}::{name}": why
        for suite, name, why in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def best(failed: Sequence[str], often: Mapping[str, int]) -> str:
    """Of the tests that notice a switched-off check the one that says most."""
    return min(failed, key=lambda test: weight(test, often))


def weight(test: str, often: Mapping[str, int]) -> tuple[bool, bool, int, str]:
    """Lightest: not a set-up, not a generic one, and the one that fewest other checks make fail."""
    file = test.split("::")[0].rpartition("/")[2]
    return test.endswith("::setUp"), file in GENERIC, often.get(test, 0), test
