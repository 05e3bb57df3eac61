"""Tells the payer what is on disk and not yet acknowledged: receipts and failures, then a Leave, then the tally over
them; with back-off, until the payer has it or the seat is over. Both sides count the same receipts when they see a
Leave; a payer that owes a secret must not be able to hold it up.

A repeat is the same bytes. This module signs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from tallymesh import exchange
from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import Body, FailureRequest, LeaveRequest, Nothing, ReceiptRequest, TallyAnswer, TallyRequest
from tallymesh_ledger import sampling
from tallymesh_ledger.phases import Phase
from tallymesh_node.worker.record import Line, SecretLine, evidence
from tallymesh_node.worker.tools import Tools, Work, log
from tallymesh_node.worker.units import inlined

REQUEST_S = 10.0  # for one answer: the payer writes what it gets to its disk first
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 15.0
# Refusals that say "not now"; any other one is the payer's last word on that message.
TRANSIENT = frozenset({"unreachable", "timeout", "busy", "internal", "disk", "locked", "chain_unavailable"})

A = TypeVar("A", bound=Body)


class Sender:
    def __init__(self, tools: Tools, work: Work) -> None:
        self.tools = tools
        self.work = work
        self._failures = 0

    async def run(self) -> None:
        while True:
            try:
                pause = math.inf if not await self._one() else 0.0
                self._failures = 0 if pause == 0.0 else self._failures
            except RemoteError as error:
                pause = self._backoff()
                log.debug("seat %s: %s; again in %.1f s", self.work.record.id[:4].hex(), error, pause)
            except LocalError as error:
                pause = self._backoff()
                log.error("seat %s: %s", self.work.record.id[:4].hex(), error)
            if pause:
                await self._wait(pause)

    def _backoff(self) -> float:
        self._failures = min(self._failures + 1, 16)
        # A seat's own factor, so that the workers of one payer do not all come back at the same moment.
        factor = 0.75 + self.work.record.id[0] / 512
        return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * float(2**self._failures)) * factor

    async def _wait(self, pause: float) -> None:
        """Until something new is there; while the payer does not answer, no sooner than its time has come."""
        if pause == math.inf:
            await self.work.sender_bell.wait(pause)
            return
        heard, until = self.work.heard_at, trio.current_time() + pause
        while trio.current_time() < until and self.work.heard_at == heard:
            await self.work.sender_bell.wait(until - trio.current_time())

    async def _one(self) -> bool:
        """Send the next message; False where there is none."""
        async with self.work.lock:  # while a commit is on its way, the record says what the disk does not hold yet
            send = self._next()
        if send is None:
            return False
        await send()
        return True

    def _next(self) -> Callable[[], Awaitable[None]] | None:
        """What is to be sent next, with its bytes. The caller holds the lock."""
        record = self.work.record
        if record.seat.phase in (Phase.FORFEITED, Phase.RELEASED):
            return None
        for position in sorted({*record.receipts, *record.failures} - self.work.acked):
            if record.seat.finished_at is None or position < record.seat.finished_at or position in record.failures:
                return partial(self._unit, position, *self._message(position))
        if record.leave and not self.work.leave_sent:
            return partial(self._leave, exchange.encode(LeaveRequest(record.leave)))
        for closed in record.seat.tallies:
            number = closed.range.number
            if not closed.secret and closed.range.end <= self.work.refused_from:
                return partial(self._tally, number, exchange.encode(TallyRequest(record.tallies[number])))
        return None

    def _message(self, position: int) -> tuple[str, bytes]:
        record = self.work.record
        if position in record.failures:
            return FailureRequest.NAME, exchange.encode(record.failures[position])
        return ReceiptRequest.NAME, exchange.encode(inlined(self.tools, record.receipts[position]))

    async def _unit(self, position: int, name: str, body: bytes) -> None:
        try:
            await self._ask(name, body, Nothing)
        except RemoteError as error:
            if error.code in TRANSIENT:
                raise
            await self._refused(error, position)
        self.work.acked.add(position)
        self.work.keeper_bell.ring()
        self.tools.counters["receipts_sent"] += 1

    async def _refused(self, error: RemoteError, position: int) -> None:
        """The payer will never take it. After its Cancel that is its right; else there is no use in working on."""
        async with self.work.lock:
            seat = self.work.record.seat
            if error.code == "too_late":
                if (seat.finished_at is None or position < seat.finished_at) and seat.phase is not Phase.FORFEITED:
                    await self.work.commit(Line.CUT, b"%d" % position)
                return
            await self.work.commit(Line.EVIDENCE, evidence(f"refused_{error.code}", str(error).encode()))
            self.work.stop(position, f"The payer refused a receipt: {error.sentence} ({error.code})")

    async def _tally(self, number: int, body: bytes) -> None:
        work = self.work
        work.sent_at.setdefault(number, trio.current_time())  # its minute begins with our first attempt
        work.keeper_bell.ring()
        try:
            answer = await self._ask(TallyRequest.NAME, body, TallyAnswer)
        except RemoteError as error:
            if error.code in TRANSIENT:
                raise
            async with work.lock:
                await work.commit(Line.EVIDENCE, evidence(f"refused_{error.code}", str(error).encode()))
                start = work.record.seat.tallies[number - 1].range.start
                work.stop(start, f"The payer refused tally {number}: {error.sentence} ({error.code})")
            return
        async with work.lock:
            closed = work.record.seat.tallies[number - 1]
            if closed.secret or work.record.seat.phase not in (Phase.OPEN, Phase.CLOSING):
                return
            if sampling.secret_hash(answer.secret) != work.record.secret_hash(number):
                await work.commit(Line.EVIDENCE, evidence("bad_secret", exchange.encode(answer)))
                shown = f"The payer showed a secret for tally {number} that is not the one it had signed."
                work.stop(closed.range.start, shown)
                self.tools.counters["bad_secrets"] += 1
                return
            await work.commit(Line.SECRET, exchange.encode(SecretLine(number, answer.secret)))
            work.secret_at[number] = trio.current_time()

    async def _leave(self, body: bytes) -> None:
        try:
            await self._ask(LeaveRequest.NAME, body, Nothing)
        except RemoteError as error:
            if error.code in TRANSIENT:
                raise
        self.work.leave_sent = True

    async def _ask(self, name: str, body: bytes, answer: type[A]) -> A:
        payer = self.work.record.payer
        try:
            data = await self.tools.network.request(payer, name, body, timeout_s=REQUEST_S)
        except RemoteError as error:
            if error.code not in ("unreachable", "timeout"):
                self.work.heard()
            raise
        self.work.heard()
        return exchange.decode(data, answer, peer=payer.peer_id)
