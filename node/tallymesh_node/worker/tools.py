"""What every part of the worker needs, and the volatile half of one seat (record.py holds the durable one)."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio

from tallymesh.errors import LocalError
from tallymesh_node.interfaces import SeatState
from tallymesh_node.tools import UnitTools
from tallymesh_node.worker.record import Line, SeatRecord

log = logging.getLogger("tallymesh.worker")

MAX_LINES_WAITING = 1000  # log lines of one seat that wait for the next heartbeats: 5 reports; older ones are dropped
MAX_METRICS_WAITING = 1000
UNSEATED_SLACK_S = 5  # of chain time after `seat_by`: a look at the chain must be newer than the last possible seat


@dataclass(frozen=True, kw_only=True)
class Tools(UnitTools):
    clock: Callable[[], float]  # Unix seconds: for durations that outlive a restart, never for deadlines


class Bell:
    """Wakes one waiting task; a ring while it works is heard when it waits again."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, timeout_s: float) -> None:
        with trio.move_on_after(timeout_s):
            await self._rung.wait()
        self._rung = trio.Event()


class Work:
    """One seat at work. Everything here can be lost in a crash; it is found out again.

    Contract: the record changes only through `commit`, under `lock`; what it signed is read by others only once it is
    durable."""

    def __init__(self, tools: Tools, record: SeatRecord) -> None:
        self.tools = tools
        self.record = record
        self.lock = trio.Lock()
        self.keeper_bell, self.sender_bell, self.heartbeat_bell = Bell(), Bell(), Bell()
        self.changed = trio.Event()  # set and replaced with each commit
        self.running: dict[int, trio.CancelScope] = {}
        self.acked: set[int] = set()  # positions whose receipt or failure the payer has
        self.sent_at: dict[int, float] = {}  # tally number -> when it was first sent
        self.secret_at: dict[int, float] = {}  # tally number -> when its secret was known
        self.leave_sent = False
        self.problem = ""  # why we stopped working for this payer, for people
        self.refused_from: float = math.inf  # the payer takes no receipt or tally from this position on
        self.state: SeatState | None = None  # as the chain last showed it
        self.looked_at = 0  # chain time of the last look at the chain
        self.done_at: float | None = None  # when there was nothing left to do but to be paid
        self.heard_at = trio.current_time()  # of the payer
        self.restored = False  # the journal was put back from a backup: positions may have receipts that it lost
        self.started: set[int] = set()  # positions that hold a core: their work is lost where they are killed
        self.yielding = ""  # the owner wants the machine: code of the Leave, once nothing has started any more
        self.cut = False  # … and does not wait for what has started
        self.claiming = False  # what is unpaid will be claimed on chain: this node leaves the seat
        self.claimed = False  # a claim is live: the seat neither closes nor expires
        self.made: set[bytes] = set()  # outputs that no journal line names yet: the disk may refuse it for hours
        self.lines: deque[tuple[int, str]] = deque(maxlen=MAX_LINES_WAITING)
        self.metrics: deque[tuple[int, str, float]] = deque(maxlen=MAX_METRICS_WAITING)

    def __repr__(self) -> str:
        return f"<Work {self.record!r} running={sorted(self.running)} seated={self.seated}>"

    @property
    def seated(self) -> bool:
        """Whether the chain holds this seat as it was agreed. A reorganisation may take it back."""
        state, lease = self.state, self.record.lease
        return (
            state is not None
            and state.open
            and (state.units, state.until) == (lease.positions, lease.until)  # the price is in the seat's id
        )

    @property
    def seat_missed(self) -> bool:
        """Whether the chain shows no seat although the last moment for it is over."""
        lease = self.record.lease
        return self.state is None and self.looked_at > min(lease.seat_by, lease.until) + UNSEATED_SLACK_S

    @property
    def paid_units(self) -> int:
        return self.state.paid_units if self.state else 0

    def ring(self) -> None:
        self.keeper_bell.ring()
        self.sender_bell.ring()

    def heard_from(self, peer: str) -> None:
        """A payer's message came from this peer. Orders and leases are on chain for all to read: who only says again
        what the payer once signed is no sign that the payer is there."""
        if peer == self.record.payer.peer_id:
            self.heard()

    def heard(self) -> None:
        """The payer gave a sign of life."""
        self.heard_at = trio.current_time()

    def stop(self, position: int, problem: str) -> None:
        """Work no further for this payer: it will not take (or did not honour) what stands from `position` on."""
        log.warning("seat %s: %s", self.record.id[:4].hex(), problem)
        self.problem = self.problem or problem
        self.refused_from = min(self.refused_from, position)
        self.ring()

    async def commit(self, kind: Line, body: bytes) -> None:
        """One event into the record and onto the disk. The caller holds `lock`. RemoteError where the seat refuses it,
        LocalError where the disk does; in both cases the record is as before."""
        assert self.lock.statistics().owner is trio.lowlevel.current_task(), "commit needs the lock"
        with trio.CancelScope(shield=True):  # a caller that hangs up must not leave memory and disk apart
            self.record.apply(kind, body)
            try:
                await self.tools.journal.append(self.record.scope, (kind.value, body))
            except LocalError:
                self.record = SeatRecord.replay(self.tools.domains, self.tools.journal.read(self.record.scope))
                raise
        self.changed.set()
        self.changed = trio.Event()
        self.ring()
