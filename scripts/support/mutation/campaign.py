"""A run over many mutants: what is drawn, in which order it is tried, and what is kept of it, so that a run goes on
where it was stopped."""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mutation import equivalent, switches, trials
from mutation.compiler import FILES, Compiler, Stillborn, users
from mutation.operators import CHECK, Finder, Mutant
from tallymesh_ledger.chain import abi

COUNT = 300
FIRST_EPISODES = 3  # most changes show within these: a second each
MORE_EPISODES = 40
AT_ONCE = 24  # changes in one compilation: more would pass the largest size of a contract
CODE_MAX = 25_600  # bytes of creation code: 24,576 may be deployed, and the constructor comes on top
RESULTS = "mutation.jsonl"


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """`by`: who noticed it; empty where nobody did."""

    id: str
    file: str
    operator: str
    line: int
    shown: str
    by: str = ""
    test: str = ""
    seconds: float = 0.0
    same_bytecode: bool = False
    stillborn: bool = False
    argued: str = ""  # why it is the same, though its bytecode is not

    @property
    def counts(self) -> bool:
        return not self.same_bytecode and not self.stillborn and not self.argued


class Sources(msgspec.Struct):
    """What was read once."""

    text: dict[str, bytes]
    mutants: list[Mutant]


def read(compiler: Compiler) -> Sources:
    sources = Sources({}, [])
    for file in FILES:
        tree, text, enums = compiler.tree(file)
        sources.text[file] = text
        sources.mutants += Finder(file, tree, text, enums).all()
    return sources


def order(mutants: list[Mutant], seed: str) -> list[Mutant]:
    """All of them, drawn so that any beginning is spread: over the contracts by the root of what each offers, and
    within a contract over the operators in turn."""
    rng = random.Random(seed)
    groups: dict[str, dict[str, list[Mutant]]] = defaultdict(lambda: defaultdict(list))
    for mutant in mutants:
        groups[mutant.file][mutant.operator].append(mutant)
    streams = {file: list(_in_turn(groups[file], rng)) for file in groups}
    weights = {file: len(stream) ** 0.5 for file, stream in streams.items()}
    drawn: list[Mutant] = []
    taken: Counter[str] = Counter()
    while len(drawn) < len(mutants):
        open_ = [file for file in streams if taken[file] < len(streams[file])]
        file = min(open_, key=lambda each: ((taken[each] + 0.5) / weights[each], each))
        drawn.append(streams[file][taken[file]])
        taken[file] += 1
    return drawn


def _in_turn(groups: dict[str, list[Mutant]], rng: random.Random) -> Iterator[Mutant]:
    for name in sorted(groups):
        rng.shuffle(groups[name])
    waiting = sorted(groups)
    rng.shuffle(waiting)
    while waiting:
        for name in list(waiting):
            yield groups[name].pop()
            if not groups[name]:
                waiting.remove(name)


def kept(path: Path) -> dict[str, Result]:
    if not path.exists():
        return {}
    lines = path.read_text().splitlines()
    return {result.id: result for line in lines if (result := msgspec.json.decode(line, type=Result))}


def keep(path: Path, result: Result) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(result) + b"\n")


