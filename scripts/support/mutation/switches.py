"""Many checks of one contract that can be switched off one by one without compiling again.

Each condition also asks for an immutable number, and the creation code has that number once, to be replaced: 0 switches
nothing off. Constructors (where no immutable is there yet), modifiers and libraries are left to the compiler.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from mutation.operators import Mutant

MARK = hashlib.sha256(b"tallymesh: which check is off").digest()


def switchable(mutant: Mutant) -> bool:
    plain = "/" not in mutant.file and mutant.file != "Domain.sol"
    return plain and mutant.function != "constructor" and mutant.text in ("false", "true", "{}")


def prepared(source: bytes, mutants: Sequence[Mutant]) -> str:
    """The source in which check `i + 1` of `mutants` is off where the number is `i + 1`."""
    changed = source
    numbered = sorted(enumerate(mutants, 1), key=lambda each: each[1].start, reverse=True)
    for number, mutant in numbered:
        assert changed[mutant.start : mutant.end].decode() == mutant.before
        changed = changed[: mutant.start] + _guarded(mutant, number).encode() + changed[mutant.end :]
    declared = f"    uint256 private immutable _off = 0x{MARK.hex()};\n"
    return re.sub(r"(?m)^(contract [^{]*\{\n)", lambda found: found[1] + declared, changed.decode(), count=1)


def _guarded(mutant: Mutant, number: int) -> str:
    if mutant.text == "{}":
        return f"if (_off != {number}) {mutant.before}"
    if mutant.text == "false":
        return f"(_off != {number} && ({mutant.before}))"
    return f"(_off == {number} || ({mutant.before}))"


def switched(code: bytes, number: int) -> bytes:
    """Creation code with one check off; with none where `number` is 0."""
    assert code.count(MARK) == 1, "the optimizer wrote the number another way"
    return code.replace(MARK, number.to_bytes(32, "big"))
