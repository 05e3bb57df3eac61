"""A duty's journal: one scope for each, from the line that it was drawn to the line that it is over.

What lies between is the role's: what was committed to is a line before it is sent, all else is read from the chain
again. No I/O here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Generic, Self, TypeVar

from tallymesh import exchange
from tallymesh.exchange import Body
from tallymesh_node.interfaces import Entry
from tallymesh_node.lines import EndLine

DRAWN, OVER = "drawn", "over"  # kinds of the first line and of the last

Line = TypeVar("Line", bound=Body)


class DutyRecord(ABC, Generic[Line]):
    """Contract: depends on the sequence of lines alone."""

    SCOPES: ClassVar[str]  # how the journal scopes of its role begin

    def __init__(self, line: Line) -> None:
        self.line = line
        self.over: EndLine | None = None

    @classmethod
    @abstractmethod
    def drawn(cls, body: bytes) -> Self:
        """From its first line."""

    @classmethod
    def replay(cls, entries: Iterable[Entry]) -> Self:
        lines = iter(entries)
        record = cls.drawn(next(lines).body)
        for entry in lines:
            record.apply(entry.kind, entry.body)
        return record

    def apply(self, kind: str, body: bytes) -> None:
        if kind == OVER:
            self.over = exchange.decode(body, EndLine)
        else:
            self.learn(kind, body)

    @abstractmethod
    def learn(self, kind: str, body: bytes) -> None:
        """A line of the role's own."""

    @property
    @abstractmethod
    def scope(self) -> str:
        """Of the journal. It holds the seed: a reorganisation may draw anew for the same claim or case."""

    @property
    @abstractmethod
    def subject(self) -> bytes:
        """The claim or case that it is about."""
