"""One audit as its journal tells it: the call, the commitment, the opening, the verdict.

The order of these lines is the proof of blindness: a commitment is on disk before the opening was asked for, so before
anything of the worker's output was received. This module does no I/O.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from enum import StrEnum

from tallymesh import exchange, wire
from tallymesh.exchange import AuditRequest, Body, Source
from tallymesh.ids import ZERO32
from tallymesh.messages import AuditCommit, Open, Result, Verdict
from tallymesh_ledger import sampling
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.auditor import calls
from tallymesh_node.auditor.calls import Call
from tallymesh_node.interfaces import Entry

SCOPE = "auditor/"  # journal scopes: one an audit


class Line(StrEnum):
    """Kinds of journal lines, in the order in which they come; UNAVAILABLE skips the two in the middle."""

    CALL = "call"
    COMMIT = "commit"
    OPEN = "open"
    VERDICT = "verdict"
    OVER = "over"
    PAID = "paid"  # the fee is paid, or never will be


class CallLine(Body, frozen=True):
    request: bytes  # AuditRequest without the template, which is in the blob store
    payer: Source


class CommitLine(Body, frozen=True):
    commit: bytes
    end: bytes  # zero where the program gave no output
    probe: bytes


class OverLine(Body, frozen=True):
    code: str
    at: int


class AuditRecord:
    """Contract: depends on the sequence of applied lines alone."""

    def __init__(self, domains: Domains, line: CallLine) -> None:
        self.line = line
        self.request = exchange.decode(line.request, AuditRequest)
        self.call: Call = calls.read(domains, self.request, peer=line.payer.peer_id)
        self.payer = line.payer
        self.commit: CommitLine | None = None
        self.open: Open | None = None
        self.verdict = b""
        self.over: OverLine | None = None
        self.paid = False

    def __repr__(self) -> str:
        called = self.call.audit_order
        return (
            f"<AuditRecord {self.call.digest[:4].hex()} {called.position}/{called.draw}.{called.attempt} {self.state}>"
        )

    @property
    def state(self) -> str:
        if self.over is not None:
            return f"over: {self.over.code}"
        if self.verdict:
            return "verdict"
        return "opened" if self.open else "committed" if self.commit else "called"

    @property
    def scope(self) -> str:
        return SCOPE + self.call.digest.hex()

    @classmethod
    def replay(cls, domains: Domains, entries: Iterable[Entry]) -> AuditRecord:
        lines = iter(entries)
        first = next(lines)
        assert first.kind == Line.CALL, first.kind
        record = cls(domains, exchange.decode(first.body, CallLine))
        for entry in lines:
            record.apply(Line(entry.kind), entry.body)
        return record

    def apply(self, kind: Line, body: bytes) -> None:
        if kind is Line.COMMIT:
            assert self.commit is None and not self.verdict, "one commitment, and before the verdict"  # noqa: PT018
            self.commit = exchange.decode(body, CommitLine)
        elif kind is Line.OPEN:
            assert self.commit is not None, "nothing is opened to an auditor that has not committed"
            self.open = wire.decode(body, Open).message
        elif kind is Line.VERDICT:
            self.verdict = body
        elif kind is Line.OVER:
            self.over = exchange.decode(body, OverLine)
        elif kind is Line.PAID:
            self.paid = True

    @property
    def owed(self) -> bool:
        """A verdict was given, and whether it was paid is not known yet."""
        return self.over is not None and bool(self.verdict) and not self.paid

    # What this auditor signs. Everything follows from its key and what it found: an honest repeat is the same bytes.

    def salt(self, key: AccountKey) -> bytes:
        return hmac.digest(key.secret, b"tallymesh.audit.1" + self.call.digest, "sha256")

    def commit_line(self, domains: Domains, key: AccountKey, end: bytes, probe: bytes) -> CommitLine:
        commitment = sampling.commitment(end, self.salt(key), key.address, probe)
        message = AuditCommit(audit_order=self.call.digest, commitment=commitment)
        return CommitLine(key.sign(domains, message).body, end, probe)

    def verdict_body(self, domains: Domains, key: AccountKey) -> bytes:
        """MATCH or MISMATCH about the end that was committed to; UNAVAILABLE where there is no commitment."""
        if self.commit is None:
            result, end, salt, probe = Result.UNAVAILABLE, ZERO32, ZERO32, ZERO32
        else:
            assert self.open is not None
            end, salt, probe = self.commit.end, self.salt(key), self.commit.probe
            result = Result.MATCH if self.open.end == end else Result.MISMATCH
        message = Verdict(audit_order=self.call.digest, result=result, end=end, salt=salt, probe=probe)
        return key.sign(domains, message).body
