"""A member's journal: one scope for each panel that this account sits on, from the draw to the ruling.

The vote is on disk before its commitment is sent; what follows from it (salts, commitments) is computed, never stored.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from enum import StrEnum

from tallymesh import exchange
from tallymesh.exchange import Body
from tallymesh_ledger import court
from tallymesh_ledger.eip712 import word
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.interfaces import Entry

MEMBER = "court/"  # journal scopes


class Line(StrEnum):
    """Kinds of journal lines."""

    DRAWN = "drawn"
    VOTE = "vote"  # before it is sent
    OVER = "over"


class DrawnLine(Body, frozen=True):
    case: bytes
    round: int
    seed: bytes
    places: tuple[tuple[int, int], ...]  # (number on the panel, attempt): who is drawn twice has two votes


class VoteLine(Body, frozen=True):
    result: bytes  # the value that was found; UNSERVED


class OverLine(Body, frozen=True):
    outcome: str
    at: int  # chain time


class MemberRecord:
    """Contract: depends on the sequence of lines alone."""

    def __init__(self, line: DrawnLine) -> None:
        self.line = line
        self.vote: VoteLine | None = None
        self.over: OverLine | None = None

    def __repr__(self) -> str:
        state = self.over.outcome if self.over else "voted" if self.vote else "drawn"
        return f"<MemberRecord {self.line.case[:4].hex()} round {self.line.round} {state}>"

    @classmethod
    def replay(cls, entries: Iterable[Entry]) -> MemberRecord:
        lines = iter(entries)
        record = cls(exchange.decode(next(lines).body, DrawnLine))
        for entry in lines:
            record.apply(Line(entry.kind), entry.body)
        return record

    def apply(self, kind: Line, body: bytes) -> None:
        if kind is Line.VOTE:
            assert self.vote is None, "one vote a panel"
            self.vote = exchange.decode(body, VoteLine)
        elif kind is Line.OVER:
            self.over = exchange.decode(body, OverLine)

    @property
    def scope(self) -> str:
        """With the seed: a reorganisation may draw the same round anew."""
        return f"{MEMBER}{self.line.case.hex()}/{self.line.round}/{self.line.seed.hex()}"

    def members(self, me: bytes) -> list[court.Member]:
        return [court.Member(number, attempt, me) for number, attempt in self.line.places]

    # What this member says follows from its key and what it found: an honest repeat is the same bytes.

    def salt(self, key: AccountKey, number: int) -> bytes:
        line = self.line
        place = word(line.round) + word(number)
        return hmac.digest(key.secret, b"tallymesh.court.1" + line.case + place + line.seed, "sha256")

    def commitment(self, key: AccountKey, number: int) -> bytes:
        assert self.vote is not None
        return court.vote(self.vote.result, self.salt(key, number), key.address)