def run(path: Path, count: int | None, seed: str) -> int:
    """`count` mutants that can be told from the original at all, or all there are."""
    with Compiler() as compiler, trials.Solidity() as solidity:
        sources = read(compiler)
        known = kept(path)
        originals = {name: abi.load(name).bytecode for file in FILES for name in users(file)}
        results: list[Result] = []
        drawn = order(sources.mutants, seed)
        coming = [mutant for mutant in (drawn if count is None else drawn[: count * 5 // 4]) if mutant.id not in known]
        codes = Codes(compiler, sources, coming)
        for mutant in drawn:
            if count is not None and sum(result.counts for result in results) >= count:
                break
            result = known.get(mutant.id)
            if result is None:
                result = tried(mutant, codes, solidity, originals)
                keep(path, result)
                say(len(results), result)
            if result.counts and not result.by:  # what is argued is no matter of a run: it may be argued later
                argued = equivalent.reason(mutant, sources.text[mutant.file])
                result = msgspec.structs.replace(result, argued=argued)
            results.append(result)
    return summary(results, len(sources.mutants))


class Codes:
    """Creation code with one change in it: of several that were compiled at once, or compiled for it alone."""

    def __init__(self, compiler: Compiler, sources: Sources, coming: list[Mutant]) -> None:
        self._compiler = compiler
        self._sources = sources
        self._coming: dict[str, list[Mutant]] = defaultdict(list)
        for mutant in coming:
            if mutant.around:
                self._coming[mutant.file].append(mutant)
        self._ready: dict[str, dict[str, bytes]] = {}

    def alone(self, mutant: Mutant) -> dict[str, bytes]:
        """Raises Stillborn."""
        return self._compiler.bytecode({mutant.file: mutant.applied(self._sources.text[mutant.file])})

    def of(self, mutant: Mutant) -> dict[str, bytes]:
        """Raises Stillborn."""
        if mutant.around and mutant.id not in self._ready:
            self._compile(self._together(mutant))
        return self._ready.pop(mutant.id, None) or self.alone(mutant)

    def _together(self, first: Mutant) -> list[Mutant]:
        """It and others of its file that are due next, each in a place of its own."""
        chosen, rest, taken = [first], [], {first.around}
        for other in self._coming[first.file]:
            if other.id == first.id:
                continue
            free = len(chosen) < AT_ONCE and other.around not in taken
            (chosen if free else rest).append(other)
            taken.add(other.around if free else None)
        self._coming[first.file] = rest
        return chosen

    def _compile(self, mutants: list[Mutant]) -> None:
        """Halves of what does not compile together or grows too large; what is left alone is compiled for itself."""
        if len(mutants) < 3:
            return
        file = mutants[0].file
        try:
            made = self._compiler.bytecode({file: switches.alternatives(self._sources.text[file], mutants)})
        except Stillborn:
            made = {}
        fits = made and all(len(code) < CODE_MAX and code.count(switches.MARK) == 1 for code in made.values())
        if not fits or trials.judged({name: switches.switched(code, 0) for name, code in made.items()}, 1):
            self._compile(mutants[: len(mutants) // 2])
            self._compile(mutants[len(mutants) // 2 :])
            return
        for number, mutant in enumerate(mutants, 1):
            self._ready[mutant.id] = {name: switches.switched(code, number) for name, code in made.items()}


def tried(mutant: Mutant, source: Codes, solidity: trials.Solidity, originals: dict[str, bytes]) -> Result:
    began = time.monotonic()
    told = Result(mutant.id, mutant.file, mutant.operator, mutant.line, mutant.shown)
    try:
        codes = source.of(mutant)
        by, test = noticed_soon(codes)
        if not by:  # the change alone: it may be none, and the slower tests are worth the exact code
            codes = source.alone(mutant)
            if all(code == originals[name] for name, code in codes.items()):
                return msgspec.structs.replace(told, same_bytecode=True)
            by, test = noticed(codes, solidity)
    except Stillborn:
        return msgspec.structs.replace(told, stillborn=True)
    return msgspec.structs.replace(told, by=by, test=test, seconds=round(time.monotonic() - began, 1))


def noticed_soon(codes: trials.Codes) -> tuple[str, str]:
    how = trials.judged(codes, FIRST_EPISODES)
    return ("judge", how) if how else ("", "")


def noticed(codes: trials.Codes, solidity: trials.Solidity) -> tuple[str, str]:
    """(who, how), the quick ones first."""
    if failed := solidity.failing(codes, solidity.files(slow=False)):
        return "solidity", trials.best(failed, {})
    told = {"bytecode": {name: code.hex() for name, code in codes.items()}}
    if failed := trials.by_pytest(told, trials.python_tests(codes)):
        return "pytest", failed[0]
    if how := trials.judged(codes, MORE_EPISODES):
        return "judge", how
    if failed := solidity.failing(codes, solidity.files(slow=True), seconds=trials.SLOW_S):
        return "solidity", failed[0]
    return "", ""


def say(number: int, result: Result) -> None:
    how = "no code" if result.stillborn else "same code" if result.same_bytecode else result.by or "LIVES"
    print(f"{number:4} {result.seconds:5.1f} s {how:9} {result.operator}: {result.shown}", flush=True)


def summary(results: list[Result], all_: int) -> int:
    counted = [result for result in results if result.counts]
    living = [result for result in counted if not result.by]
    print(f"\n{'':22} {'drawn':>6} {'killed':>7}")
    for title, key in (("contract", "file"), ("operator", "operator")):
        print(f"by {title}")
        for name, group in sorted(_by(counted, key).items()):
            print(f"  {name:24} {len(group):4} {sum(bool(each.by) for each in group):7}")
    for result in results:
        if result.argued:
            print(f"SAME  {result.id} {result.operator}: {result.shown}: {result.argued}")
    for result in living:
        print(f"LIVES {result.id} {result.operator}: {result.shown}")
    share = 1 - len(living) / len(counted) if counted else 0.0
    print(json.dumps({
        "mutants": len(counted), "killed": len(counted) - len(living), "share": round(share, 4), "of": all_,
        "by": Counter(result.by for result in counted), "same_bytecode": sum(r.same_bytecode for r in results),
        "stillborn": sum(r.stillborn for r in results), "argued": sum(bool(r.argued) for r in results),
        "seconds": round(sum(r.seconds for r in results)),
        "checks": sum(r.operator == CHECK for r in counted),
    }))  # fmt: skip
    return 0 if share >= 0.9 else 1


def _by(results: list[Result], key: str) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[getattr(result, key)].append(result)
    return groups
