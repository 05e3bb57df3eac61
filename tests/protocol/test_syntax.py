"""Parsing beside other threads."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from tallymesh import syntax


def test_a_counter_that_threads_share_does_not_refuse_a_good_text(monkeypatch: pytest.MonkeyPatch) -> None:
    parse, tries = ast.parse, []

    def miscounted(*arguments: Any) -> ast.Module:
        tries.append(1)
        if len(tries) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=39, after=185)")
        return parse(*arguments)

    monkeypatch.setattr(ast, "parse", miscounted)
    assert ast.dump(syntax.parse("x = 1")) == ast.dump(parse("x = 1"))
    assert len(tries) == 3


def test_what_is_no_program_is_refused_at_once() -> None:
    with pytest.raises(SyntaxError):
        syntax.parse("x = ")
