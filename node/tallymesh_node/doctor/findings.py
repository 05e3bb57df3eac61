"""What a check gives: fine, something to mend, or something to know."""

from __future__ import annotations

from typing import Literal

import msgspec

from tallymesh.errors import TallymeshError


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is the check's. Where `state` is "fix", `remedy` says what to do: a doctor that only names illnesses is of
    no use. "unknown": it could not be tried, and the sentence says why."""

    name: str
    state: Literal["ok", "fix", "note", "unknown"]
    sentence: str
    code: str = ""
    remedy: str = ""


def ok(name: str, sentence: str) -> Finding:
    return Finding(name=name, state="ok", sentence=sentence)


def fix(name: str, code: str, sentence: str, remedy: str) -> Finding:
    assert remedy, (name, code)
    return Finding(name=name, state="fix", code=code, sentence=sentence, remedy=remedy)


def note(name: str, sentence: str, remedy: str = "") -> Finding:
    return Finding(name=name, state="note", sentence=sentence, remedy=remedy)


def unknown(name: str, sentence: str) -> Finding:
    return Finding(name=name, state="unknown", sentence=sentence)


def failed(name: str, error: TallymeshError, remedy: str) -> Finding:
    """`remedy` is for errors that name none."""
    return fix(name, error.code, error.sentence, error.remedy or remedy)
