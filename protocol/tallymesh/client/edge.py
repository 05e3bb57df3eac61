"""Where this client ends and the user's program begins: its errors start there, not twenty frames further in.

A refusal (`TallymeshError`) says what is wrong and what to do. Under a page of this client's own frames nobody reads
it, and the one line that matters, the user's, is lost among them. ``TALLYMESH_TRACEBACK=full`` shows them all.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable
from typing import Final, ParamSpec, TypeVar

from tallymesh.errors import CallerError, TallymeshError

FULL: Final = "TALLYMESH_TRACEBACK"

P = ParamSpec("P")
R = TypeVar("R")


def edge(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, whose TallymeshErrors come without the frames below it, and Ctrl-C too; a keyword that it does not
    have is one of them. Other exceptions are bugs and keep theirs."""

    @functools.wraps(function)
    def outermost(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (TallymeshError, KeyboardInterrupt) as error:
            if os.environ.get(FULL) == "full":
                raise
            ended = error.with_traceback(None)
        except TypeError:
            unknown = _unknown(function, kwargs)
            if unknown is None:
                raise
            ended = unknown
        raise ended

    return outermost


def _unknown(function: Callable[..., object], given: Iterable[str]) -> CallerError | None:
    """Which keyword it does not have, where that is why it could not be called."""
    known = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return None
    wrong = next((name for name in given if name not in known), None)
    if wrong is None:
        return None
    name = function.__name__
    return CallerError("bad_arguments", f"{name}() has no option {wrong!r}.", remedy=meant(wrong, known, name))


def meant(wrong: str, known: Iterable[str], function: str) -> str:
    """What to write instead of a keyword that nobody knows."""
    import difflib

    near = difflib.get_close_matches(wrong, known, 1)
    return f"Did you mean {near[0]}=?" if near else f"help(tallymesh.{function}) lists them."
