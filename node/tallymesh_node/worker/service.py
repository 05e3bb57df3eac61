"""The worker's service: its doors, its open seats, and the loop that sees to its pay.

After a restart every open seat is rebuilt from the journal: interrupted units run again, what was signed is sent again
byte for byte. This module wires; what each part does stands in doors, keeper, sender, heartbeat and settlement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import trio

from tallymesh import exchange, wire
from tallymesh.errors import LocalError
from tallymesh.ids import BlobId
from tallymesh.messages import Lease, Offer
from tallymesh.parameters import Parameters
from tallymesh_ledger import windows
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.phases import Phase
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Blobs, Chain, Executor, Journal, PeerNetwork
from tallymesh_node.store import life
from tallymesh_node.unit_inputs import Specs
from tallymesh_node.worker.access import Access, AccountOf
from tallymesh_node.worker.admission import Refusal, cores_of
from tallymesh_node.worker.doors import Doors
from tallymesh_node.worker.heartbeat import System, heartbeat
from tallymesh_node.worker.keeper import Keeper
from tallymesh_node.worker.policy import SettlePolicy
from tallymesh_node.worker.record import SCOPE, LeaseLine, Line, OverLine, SeatRecord
from tallymesh_node.worker.sender import Sender
from tallymesh_node.worker.settlement import Settlement
from tallymesh_node.worker.stake import OwnStake
from tallymesh_node.worker.tools import Tools, Work, log
from tallymesh_node.worker.unlocking import Unlocking
from tallymesh_node.worker.yielding import Allowed, Held, given_back

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # trio's own name, under the stubs that libp2p brings along

LEAVE_LOOK_S = 0.02  # between two looks whether everybody knows that this process ends: it takes some 50 ms
PRUNE_S = 3600.0  # between looks for journals of seats that are over and can be forgotten


class SeatView(msgspec.Struct, frozen=True, kw_only=True):
    """One seat for people and metrics."""

    seat: bytes
    job: bytes
    payer: str  # peer id
    phase: str
    seated: bool
    assigned: int
    running: int
    received: int
    accepted: int
    paid: int
    price: int
    until: int
    problem: str  # why this worker stopped working for the payer, or ""


class WorkerService:
    """Takes interfaces only. `run` serves until it is cancelled; `may_fetch` is for the blob server."""

    def __init__(
        self,
        *,
        network: PeerNetwork,
        blobs: Blobs,
        executor: Executor,
        chain: Chain,
        journal: Journal,
        domains: Domains,
        key: AccountKey,
        parameters: Parameters,
        clock: Callable[[], float],
        cores: Cores,
        current_offer: Callable[[], Offer | None],
        account_of: AccountOf,
        policy: SettlePolicy | None = None,
        system: System = dict,
        base_only: bool = False,
    ) -> None:
        self.tools = Tools(
            network=network,
            blobs=blobs,
            executor=executor,
            chain=chain,
            journal=journal,
            domains=domains,
            key=key,
            parameters=parameters,
            clock=clock,
            cores=cores,
            specs=Specs(blobs),
        )
        self._system = system
        self._works: dict[bytes, Work] = {}
        self._nursery: trio.Nursery | None = None
        self._ending: set[bytes] = set()
        self._allowed = Allowed()
        own_stake = OwnStake(self.tools)
        self._doors = Doors(self.tools, self, own_stake, current_offer, base_only=base_only)
        self._settlement = Settlement(self.tools, self.works, policy or SettlePolicy(), own_stake, self._over)
        self._unlocking = Unlocking(self.tools)
        self.may_fetch: Callable[[str, BlobId, bytes], bool] = Access(self.tools, self.works, account_of).may_fetch

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            restored = life.newest(self.tools.journal, away=True)
            for scope in self.tools.journal.scopes(SCOPE):
                entries = self.tools.journal.read(scope)
                record = SeatRecord.replay(self.tools.domains, entries)
                if record.over is None:
                    work = Work(self.tools, record)
                    work.restored = restored is not None and entries[0].sequence < restored.sequence
                    self._begin(work)
                self._unlocking.add(record)
            self._doors.open()
            nursery.start_soon(self._settlement.run)
            nursery.start_soon(self._unlocking.run)
            nursery.start_soon(self._prune)
            task_status.started()

    # For the owner.

    @property
    def refusals(self) -> Sequence[tuple[float, str, Refusal]]:
        """The newest leases that were not taken: (Unix time, peer id, why)."""
        return tuple(self._doors.refusals)

    @property
    def counters(self) -> dict[str, int]:
        return {**self.tools.counters, "leases_open": len(self._works)}

    @property
    def idle(self) -> bool:
        """No seat on which units may still come or run."""
        return all(work.record.seat.phase is not Phase.OPEN and not work.running for work in self._works.values())

    def seats(self) -> list[SeatView]:
        return [_view(work) for work in self._works.values()]

    def allow(self, allowed: Allowed) -> None:
        """What the owner wants now: seats that do not fit are given back, those that fit again are kept. Idempotent."""
        self._allowed = allowed
        self._give_back()

    async def hand_over(self, code: str, timeout_s: float) -> None:
        """Give back every seat, because this process ends; until all payers that answer know, or the time is over. Who
        does not hear it finds out by itself, seconds later. LocalError never: what cannot be stored is not said."""
        self.allow(Allowed(code=code, cut=True))
        with trio.move_on_after(timeout_s):
            while any(self._leaves(work) for work in self._works.values()):  # noqa: ASYNC110 - many seats, each its own bell
                await trio.sleep(LEAVE_LOOK_S)

    @staticmethod
    def _leaves(work: Work) -> bool:
        """Whether its payer has yet to hear that this worker does no more."""
        if work.record.seat.phase is Phase.OPEN:
            return True
        return bool(work.record.leave) and not work.leave_sent

    def _give_back(self) -> None:
        seats = [work for work in self._works.values() if work.record.seat.phase is Phase.OPEN]
        back = given_back(map(_held, sorted(seats, key=lambda work: work.record.line.at)), self._allowed)
        for work in seats:
            wanted = (back.get(work.record.id, ""), self._allowed.cut)
            if (work.yielding, work.cut) != wanted:
                work.yielding, work.cut = wanted
                work.ring()

    # For the doors.

    def find(self, seat: bytes) -> Work | None:
        return self._works.get(seat)

    def works(self) -> Iterable[Work]:
        return list(self._works.values())

    def look(self) -> None:
        self._settlement.bell.ring()

    async def adopt(self, line: LeaseLine) -> Work:
        """Make the lease durable, then work for it. LocalError where the disk refuses: then it was not taken."""
        scope = SCOPE + seat_id(self.tools.domains, wire.decode(line.lease, Lease).message).hex()
        entries = self.tools.journal.read(scope)
        if not entries:
            with trio.CancelScope(shield=True):
                await self.tools.journal.append(scope, (Line.LEASE.value, exchange.encode(line)))
                entries = self.tools.journal.read(scope)
        work = Work(self.tools, SeatRecord.replay(self.tools.domains, entries))
        if work.record.over is None:
            self._begin(work)
        return work

    # Seats.

    def _begin(self, work: Work) -> None:
        assert self._nursery is not None
        self._works[work.record.id] = work
        self._give_back()
        self._nursery.start_soon(self._keep, work)
        self.look()

    async def _keep(self, work: Work) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Sender(self.tools, work).run)
            nursery.start_soon(heartbeat, self.tools, work, self._system)
            if work.record.seat.phase is Phase.OPEN:  # while the payer takes the seat on chain
                nursery.start_soon(self.tools.executor.prepare, work.record.lease.job)
            await Keeper(self.tools, work).run()
            nursery.cancel_scope.cancel()
        job = work.record.lease.job
        self._works.pop(work.record.id, None)
        if all(other.record.lease.job != job for other in self._works.values()):
            await self.tools.executor.close_job(job)

    def _over(self, work: Work, code: str) -> None:
        """The chain says that nothing more can come of this seat."""
        if self._nursery is not None and work.record.id not in self._ending:
            self._ending.add(work.record.id)
            self._nursery.start_soon(self._end, work, code)

    async def _end(self, work: Work, code: str) -> None:
        try:
            async with work.lock:
                if work.record.over is None:
                    line = OverLine(code, self.tools.chain.block_time())
                    await work.commit(Line.OVER, exchange.encode(line))
                    payer = work.record.order.payer
                    if code == "unseated":
                        self._doors.unseated.missed(payer, line.at)
                    else:
                        self._doors.unseated.seated(payer)
                    self._unlocking.add(work.record)
                    log.info("seat %s is over (%s)", work.record.id[:4].hex(), code)
        except LocalError as error:  # the next look at the chain tries again
            log.error("seat %s is over and that cannot be stored: %s", work.record.id[:4].hex(), error)
        finally:
            self._ending.discard(work.record.id)

    async def held(self) -> set[BlobId]:
        """Blobs of all seats that this node can still be asked about."""
        found: set[bytes] = set()
        for scope in self.tools.journal.scopes(SCOPE):
            entries = self.tools.journal.read(scope)
            if entries:
                found |= SeatRecord.replay(self.tools.domains, entries).blobs
            await trio.lowlevel.checkpoint()
        return {BlobId(blob) for blob in found}

    def needed(self) -> set[bytes] | None:
        """All that open seats need: at once. None while the journals are not read."""
        if self._nursery is None:
            return None
        return {blob for work in self._works.values() for blob in (*work.record.blobs, *work.made)}

    def wants(self, blob: BlobId) -> bool:
        """Whether an open seat needs the blob: at once."""
        return any(blob in work.record.blobs for work in self._works.values())

    async def _prune(self) -> None:
        """Forget seats for which nobody can hold us to account any more: their lock has ended, and what the Court could
        have begun before."""
        keep_s = windows.evidence_s(self.tools.parameters)
        while True:
            for scope in self.tools.journal.scopes(SCOPE):
                entries = self.tools.journal.read(scope)
                if entries and entries[-1].kind == Line.OVER:
                    over = exchange.decode(entries[-1].body, OverLine)
                    # … and its lease is what frees its stake
                    locked = bytes.fromhex(scope.removeprefix(SCOPE)) in self._unlocking.locked
                    if self.tools.chain.block_time() > over.at + keep_s and not locked:
                        try:
                            await self.tools.journal.drop(scope)
                        except LocalError as error:
                            log.error("an old seat cannot be forgotten: %s", error)
                await trio.lowlevel.checkpoint()
            await trio.sleep(PRUNE_S)


def _held(work: Work) -> Held:
    order = work.record.order
    return Held(
        seat=work.record.id,
        job=work.record.lease.job,
        cores=cores_of(order),
        memory_mib=order.memory_mib,
        disk_mib=order.disk_mib,
    )


def _view(work: Work) -> SeatView:
    record = work.record
    return SeatView(
        seat=record.id,
        job=record.lease.job,
        payer=record.payer.peer_id,
        phase=record.seat.phase.value,
        seated=work.seated,
        assigned=len(record.seat.assigned),
        running=len(work.running),
        received=len(record.seat.leaves),
        accepted=max(record.seat.accepted_units, record.voucher_units),
        paid=work.paid_units,
        price=record.lease.price,
        until=record.lease.until,
        problem=work.problem,
    )
