"""halmos on contracts/symbolic: six properties of the money, for all values at once.

halmos wants a Foundry project; this one has none. So the project's own compiler makes what Foundry would have made, and
a `forge` that has nothing left to do stands on the path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.tool import NODE, PROJECT, command, installed

PROOFS = "symbolic/Proofs.sol"
SETTINGS = {
    "evmVersion": "cancun",
    "viaIR": True,
    "optimizer": {"enabled": True, "runs": 100},  # as the escrow is deployed
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
    "remappings": ["@openzeppelin/=node_modules/@openzeppelin/"],
    "outputSelection": {
        "*": {
            "*": ["abi", "metadata", "evm.bytecode", "evm.deployedBytecode", "evm.methodIdentifiers", "storageLayout"],
            "": ["ast"],
        }
    },
}
SLOTS = {"_seats": "1", "_credits": "2", "_claimed": "5"}  # of JobEscrow, which the proofs write
LONGEST_S = 3_000
# proof -> (file, what stands there, what breaks it): a proof that holds of anything proves nothing
TEETH = {
    "check_a_payment_stays_within_the_cap": (
        "src/JobEscrow.sol", "uint40 units = unitsTo < found.units ? unitsTo : found.units;", "uint40 units = unitsTo;",
    ),
    "check_a_slash_is_divided_without_rest": (
        "src/JobEscrow.sol", "slashed - toPayer - toProver - courts;", "slashed - toPayer - toProver;",
    ),
    "check_the_fee_is_the_same_in_parts": (
        "src/JobEscrow.sol",
        "uint96 half = _halfFeeDown(units, lease.price) - _halfFeeDown(found.paidUnits, lease.price);",
        "uint96 half = _halfFeeDown(units - found.paidUnits, lease.price);",
    ),
    "check_drawn_units_are_distinct": ("src/libraries/Draws.sol", "if (from[i] == j) atJ = value[i];", ""),
    "check_payment_never_falls": ("src/JobEscrow.sol", "return word + amount + (", "return word - amount + ("),
    "check_what_was_paid_is_not_paid_again": ("src/JobEscrow.sol", "found.paidUnits = units;", ""),
}  # fmt: skip


def main() -> int:
    given = sys.argv[1:]
    if given[:1] == ["--teeth"]:
        bites = {proof: not _proven({file: (before, after)}, [proof]) for proof, (file, before, after) in TEETH.items()}
        print(json.dumps(bites, indent=1))
        return 0 if all(bites.values()) else 1
    return 0 if _proven({}, list(TEETH), given) else 1


def _proven(changes: Mapping[str, tuple[str, str]], proofs: Sequence[str], more: Sequence[str] = ()) -> bool:
    """Whether halmos proves each of them, of the contracts or of changed ones."""
    program = installed("halmos")
    with tempfile.TemporaryDirectory(prefix="tallymesh-halmos-") as name:
        folder = Path(name)
        _build(folder / "out", changes)
        command(folder, "forge", "exit 0")
        answer = folder / "answer.json"
        done = subprocess.run(
            [program, "--root", folder, "--contract", "Proofs", "--match-test", f"^({'|'.join(proofs)})", "--loop", "8",
             "--solver-timeout-assertion", "0", "--json-output", answer, *more],
            env={**os.environ, "PATH": f"{folder}{os.pathsep}{program.parent}{os.pathsep}{os.environ['PATH']}"},
            timeout=LONGEST_S,
        )  # fmt: skip
        results = [each for tests in json.loads(answer.read_text())["test_results"].values() for each in tests]
        assert len(results) == len(proofs), "not every proof was tried"
        proven = sum(each["exitcode"] == 0 for each in results)
        print(json.dumps({"proofs": len(results), "proven": proven}), flush=True)
        return done.returncode == 0 and proven == len(results)


def _build(out: Path, changes: Mapping[str, tuple[str, str]]) -> None:
    """`out/File.sol/Contract.json`, as Foundry lays it out."""
    sources: dict[str, Any] = {PROOFS: {"urls": [PROOFS]}}
    for file, (before, after) in changes.items():
        text = (PROJECT / file).read_text()
        assert text.count(before) == 1, f"{file} has other words than {before!r}"
        sources[file] = {"content": text.replace(before, after)}
    asked = {"language": "Solidity", "sources": sources, "settings": SETTINGS}
    script = Path(__file__).with_name("solc.mjs")
    done = subprocess.run(
        [NODE, script, "--standard-json"],
        input=json.dumps(asked),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    errors = [each["formattedMessage"] for each in told.get("errors", []) if each["severity"] == "error"]
    if errors:
        sys.exit("\n".join(errors))
    for file, contracts in told["contracts"].items():
        for name, made in contracts.items():
            if name == "JobEscrow":
                slots = {each["label"]: each["slot"] for each in made["storageLayout"]["storage"]}
                assert SLOTS.items() <= slots.items(), f"storage is laid out in another way: change contracts/{PROOFS}"
            path = out / Path(file).name / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_artifact(told["sources"][file], made)))


def _artifact(source: Any, made: Any) -> Any:
    code = {
        key: {**made["evm"][key], "object": "0x" + made["evm"][key]["object"]}
        for key in ("bytecode", "deployedBytecode")
    }
    metadata = json.loads(made["metadata"] or "null")  # of an interface there is none
    return {
        "abi": made["abi"], "id": source["id"], "ast": source["ast"], "metadata": metadata,
        "methodIdentifiers": made["evm"]["methodIdentifiers"], "storageLayout": made["storageLayout"], **code,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
