"""slither on the contracts: docs/decisions/what-slither-says.md must explain every finding of high or medium impact.

A finding is known by its detector and by what it is in, not by its line. An explanation of what is found no more fails,
too: it would hide the next one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studies.tool import NODE, PROJECT, ROOT, command, installed

PAGE = ROOT / "docs/decisions/what-slither-says.md"
WEIGHTY = ("High", "Medium")
LONGEST_S = 600
SETTINGS = {
    "evmVersion": "cancun",
    "viaIR": True,  # without it the stack is too deep
    "optimizer": {"enabled": True, "runs": 1},
    "remappings": ["@openzeppelin/=node_modules/@openzeppelin/"],
    "outputSelection": {
        "*": {"*": ["abi", "metadata", "devdoc", "userdoc", "evm.bytecode", "evm.deployedBytecode"], "": ["ast"]}
    },
}


def main() -> int:
    found = list(_findings())
    print(json.dumps(Counter(f"{each['impact']} {each['check']}" for each in found), indent=1))
    weighty = {(each["check"], _place(each)): each for each in found if each["impact"] in WEIGHTY}
    explained = _explained()
    bad = [f"not explained: {check} in {place}: {weighty[check, place]['description'].splitlines()[0]}"
           for check, place in sorted(weighty) if (check, place) not in explained]  # fmt: skip
    bad += [f"explained, but not found: {check} in {place}" for check, place in sorted(explained - set(weighty))]
    for line in bad:
        print(line)
    print(json.dumps({"findings": len(found), "high_or_medium": len(weighty), "bad": len(bad)}))
    return 1 if bad else 0


def _findings() -> Iterator[Any]:
    program = installed("slither")
    with tempfile.TemporaryDirectory(prefix="tallymesh-slither-") as name:
        folder = Path(name)
        script = Path(__file__).with_name("solc.mjs")
        compiler = command(folder, "solc", f'exec "{NODE}" "{script}" "$@"')
        sources = sorted(str(path.relative_to(PROJECT)) for path in (PROJECT / "src").rglob("*.sol"))
        question = folder / "input.json"
        asked = {"language": "Solidity", "sources": {each: {"urls": [each]} for each in sources}, "settings": SETTINGS}
        question.write_text(json.dumps(asked))
        answer = folder / "output.json"
        done = subprocess.run(
            [program, question, "--solc", compiler, "--compile-force-framework", "Solc-json", "--json", answer,
             "--filter-paths", "node_modules"],
            cwd=PROJECT, env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True, text=True, timeout=LONGEST_S,
        )  # fmt: skip
        told = json.loads(answer.read_text()) if answer.exists() else {"success": False}
        if not told["success"]:
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
        yield from told["results"].get("detectors", [])


def _place(finding: Any) -> str:
    """`Contract.function` or `Contract.function.variable`."""
    return re.sub(r"\(.*?\)", "", finding["description"].splitlines()[0].removeprefix("Reentrancy in ")).split(" ")[0]


def _explained() -> set[tuple[str, str]]:
    """Of the page's tables: a detector's heading, and rows that begin with a place."""
    found, check = set(), ""
    for line in PAGE.read_text().splitlines():
        if heading := re.match(r"## `([a-z-]+)`", line):
            check = heading[1]
        for place in re.findall(r"`(\w+\.[\w.]+)`", line.split("|")[1]) if line.startswith("| `") else ():
            found.add((check, place))
    return found


if __name__ == "__main__":
    sys.exit(main())
