"""What the payer's node writes down about a job, line by line, before it acts on it.

The book of a job (book.py) is these records applied in order; a restart applies them again. Signed messages are kept
in their wire form, so that what is sent again after a crash is the same bytes. This module does not know what follows
from a record.
"""

from __future__ import annotations

import msgspec

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import LocalError
from tallymesh.exchange import Opening, Source


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base: one line of a job's journal; its kind is the class name."""


class Submitted(Record, frozen=True):
    order: bytes  # under the payer's signature
    terms: bytes  # api.Terms as JSON
    created: float


class Opened(Record, frozen=True):
    """The order is funded on chain."""

    transaction: bytes


class Leased(Record, frozen=True):
    """The signer signed this lease for a worker; it is asked next."""

    lease: bytes
    stage: int
    peer: Source
    width: int  # units that the worker runs side by side
    newcomer: bool = False  # every unit is audited, and the seat is paid as soon as it is done
    owner: bytes = b""  # of the worker's account; empty for itself


class Agreed(Record, frozen=True):
    seat: bytes
    lease: bytes  # under the worker's signature


class Declined(Record, frozen=True):
    """The worker said no, did not answer, or the seat did not get on chain in time."""

    seat: bytes
    code: str
    sentence: str


class Seated(Record, frozen=True):
    seat: bytes
    newcomer: bool = False  # the escrow took it without a slot, whatever its worker had when it was asked


class Assigned(Record, frozen=True):
    assign: bytes
    unit: bytes
    node: tuple[int, int, int]  # stage, round, index


class Received(Record, frozen=True):
    receipt: bytes
    opening: Opening
    metrics: bytes
    seconds: dict[str, float]
    check: bool  # whether its output waits for the loss check


class Checked(Record, frozen=True):
    """The loss check of one output; `bad` forces the unit's audit."""

    seat: bytes
    position: int
    bad: bool
    sentence: str


class Failed(Record, frozen=True):
    """A worker's unit gave no output."""

    seat: bytes
    position: int
    code: str
    sentence: str


class Tallied(Record, frozen=True):
    tally: bytes
    in_place: bool  # signed by the signer in the worker's place


class Shown(Record, frozen=True):
    """c_e was shown: the draw is known from here on."""

    seat: bytes
    number: int


class Called(Record, frozen=True):
    """An AuditOrder."""

    order: bytes


class Committed(Record, frozen=True):
    commit: bytes


class Handed(Record, frozen=True):
    """The Open: the worker's opening goes to a committed auditor."""

    open: bytes


class Judged(Record, frozen=True):
    verdict: bytes


class Silent(Record, frozen=True):
    audit_order: bytes
    sentence: str


class Recomputed(Record, frozen=True):
    """The payer's own node ran the unit, as the verdict of these draws; `end` is zero where there was no output."""

    seat: bytes
    position: int
    end: bytes
    draws: tuple[int, ...]


class Unsteady(Record, frozen=True):
    """The payer's own node cannot say what the unit's result is: it found two, or none within the limits."""

    seat: bytes
    position: int


class Accepted(Record, frozen=True):
    accept: bytes


class CloseAsked(Record, frozen=True):
    close: bytes


class Cancelled(Record, frozen=True):
    seat: bytes
    cancel: bytes


class Left(Record, frozen=True):
    leave: bytes


class GivenUp(Record, frozen=True):
    """The worker gets nothing more on this seat. `cut`: the first position that does not count though it has a
    receipt (its output has a wrong form), or -1."""

    seat: bytes
    code: str
    sentence: str
    cut: int = -1


class Forfeited(Record, frozen=True):
    """A recomputation convicted the worker: all its open seats in this job are void from their accepted units on."""

    seat: bytes
    position: int
    check: str  # which check caught it
    sentence: str


class Released(Record, frozen=True):
    release: bytes


class Closed(Record, frozen=True):
    """The seat is closed on chain, with this many units paid."""

    seat: bytes
    paid_units: int


class Evaluated(Record, frozen=True):
    """The state after a round, measured on the held-out data."""

    round: int
    state: bytes
    metrics: bytes


class Ending(Record, frozen=True):
    """How the job ends: settling (all is accepted), failed or cancelled."""

    status: str
    code: str = ""
    sentence: str = ""
    remedy: str = ""
    traceback: str = ""
    result: bytes = b""  # blob id: the final checkpoint, or the msgpack array of a map's outputs


class Settled(Record, frozen=True):
    """Wages, auditors and refund were paid in one transaction."""

    at: float
    chain_time: int


class Archived(Record, frozen=True):
    """Nothing of the job is left in the escrow."""

    at: float


ALL: tuple[type[Record], ...] = (
    Submitted, Opened, Leased, Agreed, Declined, Seated, Assigned, Received, Checked, Failed, Tallied, Shown, Called,
    Committed, Handed, Judged, Silent, Recomputed, Unsteady, Accepted, CloseAsked, Cancelled, Left, GivenUp, Forfeited,
    Released, Closed, Evaluated, Ending, Settled, Archived,
)  # fmt: skip
_DECODERS = {kind.__name__: msgspec.msgpack.Decoder(kind) for kind in ALL}
_encoder = msgspec.msgpack.Encoder()


def line(record: Record) -> tuple[str, bytes]:
    """(kind, body) for the journal."""
    return type(record).__name__, _encoder.encode(record)


def read(kind: str, body: bytes) -> Record:
    """The record of a journal line; LocalError where it is none of ours."""
    try:
        return _DECODERS[kind].decode(body)
    except (KeyError, *UNREADABLE) as error:
        raise LocalError("bad_journal", f"A journal line of kind {kind!r} cannot be read: {error}") from None
