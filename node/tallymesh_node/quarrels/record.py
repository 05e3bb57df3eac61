"""A member's journal: one scope for each panel that this account sits on, from the draw to the ruling.

The vote is on disk before its commitment is sent; what follows from it (salts, commitments) is computed, never stored.
"""

from __future__ import annotations

import hmac
from enum import StrEnum

from tallymesh import exchange
from tallymesh.exchange import Body
from tallymesh_ledger import court
from tallymesh_ledger.eip712 import word
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import duties
from tallymesh_node.duties import DutyRecord

MEMBER = "court/"  # journal scopes


class Line(StrEnum):
    """Kinds of journal lines."""

    DRAWN = duties.DRAWN
    VOTE = "vote"  # before it is sent
    OVER = duties.OVER


class DrawnLine(Body, frozen=True):
    case: bytes
    round: int
    seed: bytes
    places: tuple[tuple[int, int], ...]  # (number on the panel, attempt): who is drawn twice has two votes


class VoteLine(Body, frozen=True):
    result: bytes  # the value that was found; UNSERVED


class MemberRecord(DutyRecord[DrawnLine]):
    """One panel that this account sits on."""

    SCOPES = MEMBER

    def __init__(self, line: DrawnLine) -> None:
        super().__init__(line)
        self.vote: VoteLine | None = None

    def __repr__(self) -> str:
        state = self.over.outcome if self.over else "voted" if self.vote else "drawn"
        return f"<MemberRecord {self.line.case[:4].hex()} round {self.line.round} {state}>"

    @classmethod
    def drawn(cls, body: bytes) -> MemberRecord:
        return cls(exchange.decode(body, DrawnLine))

    def learn(self, kind: str, body: bytes) -> None:
        if Line(kind) is Line.VOTE:
            assert self.vote is None, "one vote a panel"
            self.vote = exchange.decode(body, VoteLine)

    @property
    def scope(self) -> str:
        """With the seed: a reorganisation may draw the same round anew."""
        return f"{MEMBER}{self.line.case.hex()}/{self.line.round}/{self.line.seed.hex()}"

    @property
    def subject(self) -> bytes:
        return self.line.case

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
