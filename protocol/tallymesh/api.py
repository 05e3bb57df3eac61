"""What a node's local HTTP API takes and gives (docs/API.md); JSON both ways, wei as decimal strings.

The client, the command line and the node share these structs. Nothing here is signed: the API is between a person's
program and that person's own node, on loopback, behind a token.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tallymesh import amounts

# A sample of the units is recomputed by drawn auditors; all of them are; or each is run by two workers who must agree.
VERIFY: Final = ("sampled", "integrity", "replicate")


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base: unknown fields are ignored on reading, so that an older client reads a newer node."""


class Require(View, frozen=True):
    """What a peer must have to be given work."""

    cores: int = 1
    memory_gib: float = 1.0
    disk_gib: float = 1.0
    gpu: int = 0  # 1: units compute on a card each; they need memory_gib=4 or more beside its own
    region: str = ""


class Terms(View, frozen=True):
    """The buyer's terms. `budget_wei` is the most that the job may ever cost, audits included."""

    budget_wei: str
    max_price_wei: str = ""  # per reference-second; "" for any
    require: Require = Require()
    verify: str = "sampled"  # one of VERIFY
    workers_max: int = 0  # 0: as many as the job can use
    deadline_s: int = 24 * 3600  # from submission
    newcomers: bool = False  # accounts without stake may work, too; every unit of theirs is recomputed


class SubmitRequest(View, frozen=True):
    """POST /v1/jobs. All blobs that `spec` names were uploaded before."""

    spec: str  # blob id (hex) of the JobSpec
    terms: Terms


class Problem(View, frozen=True):
    """Why something was refused, waits or failed."""

    code: str
    sentence: str
    remedy: str = ""
    traceback: str = ""


class PeerView(View, frozen=True):
    """One worker within one job."""

    account: str
    peer_id: str
    seat: str
    stage: str
    phase: str
    price_wei: str  # per unit
    assigned: int
    received: int
    accepted: int
    paid: int
    problem: Problem | None = None

    def __repr__(self) -> str:
        units = f"{self.received}/{self.assigned} units, {self.accepted} accepted, {self.paid} paid"
        return f"<Peer {self.account[:10]}… {self.stage} {self.phase}: {units}>"


class JobView(View, frozen=True):
    """GET /v1/jobs/{id}. `status`: preparing, matching, running, settling, done, failed, cancelled."""

    id: str
    name: str
    kind: str
    status: str
    created: float
    finished: float = 0.0
    rounds: int = 0
    rounds_done: int = 0
    units: int = 0
    units_done: int = 0
    redone: int = 0
    replicated: int = 0  # units whose output two workers of two owners agree on
    audits: int = 0
    metrics: dict[str, float] = {}
    approximate: bool = False  # computed with batched=True: its hash promises nothing
    result: str = ""  # blob id (hex) of the final checkpoint; map: of the msgpack array of output blob ids
    budget_wei: str = "0"
    cost_wei: str = "0"
    escrow_wei: str = "0"
    spec: str = ""  # blob id (hex) of the JobSpec
    peers: tuple[PeerView, ...] = ()
    problem: Problem | None = None

    def __repr__(self) -> str:
        done = f"{self.rounds_done}/{self.rounds} rounds" if self.rounds else f"{self.units_done}/{self.units} units"
        return f"<JobView {self.id[:12]} {self.name or self.kind} {self.status} {done} peers={len(self.peers)}>"


class EventView(View, frozen=True):
    """One line of GET /v1/jobs/{id}/events (server-sent events; `id:` is the sequence).

    kinds: status, offers, match, lease, seat, assign, unit, round, metric, system, log, audit, caught, redo, accept,
    settle, refund, warning, done."""

    sequence: int
    at: float
    kind: str
    data: dict[str, Any]


class ReceiptView(View, frozen=True):
    seat: str
    account: str
    position: int
    unit: str
    end: str
    leaf: str
    tally: int  # 0 while it is in none
    accepted: bool
    void: bool
    metrics: dict[str, Any] = {}
    seconds: dict[str, float] = {}

    @property
    def outcome(self) -> str:
        return "void" if self.void else "accepted" if self.accepted else "pending"

    def __repr__(self) -> str:
        return f"<Receipt unit {self.position} by {self.account[:10]}… {self.outcome} end={self.end[:8]}>"


