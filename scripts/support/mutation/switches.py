"""Many changes of one contract compiled at once, each of which can be switched on without compiling again.

Conditions, values and statements ask for an immutable number, which the creation code has once, to be replaced: 0
switches nothing. Constructors (where no immutable is there yet), pure functions, modifiers and libraries are left to
the compiler.
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
    return _replaced(source, [(each.start, each.end, _guarded(each, i)) for i, each in enumerate(mutants, 1)])


def alternatives(source: bytes, mutants: Sequence[Mutant]) -> str:
    """The same for changes of any kind; no two may be in one condition, value or statement."""
    return _replaced(source, [(*_around(each), _chosen(source, each, i)) for i, each in enumerate(mutants, 1)])


def _replaced(source: bytes, pieces: Sequence[tuple[int, int, str]]) -> str:
    changed = source
    for start, end, text in sorted(pieces, reverse=True):
        changed = changed[:start] + text.encode() + changed[end:]
    declared = f"    uint256 private immutable _off = 0x{MARK.hex()};\n"
    return re.sub(r"(?m)^(contract [^{]*\{\n)", lambda found: found[1] + declared, changed.decode(), count=1)


def _guarded(mutant: Mutant, number: int) -> str:
    if mutant.text == "{}":
        return f"if (_off != {number}) {mutant.before}"
    if mutant.text == "false":
        return f"(_off != {number} && ({mutant.before}))"
    return f"(_off == {number} || ({mutant.before}))"


def _around(mutant: Mutant) -> tuple[int, int]:
    assert mutant.around
    return mutant.around


def _chosen(source: bytes, mutant: Mutant, number: int) -> str:
    start, end = _around(mutant)
    plain = source[start:end].decode()
    other = (source[start : mutant.start] + mutant.text.encode() + source[mutant.end : end]).decode()
    if mutant.is_statement:
        return f"if (_off == {number}) {{ {other} }} else {{ {plain} }}"
    return f"(_off == {number} ? ({other}) : ({plain}))"


def switched(code: bytes, number: int) -> bytes:
    """Creation code with one check off; with none where `number` is 0."""
    assert code.count(MARK) == 1, "the optimizer wrote the number another way"
    return code.replace(MARK, number.to_bytes(32, "big"))
