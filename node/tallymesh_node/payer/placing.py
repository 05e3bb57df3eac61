"""Gives units to seats: every worker's cores busy and one unit ahead, in position order, small inputs inlined.

A unit is at most one seat's at a time, or two seats' where each is run twice (replicas.py). This module does not know
what a unit does or whether its output is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tallymesh import exchange, units
from tallymesh.api import Problem
from tallymesh.errors import RemoteError
from tallymesh.exchange import INLINE_BYTES, MAX_BODY_BYTES, MAX_INLINE, AssignRequest, SeatedRequest, Source
from tallymesh.ids import BlobId, UnitId
from tallymesh.messages import Assign
from tallymesh.plan import Task
from tallymesh.units import Unit
from tallymesh_ledger import waits
from tallymesh_ledger.waits import Step
from tallymesh_node.payer import losses, replicas
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.records import Assigned
from tallymesh_node.unit_inputs import names_of, shared_names_of
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

AHEAD = 1  # units beyond a worker's cores: the next one's inputs travel while this one runs
REQUEST_S = 10.0  # for a worker's answer to an Assign: it writes to its disk first
BODY_SLACK = 8 * 1024  # of an AssignRequest beside unit and inlined blobs
PLACED_AT_ONCE = 256  # units placed in one line of the journal
SCAN = 64  # ready units looked at for one whose data the worker has already
REFUSALS_MAX = 3  # in a row: then the worker does not want to work
MAX_SOURCES = 8  # named beside an Assign


class Placing:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._fruitless = -1  # version of the book in which no seat with room may be given any unit that is ready
        self._holds: dict[bytes, set[bytes]] = {}  # account -> blobs that it was sent or made, as far as we know

    def reconcile(self) -> None:
        driver = self.driver
        for held in driver.book.all():
            if held.state is LeaseState.SEATED and "seated" not in held.live.told:
                driver.doing.start(("seated", held.id), self._tell_seated, held)
            unsent = (position for position in held.outstanding if position not in held.live.sent)
            first = next(unsent, None)
            if (
                first is not None
                and self._expected(held, first)
                and held.state in (LeaseState.AGREED, LeaseState.SEATED, LeaseState.ENDING)
            ):
                driver.doing.start(("send", held.id), self._send, held)
        if not driver.book.over and driver.book.version != self._fruitless:
            stages = {held.stage for held in driver.book.all() if self._room(held)}
            if stages and any(task.node.stage in stages for task in driver.book.ready()):
                driver.doing.start(("place",), self._place)

    def problems(self) -> list[Problem]:
        return []

    def made(self, held: Held, output: bytes) -> None:
        self._holds.setdefault(held.account, set()).add(output)

    # Which unit goes where.

    def _room(self, held: Held) -> int:
        """Units that may be assigned now."""
        book = self.driver.book
        if not held.takes_work or not book.opened or held.failures or held.seat.assignable():
            return 0
        if held.state is LeaseState.AGREED:
            # Before its seat is on chain a worker risks no more than its exposure, and refuses more.
            allowed = self.driver.tools.parameters.exposure_work_ms // held.lease.work_ms
            if len(held.seat.assigned) >= allowed:
                return 0
        return max(0, held.width + AHEAD - len(held.outstanding))

    async def _place(self) -> None:
        """One pass: the least loaded seat first, so that nobody gets a unit ahead while somebody is idle."""
        book = self.driver.book
        ready: dict[int, list[Task]] = {}
        for task in book.ready():
            ready.setdefault(task.node.stage, []).append(task)
            if len(ready[task.node.stage]) >= PLACED_AT_ONCE:
                break
        new: list[Assigned] = []
        taken: dict[UnitId, set[bytes]] = {}
        fresh: dict[bytes, int] = {}
        load = {held.id: len(held.outstanding) for held in book.all()}
        position = {held.id: len(held.seat.assigned) for held in book.all()}
        room = {held.id: self._room(held) for held in book.all()}
        for stage, tasks in ready.items():
            while tasks:
                seats = [h for h in book.all() if h.stage == stage and room[h.id] > 0 and self._fits(h, position[h.id])]
                if not seats:
                    break
                held = min(seats, key=lambda h: (load[h.id] / h.width, h.id))
                place = self._pick(held, tasks, taken, fresh)
                if place is None:
                    room[held.id] = 0
                    continue
                task = tasks.pop(place)
                assign = Assign(seat=held.id, position=position[held.id], unit_id=task.unit_id)
                if held.id in fresh and task.unit_id not in book.placed and task.unit_id not in taken:
                    fresh[held.id] += 1
                taken.setdefault(task.unit_id, set()).add(held.owner)
                node = (task.node.stage, task.node.round, task.node.index)
                new.append(Assigned(self.driver.sign(assign).body, units.encode(task.unit), node))
                load[held.id] += 1
                position[held.id] += 1
                room[held.id] -= 1
        if new:
            await self.driver.commit(*new)
        else:
            self._fruitless = book.version

    def _fits(self, held: Held, position: int) -> bool:
        seat = held.seat
        if position >= held.lease.positions:
            return False
        accepted = sum(closed.accepted for closed in seat.tallies)
        return seat.tally_of(position) <= accepted + 2

    def _pick(
        self, held: Held, tasks: list[Task], taken: dict[UnitId, set[bytes]], fresh_ones: dict[bytes, int]
    ) -> int | None:
        """The first unit whose data this worker has already, else the first whose data nobody has, else the first; of
        those whose inputs it may be given now (an auditor is blind until it has committed), and which it may run."""
        mine = self._holds.get(held.account, set())
        others = [blobs for account, blobs in self._holds.items() if account != held.account]
        first: int | None = None
        fresh: int | None = None
        for index, task in enumerate(tasks[:SCAN]):
            if held.account in self.driver.book.given.waiting(shared_names_of(task.unit)):
                continue
            if not replicas.may_run(self.driver.book, held, task, taken, fresh_ones):
                continue
            data = [item.blob for item in task.unit.inputs if item.name == "data"]
            if not data or all(blob in mine for blob in data):
                return index
            first = index if first is None else first
            if fresh is None and not any(blob in blobs for blobs in others for blob in data):
                fresh = index
        return first if fresh is None else fresh

    # Sending.

    async def _send(self, held: Held) -> None:
        """What the worker has not acknowledged, one after the other: it refuses a gap."""
        for position in held.outstanding:
            if position in held.live.sent or position not in held.assigns:
                continue
            if not self._expected(held, position):
                return
            unit = held.units[position]
            if gone := losses.lost(self.driver, unit):
                await losses.end_without(self.driver, gone)
                return
            request = AssignRequest(held.assigns[position], units.encode(unit), *self._inputs(held, unit))
            held.live.assigned_at.setdefault(position, trio.current_time())
            try:
                await self._ask(held, request)
            except RemoteError as error:
                await self._refused(held, error)
                raise
            held.live.sent.add(position)
            held.live.refusals = 0
            self._holds.setdefault(held.account, set()).update(
                [unit.program, *(item.blob for item in unit.inputs if item.name != "item")]
            )

    @staticmethod
    def _expected(held: Held, position: int) -> bool:
        """Whether the worker has the Accept of the tally before the last, without which it refuses the unit. It is on
        its way by itself, and an Assign may overtake it."""
        needed = held.seat.tally_of(position) - 2
        return needed <= 0 or f"accept:{needed}" in held.live.told

    async def _ask(self, held: Held, request: AssignRequest) -> None:
        tools = self.driver.tools
        await self.driver.durable()
        await tools.network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=REQUEST_S)
        held.live.unreachable_since = None

    async def _refused(self, held: Held, error: RemoteError) -> None:
        if error.code in ("unreachable", "timeout"):
            if held.live.unreachable_since is None:
                held.live.unreachable_since = trio.current_time()
            return
        held.live.refusals += 1
        if held.live.refusals >= REFUSALS_MAX or error.code == "unknown_seat":
            await self.driver.watching.give_up(held, "refused", f"It refused a unit: {error.sentence}")

    def _inputs(self, held: Held, unit: Unit) -> tuple[dict[bytes, bytes], tuple[Source, ...]]:
        """(inlined blobs, sources of the others)."""
        blobs, mine = self.driver.tools.blobs, self._holds.get(held.account, set())
        room = MAX_BODY_BYTES - BODY_SLACK - len(units.encode(unit))
        inline: dict[bytes, bytes] = {}
        sources = [self.driver.tools.source]
        for name in names_of(unit):
            if name in mine:
                continue
            if losses.is_here(self.driver, name):
                size = blobs.path(BlobId(name)).stat().st_size
                if size <= INLINE_BYTES and size + 64 <= room and len(inline) < MAX_INLINE:
                    inline[name] = blobs.get(BlobId(name))
                    room -= size + 64
                    continue
            maker = self.driver.book.makers.get(name)
            if maker is not None and maker not in sources and maker.peer_id != held.peer.peer_id:
                sources.append(maker)
        return inline, tuple(sources[:MAX_SOURCES])

    async def _tell_seated(self, held: Held) -> None:
        request = SeatedRequest(held.id, b"")
        wait = waits.seconds(Step.LEASE_ANSWER, self.driver.tools.parameters)
        await self.driver.tools.network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=wait)
        held.live.told.add("seated")
