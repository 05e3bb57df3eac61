"""Where the world is replaced: what the roles (worker, auditor, payer) need from network, blobs, executor and chain.

Each interface has one real implementation and one fake, and both pass the same suite. The roles know these and
nothing behind them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from tallymesh.exchange import Source
from tallymesh.ids import ZERO32, BlobId
from tallymesh.messages import Lease, Order
from tallymesh.units import Unit
from tallymesh.wire import Signed
from tallymesh_ledger import court
from tallymesh_ledger.claims import Claim, Draw, Finding, Sample, Shown, SignedOpening, Terms
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_ledger.registry import RegistryAt

Handler = Callable[[str, bytes], Awaitable[bytes]]  # (peer id of the caller, body) -> body; RemoteError refuses


class PeerNetwork(Protocol):
    """Requests between peers. `request` raises RemoteError: `unreachable`, `timeout`, or the peer's own code."""

    @property
    def peer_id(self) -> str: ...

    @property
    def addresses(self) -> Sequence[str]:
        """Multiaddrs under which others reach this peer (without the /p2p part)."""

    @property
    def peers(self) -> Sequence[str]:
        """Peer ids to which a connection is open now."""

    async def request(self, peer: Source, name: str, body: bytes, *, timeout_s: float) -> bytes: ...

    async def reach(self, peer: Source) -> None:
        """RemoteError `unreachable` unless the peer can be dialled at an address that it announces. A connection that
        is open does not show that where the peer made it: others could not fetch anything from it."""

    def serve(self, name: str, handler: Handler) -> None:
        """Register the only handler of `name`. It runs in a task of its own, is cancelled with its stream, and what
        it raises ends that stream alone: TallymeshError becomes the refusal, anything else `internal` and a log
        line."""


