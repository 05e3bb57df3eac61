"""How commands speak: tables and sentences for people, JSON for programs, `error: …` and exit code 1 for refusals.

With `--json` standard output is one JSON value, errors included (`{"error": {"code", "sentence", "remedy"}}`), and
nothing else. A command line that cannot be read (exit code 2) is refused in the same shape.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from tallymesh.errors import TallymeshError

_JSON = "tallymesh.json"
_ASKED = "tallymesh.json.asked"  # the word stands on the line, though the line may not be readable


def _remember(context: typer.Context, value: bool) -> bool:
    if value:
        context.find_root().meta[_JSON] = True
    return value


Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.", callback=_remember)]

JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON value a line, one an event.", callback=_remember)
]


class Group(TyperGroup):
    """Turns refusals into one line and exit code 1. A bug keeps its traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.parent is None:
            ctx.meta[_ASKED] = "--json" in takewhile(lambda word: word != "--", args)
        with _usage(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _usage(ctx):
                return super().invoke(ctx)
        except TallymeshError as error:
            _refuse(error, bool(ctx.find_root().meta.get(_JSON)))
        except BaseExceptionGroup as group:  # trio's nurseries wrap what a task raised
            if group.subgroup(KeyboardInterrupt) is not None:
                raise typer.Exit(130) from None
            refusals, rest = group.split(TallymeshError)
            if rest is not None or refusals is None:
                raise
            _refuse(first(refusals), bool(ctx.find_root().meta.get(_JSON)))
        raise typer.Exit(1)


@contextmanager
def _usage(ctx: Any) -> Iterator[None]:
    """A program that asked for JSON is told in JSON that its command line cannot be read. People get typer's text."""
    try:
        yield
    except TyperException as error:
        if not ctx.meta.get(_ASKED):
            raise
        place = getattr(error, "ctx", None) or ctx
        remedy = f"'{place.command_path} --help' shows what it takes."
        say_json({"error": {"code": "bad_usage", "sentence": error.format_message(), "remedy": remedy}})
        raise typer.Exit(error.exit_code) from None


def first(group: BaseExceptionGroup[Any]) -> TallymeshError:
    """The first refusal in a group of nothing else."""
    inner = group.exceptions[0]
    found = first(inner) if isinstance(inner, BaseExceptionGroup) else inner
    assert isinstance(found, TallymeshError)
    return found


def _refuse(error: TallymeshError, as_json: bool) -> None:
    if as_json:
        say_json({"error": {"code": error.code, "sentence": error.sentence, "remedy": error.remedy}})
    else:
        print(f"error: {error}", file=sys.stderr)


def say_json(value: Any) -> None:
    """One JSON value on standard output; structs included. Ids are made hex by whoever says them: bytes of a job's
    outputs are base64, as everywhere in JSON."""
    print(to_json(value).decode(), flush=True)


def to_json(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if hasattr(value, "tolist"):  # numpy and torch
        return value.tolist()
    raise NotImplementedError(type(value))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Columns that line up; `empty` where there is no row."""
    if not rows:
        print(empty)
        return
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Name and value, one a line; rows without a value are left out."""
    shown = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {value}")


def ago(moment: float) -> str:
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
