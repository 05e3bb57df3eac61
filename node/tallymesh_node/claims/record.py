"""What the claims' two sides have on disk: lines of their journals, in the order in which they come.

What was signed or committed to is a line before it is sent; all else is read from the chain again. No I/O here.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from enum import StrEnum

from tallymesh import exchange, wire
from tallymesh.exchange import Body, ClaimUnitAnswer, Source
from tallymesh.ids import SeatId
from tallymesh.messages import Lease, Order, Tally
from tallymesh.wire import Signed
from tallymesh_ledger import claims, merkle, sampling
from tallymesh_ledger.claims import Draw
from tallymesh_ledger.eip712 import Domains, word
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import duties
from tallymesh_node.duties import DutyRecord
from tallymesh_node.interfaces import Entry
from tallymesh_node.lines import EndLine

CLAIMANT = "claim/"  # journal scopes: one a seat
AUDITOR = "claim-audit/"  # … and one a sample that this account was drawn for


class Line(StrEnum):
    """Kinds of journal lines."""

    CLAIM = "claim"  # signed, not sent yet
    END = "end"  # of the claim before it: paid, halved, failed, or why it was never made
    DRAWN = duties.DRAWN
    CALL = "call"  # the unit, as the worker gave it
    COMMIT = "commit"  # before it is sent
    OVER = duties.OVER


class ClaimLine(Body, frozen=True):
    order: bytes
    lease: bytes
    tally: bytes  # ours, with the number of claims
    at: int  # chain time


class DrawnLine(Body, frozen=True):
    claim: bytes
    seed: bytes
    sample: int
    rank: int
    attempt: int


class CallLine(Body, frozen=True):
    answer: ClaimUnitAnswer
    worker: Source


class CommitLine(Body, frozen=True):
    start: bytes
    end: bytes  # zero: UNAVAILABLE
    probe: bytes
    steps: int


class ClaimRecord:
    """The claims of one seat; at most the last is live. Contract: depends on the sequence of lines alone."""

    def __init__(self, line: ClaimLine, domains: Domains) -> None:
        self.order: Order = wire.decode(line.order, Order).message
        self.lease: Lease = wire.decode(line.lease, Lease).message
        self.seat: SeatId = seat_id(domains, self.lease)
        self.ended: list[EndLine] = []
        self.over = False
        self.chains: dict[int, bytes] = {}  # units -> the seat's chain value after a claim up to them
        self._claim(line)

    def __repr__(self) -> str:
        state = self.ended[-1].outcome if self.over else "live"
        return f"<ClaimRecord {self.id[:4].hex()} {self.tally.start}+{self.tally.count} {state}>"

    @classmethod
    def replay(cls, domains: Domains, entries: Iterable[Entry]) -> ClaimRecord:
        lines = iter(entries)
        record = cls(exchange.decode(next(lines).body, ClaimLine), domains)
        for entry in lines:
            record.apply(Line(entry.kind), entry.body)
        return record

    def apply(self, kind: Line, body: bytes) -> None:
        if kind is Line.CLAIM:
            assert self.over, "one live claim a seat"
            self._claim(exchange.decode(body, ClaimLine))
        elif kind is Line.END:
            self.ended.append(exchange.decode(body, EndLine))
            self.over = True

    @property
    def scope(self) -> str:
        return CLAIMANT + self.seat.hex()

    @property
    def tally(self) -> Tally:
        message: Tally = self.signed.message
        return message

    def _claim(self, line: ClaimLine) -> None:
        self.line = line
        self.signed: Signed = wire.decode(line.tally, Tally)
        tally = self.tally
        self.id = claims.claim_id(self.seat, tally.root, tally.start, tally.count)
        self.chains[tally.start + tally.count] = merkle.chain_value(
            tally.previous, tally.root, tally.start, tally.count
        )
        self.over = False


class AuditRecord(DutyRecord[DrawnLine]):
    """One sample that this account was drawn for."""

    SCOPES = AUDITOR

    def __init__(self, line: DrawnLine) -> None:
        super().__init__(line)
        self.call: CallLine | None = None
        self.commit: CommitLine | None = None

    def __repr__(self) -> str:
        state = self.over.outcome if self.over else "committed" if self.commit else "drawn"
        return f"<AuditRecord {self.line.claim[:4].hex()}/{self.line.sample} rank {self.line.rank} {state}>"

    @classmethod
    def drawn(cls, body: bytes) -> AuditRecord:
        return cls(exchange.decode(body, DrawnLine))

    def learn(self, kind: str, body: bytes) -> None:
        line = Line(kind)
        if line is Line.CALL:
            self.call = exchange.decode(body, CallLine)
        elif line is Line.COMMIT:
            assert self.commit is None, "one commitment a sample"
            self.commit = exchange.decode(body, CommitLine)

    @property
    def scope(self) -> str:
        """With the seed: a reorganisation may draw the same sample of the same claim anew, for another unit."""
        return f"{AUDITOR}{self.line.claim.hex()}/{self.line.sample}/{self.line.seed.hex()}"

    @property
    def subject(self) -> bytes:
        return self.line.claim

    def draw(self, me: bytes) -> Draw:
        return Draw(self.line.sample, self.line.rank, self.line.attempt, me)

    # What this auditor says follows from its key and what it found: an honest repeat is the same bytes.

    def salt(self, key: AccountKey) -> bytes:
        line = self.line
        return hmac.digest(key.secret, b"tallymesh.claim.1" + line.claim + word(line.sample) + line.seed, "sha256")

    def commitment(self, key: AccountKey) -> bytes:
        assert self.commit is not None
        return sampling.commitment(self.commit.end, self.salt(key), key.address, self.commit.probe)
