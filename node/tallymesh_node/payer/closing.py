"""When a tally, a seat, or the job is to end: Close, Cancel, and how the job as a whole ends.

Close asks early for a tally only where that costs no more audits. This module pays nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tallymesh import exchange, wire
from tallymesh.api import Problem
from tallymesh.exchange import CloseRequest
from tallymesh.messages import Cancel, Close
from tallymesh_ledger import sampling, waits
from tallymesh_ledger.phases import Phase
from tallymesh_ledger.waits import Step
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.records import Cancelled, CloseAsked, Ending
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

REQUEST_S = 10.0
LATER = "Order it again, with more time or for more workers."
LEASE_MARGIN = 4  # a lease's last quarter, or what a unit may take: then nothing new is assigned on it


class Closing:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._ends: dict[bytes, str] = {}  # seats that get no more units, and why

    def problems(self) -> list[Problem]:
        return []

    def reconcile(self) -> None:
        driver, book = self.driver, self.driver.book
        if book.ending is None and book.complete and driver.own.measured:
            driver.doing.start(("ending",), self._settle)
        elif book.ending is None and driver.tools.chain.block_time() >= book.order.deadline:
            driver.doing.start(("ending",), self.fail, "deadline", "The job's deadline is over.", "", LATER)
        for held in book.all():
            if held.state in (LeaseState.SEATED, LeaseState.ENDING):
                self._seat(held)

    def end(self, held: Held, reason: str) -> None:
        """No more units on this seat; what is there is tallied and accepted."""
        self._ends.setdefault(held.id, reason)
        self.driver.wake()

    def _seat(self, held: Held) -> None:
        driver, book = self.driver, self.driver.book
        if book.ending is not None and book.ending.status in ("failed", "cancelled"):
            if held.seat.phase in (Phase.OPEN, Phase.CLOSING) and not held.cancel:
                driver.doing.start(("cancel", held.id), self._cancel, held)
            elif held.cancel and "cancel" not in held.live.told:
                driver.doing.start(("cancel", held.id), driver.watching.send_cancel, held)
            return
        if held.seat.phase is Phase.OPEN and (book.ending is not None or self._over(held)):
            driver.doing.start(("close", held.id), self._close, held, len(held.seat.assigned), True)
            return
        wanted = self._wanted(held)
        if wanted > max(held.seat.close_at, held.seat.tallied):
            driver.doing.start(("close", held.id), self._close, held, wanted, False)
        elif held.close and self._key(held) not in held.live.told:
            driver.doing.start(("close", held.id), self._send, held)

    def _over(self, held: Held) -> bool:
        """A lease ends in time for its last units to be tallied, accepted and settled."""
        parameters = self.driver.tools.parameters
        left = held.lease.until - self.driver.tools.chain.block_time()
        margin = waits.seconds(Step.UNIT, parameters, work_ms=held.lease.work_ms)
        return (
            held.id in self._ends
            or held.positions_left == 0
            or left <= min(margin, parameters.lease_max_s / LEASE_MARGIN)
        )

    def _wanted(self, held: Held) -> int:
        """Position below which all is to be tallied now; 0 for none."""
        book, seat = self.driver.book, held.seat
        if seat.phase not in (Phase.OPEN, Phase.CLOSING) or seat.tallied == 0:
            return 0  # the first unit is a tally of its own in any case
        open_bad = [p for p in held.bad if p >= seat.tallied]
        if open_bad:
            return max(open_bad) + 1  # its audit is forced, and others wait for its output
        if book.plan.finished:
            return len(seat.assigned)
        if book.training and seat.received - seat.tallied >= self._early:
            # What a cheat did is found sooner, and less has to be done again.
            return seat.received
        return 0

    @property
    def _early(self) -> int:
        """Units from which a tally costs no more audits than its share."""
        rate = self.driver.book.order.audit_rate_bp
        return max(self.driver.tools.parameters.tally_timed_units, -(-sampling.BP // rate))

    async def _close(self, held: Held, position: int, final: bool) -> None:
        driver = self.driver
        if held.seat.phase is not Phase.OPEN and final:
            return
        position = max(position, len(held.seat.assigned)) if final else position
        close = Close(seat=held.id, position=position, final=final)
        await driver.commit(CloseAsked(driver.sign(close).body))
        await self._send(held)

    async def _send(self, held: Held) -> None:
        key, request = self._key(held), CloseRequest(close=held.close)
        await self.driver.durable()
        network = self.driver.tools.network
        answer = await network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=REQUEST_S)
        await self.driver.auditing.take_release(held, answer)
        held.live.told.add(key)

    def _key(self, held: Held) -> str:
        close: Close = wire.decode(held.close, Close).message
        return f"close:{close.position}:{close.final}"

    async def _cancel(self, held: Held) -> None:
        driver = self.driver
        message = Cancel(seat=held.id, at=driver.tools.chain.block_time())
        await driver.commit(Cancelled(held.id, driver.sign(message).body))
        await driver.watching.send_cancel(held)

    # The job.

    async def _settle(self) -> None:
        driver, book = self.driver, self.driver.book
        result = book.plan.state
        if book.spec.kind == "map":
            result = driver.tools.blobs.put(msgspec.msgpack.encode(book.plan.results()))
            await driver.tools.blobs.sync()
        if book.ending is None and book.complete:
            await driver.commit(Ending("settling", result=result))

    async def fail(self, code: str, sentence: str, traceback: str, remedy: str = "") -> None:
        """The job ends; workers are paid for what is accepted."""
        if self.driver.book.ending is None:
            await self.driver.commit(Ending("failed", code, sentence, remedy, traceback))

    async def cancel(self) -> None:
        if self.driver.book.ending is None:
            await self.driver.commit(Ending("cancelled"))
