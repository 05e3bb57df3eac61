"""Source text to syntax trees, whatever other threads do.

Before 3.11.8 and 3.12.2 Python's threads share the counter that guards the depth of a tree: where two of them parse at
once (and whoever prints a traceback does), one may get a SystemError about it for a good text (CPython issue 106905).
"""

from __future__ import annotations

import ast
from typing import Final

TRIES: Final = 20


def parse(source: str | bytes, name: str = "<unknown>") -> ast.Module:
    """As `ast.parse`: SyntaxError, ValueError and RecursionError for what is no program."""
    for _ in range(TRIES - 1):
        try:
            return ast.parse(source, name)
        except SystemError:
            continue
    return ast.parse(source, name)
