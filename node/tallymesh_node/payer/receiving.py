"""What workers send: receipts with their openings, tallies, failures, Leaves and signs of life.

Every handler believes only what is signed, or comes from the worker's own peer; makes it durable; and then answers. The
same request again gets the same answer. A receipt counts only with its output in this node's store.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from tallymesh import exchange, units
from tallymesh.api import Problem
from tallymesh.errors import RemoteError
from tallymesh.exchange import (
    INLINE_BYTES,
    FailureRequest,
    LeaveRequest,
    Nothing,
    ProgressRequest,
    ReceiptRequest,
    TallyAnswer,
    TallyRequest,
)
from tallymesh.ids import BlobId, blob_id
from tallymesh.messages import Leave, Receipt, Tally
from tallymesh.text import sentence as one_line
from tallymesh_ledger import keys, merkle
from tallymesh_ledger.registry import RegistryAt
from tallymesh_ledger.seat import TwoLeaves
from tallymesh_node.interfaces import Limits
from tallymesh_node.payer import contradictions
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.records import Failed, Left, Received, Shown, Tallied
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

FETCH_S = 300.0  # for an output over 64 KiB; a worker's request waits as long as its own patience, and asks again
HANDLER_S = 8.0  # a receipt waits this long for its output to arrive, then the worker is told to come again
MAX_STEPS = 64  # timed steps of one unit
MAX_NAME = 100
MAX_LINE = 2_000
MAX_SERIES = 16  # of a worker's machine: processor, memory and the like
SAID_MAX = 10 * exchange.MAX_LINES  # lines and metrics of one seat at once; then a report's worth each second
SYSTEM_S = 5.0  # between two points of them from one seat: events are bounded, and signs of life come every second

OK = exchange.encode(Nothing())


class Receiving:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._fetching: dict[bytes, trio.Event] = {}
        self._receiving: dict[tuple[bytes, int], trio.Lock] = {}

    def reconcile(self) -> None:
        """Everything here is started by others."""

    def problems(self) -> list[Problem]:
        return []

    def _heard(self, held: Held, peer: str) -> None:
        """Signed by the worker; a sign of its life only where its own peer brought it, and not who has kept it."""
        if peer == held.peer.peer_id:
            held.live.heard_at = trio.current_time()

    # Receipts.

    async def receipt(self, held: Held, peer: str, request: ReceiptRequest) -> bytes:
        signed = keys.open_signed(self.driver.tools.domains, request.receipt, Receipt, held.account, peer=peer)
        receipt: Receipt = signed.message
        self._heard(held, peer)
        lock = self._receiving.setdefault((held.id, receipt.position), trio.Lock())
        try:
            async with lock:  # a repeat waits for the first to be on disk
                await self._receipt(held, peer, receipt, request)
        finally:
            if not lock.statistics().tasks_waiting:
                self._receiving.pop((held.id, receipt.position), None)
        return OK

    async def _receipt(self, held: Held, peer: str, receipt: Receipt, request: ReceiptRequest) -> None:
        seat, opening = held.seat, request.opening
        if receipt.position in seat.leaves:
            if seat.leaves[receipt.position] != receipt.leaf:
                await self._keep(held, request.receipt)
                await self.driver.watching.give_up(held, "two_leaves", "It signed two outputs for one position.")
                raise TwoLeaves(receipt.position)
            return
        if not held.takes_work and (seat.finished_at is None or receipt.position >= seat.finished_at):
            raise RemoteError("too_late", "Nothing more counts on this seat.", peer=peer)
        if receipt.position >= len(seat.assigned):
            raise RemoteError("not_assigned", f"Position {receipt.position} was never assigned.", peer=peer)
        self._check_opening(held, peer, receipt, request)
        await self._output(held, peer, request)
        await self.driver.tools.blobs.sync()
        seconds = {
            one_line(name, MAX_NAME): float(value)
            for name, value in list(request.report.seconds.items())[:MAX_STEPS]
            if math.isfinite(value)
        }
        check = self.driver.own.checks(held)
        await self.driver.commit(Received(request.receipt, opening, request.report.metrics, seconds, check))
        held.live.received(receipt.position, trio.current_time())
        self.driver.placing.made(held, opening.end)

    async def _keep(self, held: Held, second: bytes) -> None:
        driver = self.driver
        if held.agreed is not None:
            book, journal = driver.book, driver.tools.journal
            await contradictions.keep(journal, book.id, book.order_signed.body, held.agreed.body, held.receipts, second)

    def _check_opening(self, held: Held, peer: str, receipt: Receipt, request: ReceiptRequest) -> None:
        """Refuse before anything is fetched: whoever lies about a leaf gets no work out of us."""
        seat, opening = held.seat, request.opening
        if any(len(value) != 32 for value in (opening.end, opening.salt, opening.start, opening.aux)):
            raise RemoteError("bad_opening", "A hash in the opening does not have 32 bytes.", peer=peer)
        if opening.unit_id != seat.assigned[receipt.position]:
            raise RemoteError("wrong_unit", "The receipt is for another unit than was assigned.", peer=peer)
        if merkle.leaf(held.id, receipt.position, opening) != receipt.leaf:
            raise RemoteError("bad_leaf", "The leaf is not the hash of its opening.", peer=peer)
        if opening.start != held.units[receipt.position].start:
            raise RemoteError("bad_start", "The opening starts from another state than the unit.", peer=peer)
        if blob_id(request.report.metrics) != opening.aux:
            raise RemoteError("bad_metrics", "The metrics are not those that the leaf commits to.", peer=peer)
        units.decode_metrics(request.report.metrics, peer=peer)

    async def _output(self, held: Held, peer: str, request: ReceiptRequest) -> None:
        blobs, end = self.driver.tools.blobs, BlobId(request.opening.end)
        if blobs.has(end):
            return
        inlined = request.inline.get(end)
        if inlined is not None:
            if len(inlined) > INLINE_BYTES or blob_id(inlined) != end:
                raise RemoteError("bad_inline", "The inlined output is not what its name says.", peer=peer)
            blobs.put(inlined)
            return
        done = self._fetching.get(end)
        if done is None:
            done = self._fetching[end] = trio.Event()
            if not self.driver.doing.start(("fetch", end), self._fetch, held, end, done):
                self._fetching.pop(end)
                raise RemoteError("busy", "Its output cannot be fetched now; send the receipt again.", peer=peer)
        with trio.move_on_after(HANDLER_S):
            await done.wait()
        if not blobs.has(end):
            raise RemoteError("busy", "Its output has not arrived yet; send the receipt again.", peer=peer)
        if blobs.path(end).stat().st_size > Limits().output_mib << 20:
            await self.driver.watching.give_up(held, "form", "An output is larger than the limit.")
            raise RemoteError("too_late", "An output is larger than the limit.", peer=peer)

    async def _fetch(self, held: Held, end: BlobId, done: trio.Event) -> None:
        try:
            await self.driver.tools.blobs.fetch(end, [held.peer], ticket=held.offered.body, timeout_s=FETCH_S)
        finally:
            self._fetching.pop(end, None)
            done.set()

    # Tallies.

    async def tally(self, held: Held, peer: str, request: TallyRequest) -> bytes:
        signed = keys.open_signed(self.driver.tools.domains, request.tally, Tally, held.account, peer=peer)
        tally: Tally = signed.message
        self._heard(held, peer)
        seat = held.seat
        if tally.number > len(seat.tallies):
            await self._check_block(tally, peer)
        if tally.number > len(seat.tallies):  # once more: another one came while the chain was asked
            unasked = self._unasked(held, tally)
            await self.driver.commit(Tallied(request.tally, False), Shown(held.id, tally.number))
            if unasked:
                self.driver.closing.end(held, "It closed a small tally that nobody asked for.")
        elif seat.tallies[tally.number - 1].message != tally:
            raise RemoteError("two_tallies", f"Tally {tally.number} has another content here.", peer=peer)
        secret = seat.tallies[tally.number - 1].secret
        if not secret:
            raise RemoteError("busy", "The secret of this tally is about to be shown.", peer=peer)
        await self.driver.durable()  # a repeat may come while the first is still being written
        return exchange.encode(TallyAnswer(secret))

    def _unasked(self, held: Held, tally: Tally) -> bool:
        """Whether the worker closed a small tally of its own accord. It may (it is leaving, or its time is over), but
        whoever did it again and again would have the payer audit most of its units: it gets no more of them."""
        seat, parameters = held.seat, self.driver.tools.parameters
        asked = seat.close_at > tally.start or seat.finished_at is not None
        full = tally.number == 1 or tally.count >= min(parameters.tally_timed_units, seat.tally_units)
        since = held.live.assigned_at.get(tally.start, -math.inf)
        return not (asked or full or trio.current_time() - since >= parameters.tally_time_s)

    async def _check_block(self, tally: Tally, peer: str) -> RegistryAt:
        tools = self.driver.tools
        final, _ = await tools.chain.final_block()
        if tally.block_number > final:
            raise RemoteError("busy", f"Block {tally.block_number} is not final here yet.", peer=peer)
        registry = await self.driver.auditing.registry(tally.block_number, tally.block_hash)
        if registry.block_time < tools.chain.block_time() - tools.parameters.block_age_max_s:
            raise RemoteError("old_block", "The tally names a block that is too old.", peer=peer)
        return registry

    # The rest.

    async def failure(self, held: Held, peer: str, request: FailureRequest) -> bytes:
        self._from_worker(held, peer)
        position = request.position
        if position >= len(held.seat.assigned) or position in held.seat.leaves:
            raise RemoteError("not_assigned", f"Position {position} is not open.", peer=peer)
        # An ending seat takes no new work, and its last units may fail: unheard, the job would wait for them for ever.
        if position not in held.failures and (held.takes_work or held.state is LeaseState.ENDING):
            await self.driver.commit(
                Failed(held.id, position, one_line(request.code, 40), one_line(request.sentence, MAX_LINE))
            )
        return OK

    async def leave(self, held: Held, peer: str, request: LeaveRequest) -> bytes:
        signed = keys.open_signed(self.driver.tools.domains, request.leave, Leave, held.account, peer=peer)
        if held.problem is None or held.problem[0] != "left":
            # A lease that we never seated, or that ran out, is no reason to pass a worker over.
            seated = held.state in (LeaseState.SEATED, LeaseState.ENDING)
            blameless = not seated or signed.message.code in ("lease_over", "unseated")
            await self.driver.commit(Left(request.leave))
            # After a failed unit it is found out first whose fault that was (watching.py): often the user's program's.
            if not held.failures and not blameless:
                self.driver.trust.rest("worker", held.account, f"It left a seat: {one_line(signed.message.code, 80)}.")
        return OK

    async def progress(self, held: Held, peer: str, request: ProgressRequest) -> bytes:
        self._from_worker(held, peer)
        await trio.lowlevel.checkpoint()
        if held.convicted or held.seat.phase.value == "released":
            raise RemoteError("closed", "Nothing is expected on this seat any more.", peer=peer)
        held.live.unreachable_since = None
        if request.sequence <= held.live.sequence:
            return OK  # a repeat: its lines are shown already
        held.live.sequence = request.sequence
        events, account = self.driver.events, keys.checksum(held.account)
        for position, line in request.lines[: self._allowed(held, len(request.lines))]:
            events.add("log", account=account, line=one_line(line, MAX_LINE), **self._where(held, position))
        for position, name, value in request.metrics[: self._allowed(held, len(request.metrics))]:
            if math.isfinite(value):
                shown = one_line(name, MAX_NAME)
                events.add("metric", account=account, name=shown, value=value, **self._where(held, position))
        self._system(held, account, request)
        return OK

    def _allowed(self, held: Held, asked: int) -> int:
        """How many of that many lines or metrics count: the rest would push what happened out of the events."""
        live, now = held.live, trio.current_time()
        live.said = max(0.0, live.said - (now - live.said_at) * exchange.MAX_LINES)
        live.said_at = now
        allowed = min(asked, max(0, int(SAID_MAX - live.said)))
        live.said += allowed
        return allowed

    def _system(self, held: Held, account: str, request: ProgressRequest) -> None:
        now = trio.current_time()
        if now < held.live.system_due:
            return
        series = [(one_line(name, MAX_NAME), value) for name, value in request.system.items() if math.isfinite(value)]
        if series:
            held.live.system_due = now + SYSTEM_S
            self.driver.events.add("system", account=account, series=dict(series[:MAX_SERIES]))

    def _where(self, held: Held, position: int) -> dict[str, int | str]:
        if not 0 <= position < len(held.nodes):
            return {}
        node = held.nodes[position]
        return {"stage": self.driver.book.spec.stages[node.stage].name, "round": node.round, "index": node.index}

    def _from_worker(self, held: Held, peer: str) -> None:
        if peer != held.peer.peer_id:
            raise RemoteError("not_worker", "Only the worker's own peer may say this.", peer=peer)
        held.live.heard_at = trio.current_time()