class Blobs(Protocol):
    """Content-addressed bytes on this machine, and fetching them from others."""

    def has(self, blob: BlobId) -> bool: ...

    def path(self, blob: BlobId) -> Path:
        """A read-only file holding exactly the blob. KeyError where it is not here."""

    def get(self, blob: BlobId) -> bytes: ...

    def put(self, data: bytes) -> BlobId:
        """Store (whole or not at all) and name it. Not fsynced: call `sync` before signing anything about it."""

    async def sync(self) -> None:
        """All that was put so far is on disk when this returns. LocalError `disk` where it cannot be."""

    async def fetch(self, blob: BlobId, sources: Sequence[Source], *, ticket: bytes, timeout_s: float) -> None:
        """Make the blob present, verified chunk by chunk; RemoteError `not_found` where no source has it. `ticket`
        shows the holder why we may have it (an AuditOrder, or the seat)."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit may use. Beyond it the unit is killed and fails with code `limits`."""

    memory_mib: int = 2048
    wall_s: float = 600.0
    processes: int = 64
    files: int = 256
    file_mib: int = 1024  # largest single file it may write
    disk_mib: int = 1024  # private /tmp and outputs together
    output_mib: int = 512
    lines: int = 10_000  # log lines passed on; the rest is counted


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A unit that ran. `output` names the end state, already in the blob store."""

    output: BlobId
    metrics: bytes  # canonical JSON that the unit returned; `aux` is its BLAKE3
    seconds: Mapping[str, float]  # step -> wall seconds
    cpu_s: float
    steps: int = 0
    probe: bytes = ZERO32


class Failure(Exception):
    """A unit that gave no output. `code`: program (the user's code raised), limits, inputs, sandbox; of a loss check
    form, too: what it checked is no output of such a unit."""

    def __init__(self, code: str, sentence: str, traceback: str = "") -> None:
        self.code = code
        self.sentence = sentence
        self.traceback = traceback
        super().__init__(code, sentence)


OnLine = Callable[[str], None]
OnMetric = Callable[[str, float], None]


class Executor(Protocol):
    """Runs units in sandboxes, one sandbox a job, never shared between jobs."""

    async def run(
        self,
        job: bytes,
        unit: Unit,
        inputs: Mapping[BlobId, Path],  # program and all inputs
        limits: Limits,
        *,
        probe_key: bytes = b"",  # 32 bytes: hash the whole state after a step drawn from the key (auditors)
        on_line: OnLine | None = None,
        on_metric: OnMetric | None = None,
    ) -> Outcome:
        """Raises Failure. Cancelling kills the unit at once."""

    async def prepare(self, job: bytes) -> None:
        """Open the job's sandbox before its first unit is here. Best effort: what is wrong says `run`."""

    async def close_job(self, job: bytes) -> None:
        """Remove the job's sandbox and all it left. Idempotent."""


class Entry(msgspec.Struct, frozen=True):
    """One line of the journal."""

    sequence: int
    kind: str
    body: bytes


class Journal(Protocol):
    """What this node signed, promised or learned, in order. The roles rebuild their state from it after a crash."""

    async def append(self, scope: str, *lines: tuple[str, bytes]) -> int:
        """Durable (fsync) when it returns; all lines or none. Concurrent appends share one commit. Returns the last
        sequence number. LocalError `disk` where it cannot be written: then nothing may be signed."""

    def read(self, scope: str, after: int = 0) -> Sequence[Entry]: ...

    def scopes(self, prefix: str) -> Sequence[str]: ...

    async def drop(self, scope: str) -> None: ...


class SeatState(msgspec.Struct, frozen=True, kw_only=True):
    """A seat as the escrow holds it; `until` is the time of closing once it is closed."""

    units: int
    paid_units: int
    until: int
    open: bool
    bond: int = 0  # what is left of the payer's side of claims
    cases: int = 0  # live ones about it: they hold its stake
    unlocked: bool = False  # over, and its stake is free again
    newcomer: bool = False  # taken without a slot: little or nothing of the lease's lock is there


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the escrow holds it; amounts in wei."""

    signer: bytes
    free: int  # wages that no open seat holds
    reserve: int  # for audits
    open_seats: int
    last_closed: int  # when the newest seat closed


class SignedLease(msgspec.Struct, frozen=True):
    lease: Lease
    signer_signature: bytes
    worker_signature: bytes


class SeatEnding(msgspec.Struct, frozen=True):
    """All that ends one seat; what is None stays out. `audits` are pairs of AuditOrder and Verdict."""

    lease: Lease
    accept: Signed | None = None
    release: Signed | None = None
    audits: tuple[tuple[Signed, Signed], ...] = ()


class Chain(Protocol):
    """The escrow and the registry as the roles use them. Raises ChainError. Writes return when mined; `sender` is the
    node's own account."""

    @property
    def unavailable(self) -> str:
        """Why the chain cannot be asked at the moment, in a sentence; "" where it can."""

    def block_time(self) -> int:
        """Time of the newest block seen (at most a few seconds old): what every deadline is compared with."""

    async def final_block(self) -> tuple[int, bytes]:
        """(number, hash) of the newest block that counts as final."""

    async def registry_at(self, number: int, block_hash: bytes) -> RegistryAt:
        """RemoteError `wrong_block` where the chain has another hash at that number."""

    async def seat_state(self, seat: bytes) -> SeatState | None: ...

    async def job_state(self, job: bytes) -> JobState | None: ...

    async def open(self, order: Order, leases: Sequence[SignedLease]) -> bytes:
        """Fund the order's budget from this account and take the first leases, in one transaction (its hash). A seat
        that the escrow refused is not open afterwards: ask `seat_state`."""

    async def seat(self, order: Order, leases: Sequence[SignedLease]) -> bytes:
        """Take further leases; as for `open`, ask `seat_state` which were taken."""

    async def settle(self, items: Sequence[tuple[Lease, Signed]]) -> bytes:
        """Pay what the Accepts say, by anyone; an item with nothing new is skipped."""

    async def finish(self, order: Order, endings: Sequence[SeatEnding]) -> bytes:
        """Settle, pay audits, close, and give the payer back what is free, in one transaction."""

    async def pay_audits(self, lease: Lease, audits: Sequence[tuple[Signed, Signed]]) -> int:
        """Pay auditors of one seat (AuditOrder, Verdict) from the job's reserve, by anyone. How many were paid: those
        that were paid before, or cannot be, are left out, and nothing is sent where that leaves none."""

    async def expire(self, order: Order, leases: Sequence[Lease]) -> bytes:
        """Close seats past `until` and the claim window, by anyone."""

    async def unlock(self, leases: Sequence[Lease]) -> bytes:
        """Free the stake of seats whose lock's tail is over, by anyone; others are left out."""

    async def refund(self, order: Order) -> bytes:
        """Credit the payer with what no open seat holds, and with the reserve's rest once its window has passed."""

    async def withdraw(self) -> bytes:
        """Credits of this account."""

    async def tokens(self) -> int:
        """MESH that this account has outside all contracts: what a budget is paid from."""

    async def tokens_of(self, account: bytes) -> int:
        """The same of any account."""

    async def credits(self, account: bytes) -> int: ...

    async def free_stake(self, account: bytes) -> int: ...

    async def free_stakes(self, accounts: Sequence[bytes]) -> list[int]:
        """The same for many, in one round trip."""

    async def newcomers(self, accounts: Sequence[bytes]) -> list[Newcomer]:
        """What accounts without a slot have open and have earned, in one round trip."""


class ClaimsChain(Protocol):
    """Claims as the roles use them. Raises ChainError. Writes return when mined; each that costs gas and brings pay
    takes `brings_wei`, the MESH that it brings this account, and is refused (`not_worth_gas`) where its gas is worth
    more. Whatever moves a claim on can be called by anybody, and again: what is done already reverts and costs nothing.
    """

    async def terms(self) -> Terms: ...

    async def head(self) -> int:
        """Number of the newest block."""

    async def claim_of(self, claim: bytes) -> Claim | None: ...

    async def quarrels(self, seat: bytes) -> tuple[bytes, int]:
        """(the seat's live claim, b"" without one; positions below this were claimed once)."""

    async def samples(self, claim: bytes, k: int) -> list[Sample]: ...

    async def draws(self, claim: bytes, k: int) -> list[Draw]:
        """Who may audit, by sample and rank; empty before there is a seed. A rank that nobody has is left out."""

    async def captured(self, since: int) -> list[bytes]:
        """Claims that got their seed at or after this chain time, oldest first, each at least once for every call."""

    async def leaf(self, claim: bytes, sample: int, since_block: int) -> tuple[bytes, bytes] | None:
        """(start, end) of a sample's leaf as it was opened; None before."""

    async def shown(self, claim: bytes, seat: bytes, since_block: int) -> list[Shown]:
        """The leaves of a claim of this seat that were opened since this block, with their paths; empty before."""

    async def lease_of(self, claim: bytes, since_block: int) -> Lease | None:
        """The lease of the claimed seat, out of the transaction that made the claim (in block `since_block`); None
        where it is not there. The seat's id proves it."""

    async def witnesses(self, order: Order, lease: Lease) -> list[int]:
        """Slots of accounts besides the parties that could judge, ascending by account; fewer than the quorum where
        there are fewer."""

    async def ruled(self, case: bytes) -> bool:
        """Whether the Court's word on a case is final and was not carried out yet."""

    async def tokens(self) -> int:
        """What this account can put up as a bond, in wei."""

    async def held(self, account: bytes) -> int:
        """Credit of an account with the claims' contract (pay is credited by the escrow), in wei."""

    async def claim(
        self, order: Order, lease: Lease, tally: Signed, witnesses: Sequence[int], *, bond: int, brings_wei: int
    ) -> None: ...

    async def capture(self, claim: bytes) -> None: ...

    async def commit(self, claim: bytes, draw: Draw, commitment: bytes, *, bond: int, brings_wei: int) -> None: ...

    async def show(self, claim: bytes, openings: Sequence[SignedOpening]) -> None: ...

    async def reveal(self, claim: bytes, sample: int, finding: Finding) -> None: ...

    async def rule(self, lease: Lease, claim: bytes, sample: int) -> None: ...

    async def conclude(self, lease: Lease, claim: bytes, *, brings_wei: int | None = None) -> None: ...

    async def collect(self) -> None:
        """Withdraw this account's credit with the claims' contract."""


class CourtChain(Protocol):
    """Accusations and the Court as accuser, accused and members use them. Raises ChainError. Writes return when mined,
    and each takes `brings_wei`, the MESH that it brings this account: it is refused (`not_worth_gas`) where its gas is
    worth more; None sends at any price. What was done already reverts and costs nothing.

    What events say is given again at every call, from the chain as it is now: what a reorganisation took back is gone.
    """

    # ---- reads

    async def terms(self) -> court.Terms: ...

    async def head(self) -> int:
        """Number of the newest block."""

    async def case_of(self, case: bytes) -> court.Case | None: ...

    async def parties_of(self, case: bytes) -> court.Parties: ...

    async def members(self, case: bytes, size: int) -> list[court.Member]:
        """The present panel; empty unless the case is VOTING. A place for which nobody is admissible is left out."""

    async def ballots(self, case: bytes, round_: int, size: int) -> list[court.Ballot]:
        """By place on the panel of that round."""

    async def panels(self, since: int) -> list[bytes]:
        """Cases of which a panel was drawn at or after this chain time, oldest first, each once."""

    async def called(self, since: int) -> list[bytes]:
        """Cases of which a panel was called at or after this chain time: who wants it drawn, advances the case."""

    async def cases(self, account: bytes, since: int) -> list[court.Opened]:
        """In which the account is accused or accuser, opened at or after this chain time, oldest first."""

    async def origin(self, case: bytes) -> court.Origin | None:
        """What the case is about; None where the chain does not (or no longer) have it."""

    async def accusation_of(self, accusation: bytes) -> court.Accusation | None: ...

    async def accusations(self, seat: bytes, since: int) -> list[court.Accused]:
        """Made of this seat at or after this chain time, oldest first."""

    async def witnesses(self, order: Order, lease: Lease) -> list[int]:
        """Slots of accounts besides this one and the other parties that could judge, ascending by account; fewer than
        the quorum where there are fewer."""

    async def lock_left(self, lease: Lease) -> int:
        """The stake that this lease's seat still locks, in wei: what a conviction takes. 0 where it was never seated,
        was slashed before, or is unlocked (JobEscrow.lockLeft)."""

    async def tokens(self) -> int:
        """What this account can put up, in wei."""

    async def held(self, account: bytes) -> court.Held:
        """What the Court and Accusations owe an account."""

    # ---- writes: the parties

    async def accuse(
        self, order: Order, lease: Lease, charge: court.Charge, witnesses: Sequence[int], *, brings_wei: int | None
    ) -> None:
        """With `Terms.accusation_bond` deposited."""

    async def fraud(
        self,
        order: Order,
        lease: Lease,
        position: int,
        one: court.Statement,
        other: court.Statement,
        *,
        brings_wei: int | None,
    ) -> None: ...

    async def post(self, case: bytes, value: bytes, *, brings_wei: int | None = None) -> None: ...

    async def answer(self, case: bytes, value: bytes, *, brings_wei: int | None = None) -> None: ...

    async def appeal(self, case: bytes, *, brings_wei: int | None = None) -> None:
        """With `Terms.appeal_fee` deposited."""

    # ---- writes: members, and whoever moves a case on

    async def commit(self, case: bytes, member: court.Member, commitment: bytes, *, brings_wei: int | None) -> None: ...

    async def reveal(
        self, case: bytes, member: int, result: bytes, salt: bytes, *, brings_wei: int | None = None
    ) -> None: ...

    async def advance(self, case: bytes, *, brings_wei: int | None = None) -> None: ...

    async def acquit_or_convict(self, lease: Lease, accusation: bytes, *, brings_wei: int | None = None) -> None: ...

    async def collect_court(self) -> None:
        """Withdraw this account's credit with the Court …"""

    async def collect_accusations(self) -> None:
        """… and with Accusations."""
