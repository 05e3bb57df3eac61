"""Bodies of the requests that peers send each other beside the signed messages (docs/PROTOCOL.md section 2).

Every request is one libp2p stream: ``[name, body]`` out, ``["ok", body]`` or ``["refused", code, sentence]`` back.
Each is idempotent: the same bytes again get the same answer. Fields of type ``bytes`` named after a message hold its
wire form (wire.py). This module does not know how a stream is opened.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from tallymesh.errors import RemoteError

MAX_BODY_BYTES = 1024 * 1024  # one frame; larger blobs are fetched, never inlined
INLINE_BYTES = 64 * 1024  # a blob up to this size travels with the message that first names it
MAX_INLINE = 64  # blobs inlined in one body
MAX_LINES = 200  # log lines in one progress report


class Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every body."""


class Nothing(Body, frozen=True):
    """An answer that only says: done."""


class Source(Body, frozen=True):
    """Where blobs can be fetched."""

    peer_id: str
    addresses: tuple[str, ...] = ()


class Opening(Body, frozen=True):
    """What a leaf commits to; `aux` is the hash of the metrics that the unit returned, nothing measured, no time."""

    unit_id: bytes
    start: bytes
    end: bytes
    salt: bytes
    aux: bytes


class Report(Body, frozen=True):
    """Measured by the worker, signed by nobody: for people."""

    metrics: bytes = b"{}"  # canonical JSON; its hash is `aux`
    seconds: dict[str, float] = {}  # step of the unit -> wall seconds
    cpu_s: float = 0.0


class LeaseRequest(Body, frozen=True):
    """payer -> worker, answered within `lease_answer_s` by LeaseAnswer or a refusal with its reason."""

    NAME = "lease"
    order: bytes
    lease: bytes
    spec: bytes  # the JobSpec's bytes, or empty: then it is fetched by `Order.template`
    payer: Source


class LeaseAnswer(Body, frozen=True):
    lease: bytes  # the same Lease under the worker's signature


class SeatedRequest(Body, frozen=True):
    """payer -> worker: the seat is in this transaction. A hint; the worker believes the chain."""

    NAME = "seated"
    seat: bytes
    transaction: bytes


class AssignRequest(Body, frozen=True):
    NAME = "assign"
    assign: bytes
    unit: bytes
    inline: dict[bytes, bytes] = {}
    sources: tuple[Source, ...] = ()


class ReceiptRequest(Body, frozen=True):
    """worker -> payer: a unit is done. (One that gave no output is a FailureRequest.)"""

    NAME = "receipt"
    receipt: bytes
    opening: Opening
    report: Report = Report()
    inline: dict[bytes, bytes] = {}


class FailureRequest(Body, frozen=True):
    """worker -> payer: the unit at this position gave no output. No receipt, no pay: `code` says whose fault it is."""

    NAME = "failure"
    seat: bytes
    position: int
    code: str  # "program" (the user's code raised), "limits", "inputs", "sandbox"
    sentence: str
    traceback: str = ""


class TallyRequest(Body, frozen=True):
    NAME = "tally"
    tally: bytes


class TallyAnswer(Body, frozen=True):
    secret: bytes  # c_e, shown only after the root is signed


class AuditRequest(Body, frozen=True):
    """payer -> auditor. Carries all that the auditor needs to check that it was drawn, and nothing about the output."""

    NAME = "audit"
    audit_order: bytes
    order: bytes
    lease: bytes
    tally: bytes
    secret: bytes
    assign: bytes
    unit: bytes
    spec: bytes  # or empty: fetched by `Order.template`
    sources: tuple[Source, ...] = ()


class CommitRequest(Body, frozen=True):
    """auditor -> payer, answered with the Open."""

    NAME = "commit"
    commit: bytes


class OpenAnswer(Body, frozen=True):
    open: bytes


class VerdictRequest(Body, frozen=True):
    NAME = "verdict"
    verdict: bytes


class AcceptRequest(Body, frozen=True):
    """payer -> worker, answered with ReleaseAnswer: the Release once a final Close was asked, else empty."""

    NAME = "accept"
    accept: bytes


class ReleaseAnswer(Body, frozen=True):
    release: bytes = b""


class CloseRequest(Body, frozen=True):
    """payer -> worker; also carries Cancel. The worker answers at once, with ReleaseAnswer (a Release where it is owed
    nothing), and sends the Tally when it is due."""

    NAME = "close"
    close: bytes = b""
    cancel: bytes = b""