class AuditView(View, frozen=True):
    seat: str
    account: str  # of the worker
    tally: int
    position: int
    unit: str
    reason: str  # first, drawn, forced, confirm
    draw: int
    auditor: str  # address, or "payer" where the payer's own node recomputed
    state: str  # ordered, committed, opened, done, silent
    result: str  # match, mismatch, unavailable, or ""
    fee_wei: str = "0"

    @property
    def outcome(self) -> str:
        return self.result or ("unanswered" if self.state == "silent" else "awaited")

    def __repr__(self) -> str:
        by = "the payer's own node" if self.auditor == "payer" else f"{self.auditor[:10]}…"
        return f"<Audit {self.account[:10]}…'s unit {self.position} ({self.reason}) by {by}: {self.outcome}>"


class OfferView(View, frozen=True):
    """GET /v1/offers: what this node knows of the market."""

    account: str
    peer_id: str
    cores: int
    memory_mib: int
    disk_mib: int
    gpus: str
    cpu_score: int
    ask_price_wei: str
    numeric_class: str
    provisional: bool
    staked: bool
    expires: int
    class_counts: bool = False  # on chain, as far as this node read it: nobody is leased by another class
    stake_known: bool = True  # False until the chain has answered: then `staked` says nothing yet


class ProbationView(View, frozen=True):
    """Of a worker's account without a slot: what it earned becomes its first one."""

    earned_wei: str
    slot_wei: str
    seats: int  # open ones
    open_wei: str  # what they may still pay

    def __str__(self) -> str:
        earned, slot = int(self.earned_wei), int(self.slot_wei)
        return f"{amounts.show(earned)} of {amounts.show(slot)} earned towards a slot ({100 * earned // slot} %)"


class WithdrawRequest(View, frozen=True):
    """POST /v1/withdraw: carried by others, for a fee out of the account's credit; it needs no gas."""

    slots: int = 0  # to release, beside paying out the credit
    deposit: bool = False  # release the deposit, too
    fee_max_wei: str = "0"  # 0: a tenth of the credit


class WithdrawView(View, frozen=True):
    transaction: str  # hex; empty where somebody carried it and did not say so
    fee_wei: str
    carrier: str  # peer id


class NodeView(View, frozen=True):
    """GET /v1/node."""

    version: str
    network: str
    account: str
    peer_id: str
    addresses: tuple[str, ...]
    roles: tuple[str, ...]
    started: float
    peers: int
    staked: bool
    slots: int
    numeric_class: str
    provisional: bool
    sandbox: str
    reachable: str  # yes, no: …, checking
    offer: dict[str, Any]
    numeric_profile: str = ""  # hash (hex) of the profile that its sandboxes compute under
    gpu_profile: str = ""  # and of that under which units of jobs compute that ask for a GPU
    base: dict[str, str] = {}  # what units find there: python (minor version), machine, and packages' versions
    probation: ProbationView | None = None
    problems: tuple[Problem, ...] = ()
    counters: dict[str, float] = {}
    nearby: str = ""  # peers found on the local network, or why nobody looks for them
    gpus: str = ""  # those of the machine, and what is done with them, in words
    cards: str = ""  # of a node that is to sell them: trying, sold, none (could be); else empty
    stake_known: bool = True  # False until the chain has answered: then `staked` and `slots` say nothing yet


class BlobView(View, frozen=True):
    """One blob of the node's store."""

    id: str
    bytes: int
    used: float  # Unix time of its last use, as far as it is known
    pinned: bool = False
    needed: tuple[str, ...] = ()  # by whom; empty where it goes when room is needed


class StoreView(View, frozen=True):
    """GET /v1/blobs: what is in the node's blob store, and why."""

    bytes: int  # what is arriving included, as if it were whole
    bytes_max: int  # the owner's limit
    disk_free: int
    blobs: int
    needed: dict[str, int] = {}  # by whom -> bytes; a blob counts with each of them
    rows: tuple[BlobView, ...] = ()  # the largest first
    more: int = 0  # rows that are left out
    absent: tuple[str, ...] = ()  # pinned, and not here


class PinView(View, frozen=True):
    """PUT and DELETE /v1/blobs/{id}/pin."""

    id: str
    pinned: bool
    here: bool


class FreedView(View, frozen=True):
    """What POST /v1/blobs/collect and DELETE /v1/blobs/{id} dropped."""

    blobs: int
    bytes: int


class Refusal(View, frozen=True):
    """Body of every answer that is not a success. `kind` says whose fault it is (errors.py): caller, local, remote,
    chain."""

    code: str
    sentence: str
    remedy: str = ""
    kind: str = "caller"
    peer: str = ""
    reverted: bool = False


class ResultsView(View, frozen=True):
    """GET /v1/jobs/{id}/results. map: the blob id of each output in input order; training: the final checkpoint."""

    kind: str
    outputs: tuple[str, ...] = ()
    checkpoint: str = ""


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)
