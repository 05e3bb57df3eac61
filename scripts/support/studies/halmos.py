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
SEATS_SLOT = "1"  # of JobEscrow._seats, which the proofs write
LONGEST_S = 3_000


def main() -> int:
    program = installed("halmos")
    with tempfile.TemporaryDirectory(prefix="tallymesh-halmos-") as name:
        folder = Path(name)
        _build(folder / "out")
        command(folder, "forge", "exit 0")
        answer = folder / "answer.json"
        done = subprocess.run(
            [program, "--root", folder, "--contract", "Proofs", "--loop", "8", "--solver-timeout-assertion", "0",
             "--json-output", answer, *sys.argv[1:]],
            env={**os.environ, "PATH": f"{folder}{os.pathsep}{program.parent}{os.pathsep}{os.environ['PATH']}"},
            timeout=LONGEST_S,
        )  # fmt: skip
        results = [each for tests in json.loads(answer.read_text())["test_results"].values() for each in tests]
        proven = sum(each["exitcode"] == 0 for each in results)
        print(json.dumps({"proofs": len(results), "proven": proven}))
        return 0 if done.returncode == 0 and results and proven == len(results) else 1


def _build(out: Path) -> None:
    """`out/File.sol/Contract.json`, as Foundry lays it out."""
    asked = {"language": "Solidity", "sources": {PROOFS: {"urls": [PROOFS]}}, "settings": SETTINGS}
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
                assert slots["_seats"] == SEATS_SLOT, f"_seats is at {slots['_seats']}: change contracts/{PROOFS}"
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
