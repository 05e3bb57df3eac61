"""Which test meets which check, found in a few runs instead of one for each check.

Every check of a contract refuses with a mark of its own in place of its error, so each test that waits for the error
fails and shows the mark. A test shows the first that it meets; so those that were found refuse as ever in the next run.
Whether a test fails without the check is not known by this: it is only the first to be asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mutation import switches
from mutation.compiler import Compiler, Stillborn
from mutation.operators import Mutant
from mutation.trials import Solidity

ROUNDS = 5
MARK = 0xC0DE0000
HIT = f"""    function _hit(uint256 n, bool yes) private pure returns (bool) {{
        if (yes) {{
            assembly ("memory-safe") {{
                mstore(0, shl(224, or({MARK:#x}, n)))
                revert(0, 4)
            }}
        }}
        return yes;
    }}
"""


def markable(mutant: Mutant) -> bool:
    return switches.switchable(mutant) and mutant.text in ("false", "true")


def met(compiler: Compiler, solidity: Solidity, source: bytes, mutants: Sequence[Mutant]) -> dict[str, list[str]]:
    """Mutant's id -> tests ("contracts/test/File.t.sol::test_name") that meet its check; all of one file, markable."""
    found: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        left = {number: each for number, each in enumerate(mutants, 1) if each.id not in found}
        if not left:
            break
        try:
            codes = compiler.bytecode({mutants[0].file: _marked(source, left)})
        except Stillborn:
            break
        shown = solidity.reasons(codes, solidity.about(codes))
        new = {
            test: int(hit[1], 16) for test, why in shown.items() if (hit := re.search(r"(?i)c0de([0-9a-f]{4})", why))
        }
        if not new:
            break
        for test, number in new.items():
            found.setdefault(left[number].id, []).append(test)
    return found


def _marked(source: bytes, left: Mapping[int, Mutant]) -> str:
    changed = source
    for number, mutant in sorted(left.items(), key=lambda each: each[1].start, reverse=True):
        asked = f"_hit({number}, {mutant.before})" if mutant.text == "false" else f"!_hit({number}, !({mutant.before}))"
        changed = changed[: mutant.start] + asked.encode() + changed[mutant.end :]
    return re.sub(r"(?m)^(contract [^{]*\{\n)", lambda head: head[1] + HIT, changed.decode(), count=1)
