"""Where this client ends and the user's program begins: its errors start there, not twenty frames further in.

A refusal (`TallymeshError`) says what is wrong and what to do. Under a page of this client's own frames nobody reads
it, and the one line that matters, the user's, is lost among them. ``TALLYMESH_TRACEBACK=full`` shows them all.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from tallymesh.errors import TallymeshError

FULL: Final = "TALLYMESH_TRACEBACK"

P = ParamSpec("P")
R = TypeVar("R")


def edge(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, whose TallymeshErrors come without the frames below it, and Ctrl-C too. Other exceptions are bugs and
    keep theirs."""

    @functools.wraps(function)
    def outermost(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (TallymeshError, KeyboardInterrupt) as error:
            if os.environ.get(FULL) == "full":
                raise
            ended = error.with_traceback(None)
        raise ended

    return outermost
