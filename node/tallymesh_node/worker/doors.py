"""What a worker answers: `lease`, `seated`, `assign`, `accept`, `close`, `forfeit`.

Each handler checks everything that it believes, makes it durable, and only then answers; the same request again gets
the same answer. Signed messages are taken from whoever brings them, unsigned ones from the payer's peer alone. This
module starts nothing: it rings, and keeper.py does what follows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import trio

from tallymesh import exchange, plan, units, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import (
    INLINE_BYTES,
    AcceptRequest,
    AssignRequest,
    CloseRequest,
    ForfeitRequest,
    LeaseAnswer,
    LeaseRequest,
    Nothing,
    ReleaseAnswer,
    SeatedRequest,
)
from tallymesh.ids import JobId, blob_id
from tallymesh.messages import Accept, Assign, Cancel, Close, Lease, Offer, Order, Release
from tallymesh.text import sentence as one_line
from tallymesh.units import JobSpec, Unit
from tallymesh_ledger import keys
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_ledger.phases import Phase
from tallymesh_node.store import life
from tallymesh_node.worker.admission import SEAT_BY_MAX_S, Refusal, Situation, cores_of, judge
from tallymesh_node.worker.record import LeaseLine, Line
from tallymesh_node.worker.stake import OwnStake
from tallymesh_node.worker.tools import Tools, Work
from tallymesh_node.worker.unseated import Unseated

MAX_WAITING_UNITS = 256  # assigned and not done, on one seat: two tallies and a half
MAX_WAITING_BYTES = 32 * 1024 * 1024  # of all seats' waiting units together: they are kept in memory until they ran
MAX_SENTENCE, MAX_CODE = 500, 40  # characters of what a payer says to the owner
MAX_REFUSALS = 100  # kept for the owner's question why there is no job

# A fast payer's Accept may overtake the answer that shows its secret, or our writing that down.
SECRET_ON_ITS_WAY_S = 2.0

OK = exchange.encode(Nothing())


class House(Protocol):
    """What the handlers need of the service."""

    def find(self, seat: bytes) -> Work | None: ...

    def works(self) -> Iterable[Work]: ...

    async def adopt(self, line: LeaseLine) -> Work:
        """Make the lease durable and begin to work for it."""

    def look(self) -> None:
        """Look at the chain soon."""


class Doors:
    def __init__(
        self,
        tools: Tools,
        house: House,
        own_stake: OwnStake,
        current_offer: Callable[[], Offer | None],
        *,
        base_only: bool = False,
    ) -> None:
        self.tools = tools
        self.own_stake = own_stake
        self.house = house
        self.current_offer = current_offer
        self.base_only = base_only
        self.refusals: deque[tuple[float, str, Refusal]] = deque(maxlen=MAX_REFUSALS)  # (when, peer, why)
        restored = life.newest(tools.journal)
        self._restored_at = restored.at if restored is not None else -math.inf
        self.unseated = Unseated()
        self._leasing = trio.Lock()  # two leases judged at once would both see the same free core and stake

    def open(self) -> None:
        handlers: dict[str, Callable[[str, bytes], Awaitable[bytes]]] = {
            LeaseRequest.NAME: self.lease,
            SeatedRequest.NAME: self.seated,
            AssignRequest.NAME: self.assign,
            AcceptRequest.NAME: self.accept,
            CloseRequest.NAME: self.close,
            ForfeitRequest.NAME: self.forfeit,
        }
        for name, handler in handlers.items():
            self.tools.network.serve(name, handler)

    # Leases.

    async def lease(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, LeaseRequest, peer=peer)
        order = wire.decode(request.order, Order, peer=peer)
        keys.check(self.tools.domains, order, order.message.payer, peer=peer)
        lease = keys.open_signed(self.tools.domains, request.lease, Lease, order.message.signer, peer=peer)
        async with self._leasing:
            known = self.house.find(seat_id(self.tools.domains, lease.message))
            if known is not None:
                known.heard_from(peer)
                return exchange.encode(LeaseAnswer(known.record.line.lease))
            refusal = await self._judge(peer, request, order.message, lease.message)
            if refusal is not None:
                self.refusals.append((self.tools.clock(), peer, refusal))
                self.tools.counters["leases_refused"] += 1
                raise RemoteError(refusal.code, refusal.sentence, peer=peer)
            mine = self.tools.key.sign(self.tools.domains, lease.message)
            at = self.tools.chain.block_time()
            work = await self.house.adopt(LeaseLine(request.order, request.lease, mine.body, request.payer, at))
        self.tools.counters["leases_taken"] += 1
        return exchange.encode(LeaseAnswer(work.record.line.lease))

    async def _judge(self, peer: str, request: LeaseRequest, order: Order, lease: Lease) -> Refusal | None:
        tools = self.tools
        if lease.job != job_id(tools.domains, order):
            return Refusal("wrong_job", "The lease is not for a job of this order on this network.")
        if lease.worker != tools.key.address:
            return Refusal("wrong_worker", "The lease is for another worker.")
        if request.payer.peer_id != peer:
            # Receipts and tallies go where the request came from: a payer that sends us elsewhere may not be there.
            return Refusal("payer_unreachable", "The lease names another peer than the one that brought it.")
        if min(tools.clock(), tools.chain.block_time()) <= self._restored_at + SEAT_BY_MAX_S:
            # It may be one that was signed after the backup was made, with receipts that are forgotten. A lease
            # of then can be judged no more once its seat had to be taken.
            return Refusal("restored", "This node was put back from a backup and takes no leases for a few minutes.")
        spec = await tools.specs.obtain(
            order.template,
            request.spec,
            (request.payer,),
            ticket=request.lease,
            timeout_s=tools.parameters.lease_answer_s,
        )
        await tools.blobs.sync()
        return judge(order, lease, spec, await self._situation(order, lease, peer), tools.parameters)

    async def _funds(self, order: Order, job: bytes) -> int:
        """First what the payer has, then what its job has: it may be opened in between."""
        tokens = await self.tools.chain.tokens_of(order.payer)
        state = await self.tools.chain.job_state(JobId(job))
        if state is not None:
            return state.free
        return order.wages if tokens >= order.wages + order.audit_reserve else 0

    async def _situation(self, order: Order, lease: Lease, peer: str) -> Situation:
        tools = self.tools
        open_works = [work for work in self.house.works() if work.record.over is None]
        stake = await self.own_stake.stake(open_works)
        held = {w.record.lease.job: cores_of(w.record.order) for w in open_works if w.record.seat.phase is Phase.OPEN}
        agreed = [w.record.lease for w in open_works if w.record.id not in stake.counted]  # not yet in those figures
        return Situation(
            now=tools.chain.block_time(),
            offer=self.current_offer(),
            slots=stake.slots,
            free_stake=stake.free_wei,
            pending_lock=sum(each.lock for each in agreed),
            open_leases=len(open_works),
            payer_leases=sum(work.record.payer.peer_id == peer for work in open_works),
            cores_held=sum(cores for job, cores in held.items() if job != lease.job),
            funds=await self._funds(order, lease.job),
            unseated_until=self.unseated.until(order.payer),
            base_only=self.base_only,
            newcomer=Newcomer(
                stake.newcomer.seats + len(agreed),
                stake.newcomer.unpaid + sum(each.positions * each.price for each in agreed),
                stake.newcomer.deposit,
            ),
        )

    async def seated(self, peer: str, body: bytes) -> bytes:
        """A hint; the chain is what counts."""
        self._from_payer(peer, exchange.decode(body, SeatedRequest, peer=peer).seat)
        self.house.look()
        await trio.lowlevel.checkpoint()
        return OK

    # Work.

    async def assign(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, AssignRequest, peer=peer)
        assign: Assign = wire.decode(request.assign, Assign, peer=peer).message
        work = self._work(assign.seat, peer)
        keys.open_signed(self.tools.domains, request.assign, Assign, work.record.order.signer, peer=peer)
        unit = units.decode_unit(request.unit, peer=peer)
        async with work.lock:
            record = work.record
            known = assign.position < len(record.seat.assigned)
            if not known:
                self._check_unit(work, assign, unit, self.tools.specs.get(record.order.template), peer)
                self._check_room(work, peer)
                if request.inline:
                    self._keep(request, unit, peer)
                    await self.tools.blobs.sync()
                kept = AssignRequest(request.assign, request.unit, {}, request.sources)
                await work.commit(Line.ASSIGN, exchange.encode(kept))
            else:
                record.seat.assign(assign.position, assign.unit_id)  # refuses another unit for the same position
        work.heard_from(peer)
        return OK

    def _check_unit(self, work: Work, assign: Assign, unit: Unit, spec: JobSpec, peer: str) -> None:
        if units.unit_id(unit) != assign.unit_id:
            raise RemoteError("wrong_unit", "The unit is not the one that the Assign names.", peer=peer)
        if not plan.belongs(spec, unit):
            raise RemoteError("foreign_unit", "The unit does not belong to the order's template.", peer=peer)
        # Work is paid as the lease declares it: a heavier stage's unit must not come in at a lighter one's price.
        fits = [stage for stage in spec.stages if (stage.entry, stage.config) == (unit.entry, unit.config)]
        if all(stage.work_ms != work.record.lease.work_ms for stage in fits):
            raise RemoteError("foreign_unit", "The unit is of another stage than this seat was leased for.", peer=peer)
        if work.record.failed_at is not None:
            raise RemoteError("closed", "A unit of this seat failed: nothing after it can be tallied.", peer=peer)

    def _check_room(self, work: Work, peer: str) -> None:
        if len(work.record.waiting) >= MAX_WAITING_UNITS:
            raise RemoteError("busy", f"{MAX_WAITING_UNITS} units of this seat wait already.", peer=peer)
        held = sum(len(r.unit) for w in self.house.works() for r in w.record.waiting.values())
        if held >= MAX_WAITING_BYTES:
            raise RemoteError("busy", "Too many units wait on this node already.", peer=peer)

    def _keep(self, request: AssignRequest, unit: Unit, peer: str) -> None:
        """Blobs that came along, if they are what they say and what the unit takes."""
        wanted = {unit.program, *(item.blob for item in unit.inputs)}
        for name, data in request.inline.items():
            if name not in wanted or len(data) > INLINE_BYTES or blob_id(data) != name:
                raise RemoteError("bad_inline", "An inlined blob is not one of the unit's inputs.", peer=peer)
            self.tools.blobs.put(data)

    # Money and endings.

    async def accept(self, peer: str, body: bytes) -> bytes:
        data = exchange.decode(body, AcceptRequest, peer=peer).accept
        accept: Accept = wire.decode(data, Accept, peer=peer).message
        work = self._work(accept.seat, peer)
        keys.open_signed(self.tools.domains, data, Accept, work.record.order.signer, peer=peer)
        with trio.move_on_after(SECRET_ON_ITS_WAY_S):
            while work.record.misfit(accept) == "no_secret":
                await work.changed.wait()
        async with work.lock:
            record = work.record
            if accept not in record.seat.accepts:
                misfit = record.misfit(accept)
                if not misfit or accept.units > record.voucher_units:
                    await work.commit(Line.ACCEPT, data)
                    self.tools.counters["accepts"] += 1
                if misfit and not work.record.earned:
                    sentence = f"The Accept of tally {accept.tally} does not fit this worker's seat ({misfit})."
                    raise RemoteError(misfit, sentence, peer=peer)
            answer = await self._release(work)
        work.heard_from(peer)
        return answer

    async def _release(self, work: Work) -> bytes:
        """The answer to an Accept, a Close and a Cancel. A Release says that the seat may close once its units are
        paid: it is signed only when nothing more can be owed. The caller holds the lock."""
        record = work.record
        if record.earned and record.forfeited is None and not record.release:
            release = Release(seat=record.id, units=max(record.seat.accepted_units, record.voucher_units))
            await work.commit(Line.RELEASE, self.tools.key.sign(self.tools.domains, release).body)
        return exchange.encode(ReleaseAnswer(work.record.release))

    async def close(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, CloseRequest, peer=peer)
        if bool(request.close) == bool(request.cancel):
            raise RemoteError("bad_message", "Either a Close or a Cancel is expected.", peer=peer)
        kind, data = (Line.CLOSE, request.close) if request.close else (Line.CANCEL, request.cancel)
        expected: type[Close] | type[Cancel] = Close if request.close else Cancel
        message = wire.decode(data, expected, peer=peer).message
        work = self._work(message.seat, peer)
        keys.open_signed(self.tools.domains, data, expected, work.record.order.signer, peer=peer)
        async with work.lock:
            seat = work.record.seat
            again = (
                work.record.cancelled
                if isinstance(message, Cancel)
                else message.position <= seat.close_at and (seat.finished_at is not None or not message.final)
            )
            if not again:
                await work.commit(kind, data)
            answer = await self._release(work)
        work.heard_from(peer)
        return answer

    async def forfeit(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, ForfeitRequest, peer=peer)
        work = self._from_payer(peer, request.seat)
        async with work.lock:
            if work.record.forfeited is None:
                await work.commit(Line.FORFEIT, body)
                said = f"{one_line(request.sentence, MAX_SENTENCE)} ({one_line(request.code, MAX_CODE)})"
                work.stop(work.record.seat.accepted_units, f"The payer says: {said}")
                self.tools.counters["forfeits"] += 1
        return OK

    def _work(self, seat: bytes, peer: str) -> Work:
        work = self.house.find(seat)
        if work is None or work.record.over is not None:
            raise RemoteError("unknown_seat", f"This worker has no open seat {seat[:4].hex()}.", peer=peer)
        return work

    def _from_payer(self, peer: str, seat: bytes) -> Work:
        work = self._work(seat, peer)
        if work.record.payer.peer_id != peer:
            raise RemoteError("not_payer", "Only the payer's own peer may say this.", peer=peer)
        work.heard()
        return work
