"""Each check of the money path is switched off by itself, and the test that docs/TRUST.md names must fail.

`verify` runs the named tests only. `find` looks for tests of checks that have no row: all quick Solidity tests and,
where none of them names the case, the Python ones on the changed bytecode.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mutation import campaign, guards, marks, programs, switches, table, trials
from mutation.compiler import PROJECT, Compiler
from mutation.operators import CHECK, Mutant
from mutation.table import Row

FOUND = PROJECT / "cache/mutation/checks.jsonl"
MOST = 1  # test of Python that is asked for: the specific ones are tried first


class Failing(msgspec.Struct, frozen=True):
    """Tests that fail without a check."""

    id: str
    tests: list[str]


class Off:
    """Creation code without one check: of contracts in which any one can be switched off, else compiled for it."""

    def __init__(self, compiler: Compiler, sources: campaign.Sources) -> None:
        self.compiler = compiler
        self.text = sources.text
        self.mutants = [mutant for mutant in sources.mutants if mutant.operator == CHECK]
        self._switchable: dict[str, list[Mutant]] = {}
        for mutant in filter(switches.switchable, self.mutants):
            self._switchable.setdefault(mutant.file, []).append(mutant)
        self._prepared: dict[str, dict[str, bytes]] = {}

    def codes(self, mutant: Mutant) -> dict[str, bytes]:
        if not switches.switchable(mutant):
            return self.compiler.bytecode({mutant.file: mutant.applied(self.text[mutant.file])})
        return self._switched(mutant.file, self._switchable[mutant.file].index(mutant) + 1)

    def untouched(self) -> list[dict[str, bytes]]:
        """The same contracts with nothing off: every test must pass, or the switches themselves were to blame."""
        return [self._switched(file, 0) for file in self._switchable]

    def _switched(self, file: str, number: int) -> dict[str, bytes]:
        if file not in self._prepared:
            source = switches.prepared(self.text[file], self._switchable[file])
            self._prepared[file] = self.compiler.bytecode({file: source})
        return {name: switches.switched(code, number) for name, code in self._prepared[file].items()}


def row_of(mutant: Mutant, test: str = "") -> Row:
    file = mutant.file.rpartition("/")[2].removesuffix(".sol")
    check = re.sub(r"\s+", " ", mutant.before).removesuffix(";")
    return Row(f"{file}.{mutant.function}", check, mutant.why, test)


def verify(only: str) -> int:
    """0 where each check has a row whose test fails without it."""
    bad = _verify_contracts(only) + _verify_programs(only)
    for line in bad:
        print(f"BAD {line}")
    return 1 if bad else 0


def _verify_contracts(only: str) -> list[str]:
    told = {row.key: row for row in table.rows(table.CONTRACTS)}
    bad = []
    with Compiler() as compiler, trials.Solidity() as solidity:
        off = Off(compiler, campaign.read(compiler))
        bad += _blamed(off, solidity)
        present = {row_of(mutant).key for mutant in off.mutants}
        bad += [f"{' '.join(key)}: no such check" for key in told if key not in present]
        for mutant in off.mutants:
            row = told.get(row_of(mutant).key)
            if only not in f"{mutant.file} {mutant.shown}":
                continue
            if row is None:
                bad.append(f"{mutant.shown}: no row")
                continue
            if not row.named:
                print(f"{row.test}  {row.where}: {row.check}", flush=True)
                bad += [f"{row.where}: {row.check}: no test yet"] * (row.test == table.OPEN)
                continue
            failed = _fails(off.codes(mutant), row.test, solidity)
            print(f"{'fails ' if failed else 'PASSES'}  {row.where}: {row.check}: {row.test}", flush=True)
            if not failed:
                bad.append(f"{row.where}: {row.check}: {row.test} passes without it")
    return bad


def _blamed(off: Off, solidity: trials.Solidity) -> list[str]:
    files = solidity.files(slow=False)
    untouched = off.untouched()
    failed = [test for codes in untouched for test in solidity.failing(codes, files)]
    together = {name: code.hex() for codes in untouched for name, code in codes.items()}
    return [f"{test} fails with nothing switched off" for test in failed + _failing(table.CONTRACTS, together)]


def _failing(part: str, bytecode: dict[str, str]) -> list[str]:
    """Of the Python tests that the table names: a test that fails anyway shows nothing."""
    tests = dict.fromkeys(row.test for row in table.rows(part) if row.named and not row.test.startswith("contracts/"))
    return trials.by_pytest({"bytecode": bytecode}, list(tests), len(tests), trials.ALL_S) if tests else []


def _fails(codes: trials.Codes, test: str, solidity: trials.Solidity) -> bool:
    path, _, name = test.partition("::")
    if path.endswith(".sol"):
        files = [path.removeprefix("contracts/")]
        return bool(solidity.failing(codes, files, grep=name, seconds=trials.SLOW_S))
    return bool(trials.by_pytest({"bytecode": {key: code.hex() for key, code in codes.items()}}, [test]))


def _verify_programs(only: str) -> list[str]:
    bad = [f"{test} fails with nothing switched off" for test in _failing(table.PROGRAMS, {})]
    for row in table.rows(table.PROGRAMS):
        if only not in f"{row.where} {row.check}":
            continue
        module, _, function = row.where.partition(":")
        changed = guards.switched_off(guards.source_of(module), function, row.check)
        failed = trials.by_pytest({"sources": {module: changed}}, [row.test])
        print(f"{'fails ' if failed else 'PASSES'}  {row.where}: {row.check}: {row.test}", flush=True)
        if not failed:
            bad.append(f"{row.where}: {row.check}: {row.test} passes without it")
    return bad


def find(only: str) -> int:
    """Rows for checks that have none, and none for what is no check any more."""
    with Compiler() as compiler, trials.Solidity() as solidity:
        off = Off(compiler, campaign.read(compiler))
        bad = _blamed(off, solidity)
        assert not bad, bad
        known = _kept(FOUND)
        told = {row.key: row for row in table.rows(table.CONTRACTS) if row.test != table.OPEN}
        wanted = [
            mutant
            for mutant in off.mutants
            if only in f"{mutant.file} {mutant.shown}" and row_of(mutant).key not in told
        ]
        _met(off, [mutant for mutant in wanted if mutant.id not in known], solidity, known)
        for ask in (_about, _quick, _python):  # what costs little for all of them first
            for mutant in wanted:
                tests = known.get(mutant.id, [])
                if _names_a_case(tests) or f"asked {ask.__name__}" in tests:
                    continue
                tests = [*tests, *ask(off.codes(mutant), solidity), f"asked {ask.__name__}"]
                known[mutant.id] = tests
                _keep(FOUND, Failing(mutant.id, tests))
                print(f"{mutant.shown}: {[test for test in tests if '::' in test][:2]}", flush=True)
    known = {id_: [test for test in tests if "::" in test] for id_, tests in known.items()}
    often = Counter(test for tests in known.values() for test in tests)
    rows, living = [], []
    for mutant in off.mutants:
        tests = known.get(mutant.id, [])
        row = row_of(mutant, trials.best(tests, often) if tests else table.OPEN)
        rows.append(told.get(row.key, row))
        if rows[-1].test == table.OPEN:
            living.append(mutant)
    table.write(table.CONTRACTS, _once(rows))
    for mutant in living:
        print(f"LIVES {mutant.id} {mutant.shown} ({mutant.why})")
    return 1 if living else 0


def find_programs(only: str) -> int:
    """The same for the guards of the Python side: of those that no test misses none gets a row; they are printed."""
    known = _kept(FOUND)
    told = {row.key: row for row in table.rows(table.PROGRAMS)}
    kept, living = [], []
    for guard in programs.all_guards():
        row = Row(guard.where, guard.check, guard.why, "")
        name = f"{guard.where} {guard.check}"
        if row.key in told:
            kept.append(told[row.key])
            continue
        if only in name and not known.get(name):  # what lived is asked about again: there may be a test by now
            changed = guards.switched_off(guards.source_of(guard.module), guard.function, guard.check)
            tests = trials.by_pytest({"sources": {guard.module: changed}}, programs.MODULES[guard.module], MOST)
            tests = known[name] = [test for test in tests if "::" in test]  # one that did not end shows nothing
            _keep(FOUND, Failing(name, tests))
            print(f"{name}: {tests}", flush=True)
        if tests := known.get(name, []):
            kept.append(msgspec.structs.replace(row, test=tests[0].partition("[")[0]))
        elif name in known:
            living.append(name)
    table.write(table.PROGRAMS, _once(kept))
    for name in living:
        print(f"LIVES {name}")
    return 1 if living else 0


def _met(off: Off, mutants: list[Mutant], solidity: trials.Solidity, known: dict[str, list[str]]) -> None:
    """Asks the tests that are known to meet a check, at most two each."""
    for file in dict.fromkeys(mutant.file for mutant in mutants if marks.markable(mutant)):
        markable = [mutant for mutant in mutants if mutant.file == file and marks.markable(mutant)]
        met = marks.met(off.compiler, solidity, off.text[file], markable)
        often = Counter(test for tests in met.values() for test in tests)
        for mutant in markable:
            tests = sorted(met.get(mutant.id, []), key=lambda test: trials.weight(test, often))[:2]
            failing = next((test for test in tests if _fails(off.codes(mutant), test, solidity)), "")
            if failing:
                known[mutant.id] = [failing]
                _keep(FOUND, Failing(mutant.id, [failing]))
                print(f"{mutant.shown}: {failing}", flush=True)


def _names_a_case(tests: Iterable[str]) -> bool:
    files = [test.split("::")[0].rpartition("/")[2] for test in tests if "::" in test]
    return any(file not in trials.GENERIC for file in files)


def _about(codes: trials.Codes, solidity: trials.Solidity) -> list[str]:
    return _cases(solidity.failing(codes, solidity.about(codes)))


def _quick(codes: trials.Codes, solidity: trials.Solidity) -> list[str]:
    return _cases(solidity.failing(codes, solidity.files(slow=False)))


def _python(codes: trials.Codes, solidity: trials.Solidity) -> list[str]:
    told = {"bytecode": {name: code.hex() for name, code in codes.items()}}
    return trials.by_pytest(told, trials.python_tests(codes), MOST)


def _cases(tests: Iterable[str]) -> list[str]:
    """Where nothing can be set up, nothing is shown."""
    return [test for test in tests if not test.endswith("::setUp")]


def _once(rows: Iterable[Row]) -> list[Row]:
    return list({row.key: row for row in rows}.values())


def _keep(path: Path, found: Failing) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(found) + b"\n")


def _kept(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    results = [msgspec.json.decode(line, type=Failing) for line in path.read_text().splitlines()]
    return {result.id: result.tests for result in results}
