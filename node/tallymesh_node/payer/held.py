"""One lease of a job as the payer holds it: the Seat that both sides agree on, and what the payer keeps beside it."""

from __future__ import annotations

from tallymesh.exchange import Source
from tallymesh.ids import SeatId
from tallymesh.messages import Lease
from tallymesh.plan import Node
from tallymesh.units import Unit
from tallymesh.wire import Signed
from tallymesh_ledger.audit import Audit
from tallymesh_ledger.phases import Phase
from tallymesh_ledger.seat import ClosedTally, Seat
from tallymesh_scheduler.leases import LeaseState

LIVE = (LeaseState.AGREED, LeaseState.SEATED)
AT_WORK = (LeaseState.AGREED, LeaseState.SEATED, LeaseState.ENDING, LeaseState.LOST)  # its cap is not free yet


class Held:
    """The first half is rebuilt from the journal; `live` holds what a restart begins anew."""

    def __init__(
        self,
        seat_id: SeatId,
        offered: Signed,
        *,
        stage: int,
        peer: Source,
        width: int,
        tally_units: int,
        newcomer: bool = False,
        owner: bytes = b"",
    ) -> None:
        lease: Lease = offered.message
        self.id = seat_id
        self.lease = lease
        self.offered = offered  # under the signer's signature
        self.agreed: Signed | None = None  # under the worker's
        self.stage = stage
        self.peer = peer
        self.width = width
        self.newcomer = newcomer  # nothing much was at stake for its account when it was asked
        self.owner = owner or lease.worker  # as the Registry named it when it was asked
        self.state = LeaseState.ASKED
        self.seat = Seat(seat_id, lease, tally_units)
        self.assigns: dict[int, bytes] = {}  # until the position is accepted, like the next two
        self.units: dict[int, Unit] = {}
        self.receipts: dict[int, bytes] = {}
        self.nodes: list[Node] = []
        self.blobs: set[bytes] = set()  # what the worker may fetch from this node
        self.metrics: dict[int, bytes] = {}
        self.seconds: dict[int, dict[str, float]] = {}
        self.unchecked: set[int] = set()  # positions whose loss check is not done
        self.bad: dict[int, str] = {}  # positions with a bad loss, and what was found
        self.failures: dict[int, tuple[str, str]] = {}  # position -> (code, sentence)
        self.audits: dict[int, Audit] = {}
        self.tallies: list[bytes] = []
        self.accepts: list[Signed] = []
        self.close: bytes = b""  # the newest Close
        self.cancel: bytes = b""
        self.release: Signed | None = None
        self.problem: tuple[str, str] | None = None  # why it is ending or lost
        self.paid_units = 0  # as last seen on chain
        self.live = Live()

    def __repr__(self) -> str:
        return f"<Held {self.state.name} stage={self.stage} peer={self.peer.peer_id[-6:]} {self.seat!r}>"

    @property
    def account(self) -> bytes:
        return self.lease.worker

    @property
    def cap(self) -> int:
        return self.lease.positions * self.lease.price

    @property
    def takes_work(self) -> bool:
        return self.state in LIVE and self.seat.phase is Phase.OPEN

    @property
    def convicted(self) -> bool:
        return self.seat.phase is Phase.FORFEITED

    @property
    def outstanding(self) -> list[int]:
        """Positions that were assigned and have no receipt, as far as they still count."""
        end = self.seat.goal
        return [p for p in range(self.seat.received, end) if p not in self.seat.leaves]

    @property
    def positions_left(self) -> int:
        return self.lease.positions - len(self.seat.assigned)

    @property
    def unsettled(self) -> bool:
        """Whether something received is neither accepted nor void."""
        return not self.convicted and self.seat.accepted_units < min(self.seat.goal, len(self.seat.assigned))

    def gated(self, position: int, *, training: bool) -> bool:
        """Whether nothing may use the output before its tally is accepted: a seat's first unit, one with a bad loss,
        and in training the last of the lease."""
        return position == 0 or position in self.bad or (training and position == self.lease.positions - 1)

    def pending_tallies(self) -> list[ClosedTally]:
        """Tallies that wait for their verdicts, in order."""
        return [] if self.convicted else [closed for closed in self.seat.tallies if not closed.accepted]


class Live:
    """Not journaled: a restart asks, sends and waits again."""

    def __init__(self) -> None:
        self.sent: set[int] = set()  # positions whose Assign the worker has
        self.refusals = 0  # Assigns refused in a row
        self.heard_at: float | None = None  # last sign of life, trio's clock
        self.since: float | None = None  # when this process began to expect one
        self.assigned_at: dict[int, float] = {}
        self.received_at: float | None = None
        self.lagged_at = 0.0  # when this process went on after it was held up
        self.timed = 0  # units that were received since …
        self.timed_s = 0.0  # … and how long it took from when each could begin, together
        self.due_since: float | None = None
        self.unreachable_since: float | None = None
        self.told: set[str] = set()  # what the worker acknowledged: seated, close:…, cancel, accept:n, forfeit
        self.fetching: dict[bytes, object] = {}
        self.sequence = 0  # of the newest progress report
        self.said = 0.0  # lines and metrics of late that were shown, less what time allows
        self.said_at = 0.0
        self.system_due = 0.0  # when the next point of its machine's series is shown, trio's clock

    def received(self, position: int, now: float) -> None:
        """Its pace: a unit can begin with its Assign, or with the newest receipt where others came first. Of a worker
        with several cores that is less than it takes."""
        began = self.assigned_at.get(position)
        if began is not None:
            self.timed += 1
            self.timed_s += now - max(began, self.received_at or began, self.lagged_at)
        self.received_at = now