class LeaveRequest(Body, frozen=True):
    NAME = "leave"
    leave: bytes


class ForfeitRequest(Body, frozen=True):
    """payer -> worker: why this seat gets no more Assigns and which verdicts say so."""

    NAME = "forfeit"
    seat: bytes
    code: str
    sentence: str
    verdicts: tuple[bytes, ...] = ()


class ProgressRequest(Body, frozen=True):
    """worker -> payer every `heartbeat_s` while a seat is open: sign of life, live logs and metrics."""

    NAME = "progress"
    seat: bytes
    sequence: int
    running: tuple[int, ...] = ()  # positions in work
    lines: tuple[tuple[int, str], ...] = ()  # (position, line)
    metrics: tuple[tuple[int, str, float], ...] = ()  # (position, name, value)
    system: dict[str, float] = {}  # cpu_percent, memory_mib, …


class ClaimUnitRequest(Body, frozen=True):
    """auditor -> worker that claimed on chain: one sample's unit. Answered to whom the chain drew for it."""

    NAME = "claim_unit"
    claim: bytes
    sample: int


class ClaimUnitAnswer(Body, frozen=True):
    """All that is needed to run the unit and to see that it belongs to the claim, and nothing about its output. The
    request's own bytes are the ticket for the unit's blobs."""

    order: bytes
    lease: bytes
    assign: bytes
    unit: bytes
    sources: tuple[Source, ...] = ()


class WhereRequest(Body, frozen=True):
    """accused or accuser -> member of the Court: here I am asked. For parties whose peer no offer names."""

    NAME = "where"
    binding: bytes  # PeerBinding of the asking peer, under its account's signature
    addresses: tuple[str, ...]


class CourtUnitRequest(Body, frozen=True):
    """member of the Court -> accused or accuser: the disputed unit of a case. Answered to whom the chain drew for the
    panel of this round, while it votes."""

    NAME = "court_unit"
    case: bytes
    round: int


class CourtUnitAnswer(Body, frozen=True):
    """All that is needed to run the disputed step and to see that it is this case's. The request's own bytes are the
    ticket for the unit's blobs, and for the state that the parties agreed on last."""

    order: bytes
    lease: bytes
    unit: bytes
    opening: Opening | None = None  # of the leaf, in a case of an accusation: the case's id proves it
    sources: tuple[Source, ...] = ()


class CarryTermsRequest(Body, frozen=True):
    """anybody -> staked peer: what does carrying cost: a RelayedBond, or a RelayedWithdraw of `slots`, with
    the account's PeerBinding where `bind` says so?"""

    NAME = "carry_terms"
    bond: bool
    slots: int = 0
    bind: bool = False


class CarryTermsAnswer(Body, frozen=True):
    fee: str  # wei of MESH, decimal, out of the account's credit


class CarryRequest(Body, frozen=True):
    """anybody -> staked peer: send this to the Registry for the fee in it. `request` is a RelayedBond or a
    RelayedWithdraw under its owner's signature, `binding` a PeerBinding under the account's, or empty."""

    NAME = "carry"
    bond: bool
    request: bytes
    binding: bytes = b""


class CarriedAnswer(Body, frozen=True):
    transaction: bytes  # mined


B = TypeVar("B", bound=Body)
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[Body], msgspec.msgpack.Decoder[Body]] = {}


def encode(body: Body) -> bytes:
    data = _encoder.encode(body)
    assert len(data) <= MAX_BODY_BYTES, f"{type(body).__name__} of {len(data)} bytes"
    return data


def decode(data: bytes, expected: type[B], *, peer: str = "") -> B:
    """The body in `data`, or RemoteError naming `peer`."""
    if len(data) > MAX_BODY_BYTES:
        raise RemoteError("too_large", f"A body of {len(data)} bytes is over {MAX_BODY_BYTES}.", peer=peer)
    decoder = _decoders.get(expected)
    if decoder is None:
        decoder = _decoders[expected] = msgspec.msgpack.Decoder(expected)
    try:
        body = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError) as error:
        raise RemoteError("bad_message", f"Not a {expected.__name__}: {error}", peer=peer) from None
    assert isinstance(body, expected)
    inline = getattr(body, "inline", {})
    if len(inline) > MAX_INLINE:
        raise RemoteError("too_large", f"{len(inline)} inlined blobs are more than {MAX_INLINE}.", peer=peer)
    return body
