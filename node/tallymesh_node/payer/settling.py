"""The money at the end: one transaction pays wages and auditors, closes the seats and takes the rest back.

Seats without a Release are closed when the chain lets anybody do it; then the rest comes back too. This goes on after
the job is done, and after a restart. This module does not judge what is owed: it settles Accepts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tallymesh.api import Problem
from tallymesh.messages import Result
from tallymesh.wire import Signed
from tallymesh_ledger import waits
from tallymesh_ledger.audit import CallState
from tallymesh_ledger.phases import Phase
from tallymesh_ledger.waits import Step
from tallymesh_node.interfaces import SeatEnding
from tallymesh_node.payer.held import AT_WORK, LIVE, Held
from tallymesh_node.payer.records import Archived, Closed, Settled
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

ASK_S = 1.0  # between two requests for one Release
LOOK_S = 5.0  # between looks at the chain once only time is waited for
SETTLE_MARGIN_S = 30  # before a seat could be expired by anybody: its worker's Accept is settled by then
# A seat whose work is still being audited is expired so much later: else its Accept would come when nothing can be paid
# for it any more. Nobody but the payer gains by an expiry; what nobody can audit must not hold its money for long.
AUDITED_S = 120


class Settling:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._ready_since: float | None = None
        self._look_at = 0.0
        self._ask_at: dict[bytes, float] = {}

    def problems(self) -> list[Problem]:
        error = self.driver.doing.errors.get(("settle",))
        return [] if error is None else [Problem(code=error.code, sentence=error.sentence, remedy=error.remedy)]

    def reconcile(self) -> None:
        driver, book = self.driver, self.driver.book
        now = trio.current_time()
        if book.ending is not None and book.settled is None:
            self._ask_releases()
            if self._ready(now):
                driver.doing.start(("settle",), self._settle)
        if now >= self._look_at and (book.settled is not None or self._lapsed()):
            self._look_at = now + LOOK_S
            driver.doing.start(("aftermath",), self._aftermath)

    # Before the transaction.

    def _ready(self, now: float) -> bool:
        """Every seat's last word is here, or has had its time."""
        book = self.driver.book
        if any(held.state in (LeaseState.ASKED, *LIVE) for held in book.all()):
            return False
        if any(held.unsettled and held.state in AT_WORK for held in book.all()):
            self._ready_since = None
            return False
        if self._ready_since is None:
            self._ready_since = now
        if not any(self._may_release(held) for held in book.all()):
            return True
        return now - self._ready_since > waits.seconds(Step.RELEASE, self.driver.tools.parameters)

    def _may_release(self, held: Held) -> bool:
        """Whether a Release can still come: the worker is there, and did not just decline to give one."""
        if held.state not in (LeaseState.SEATED, LeaseState.ENDING) or held.release is not None:
            return False
        if not held.accepts:
            return not self._told_the_end(held)  # a worker that is owed nothing releases in answer to the end itself
        return held.seat.accepted_units < held.lease.positions

    def _told_the_end(self, held: Held) -> bool:
        told = held.live.told
        return any(key.startswith("close:") and key.endswith("True") for key in told) or "cancel" in told

    def _ask_releases(self) -> None:
        """A Release comes in answer to an Accept, once the worker has the final Close."""
        driver = self.driver
        for held in driver.book.all():
            due = trio.current_time() >= self._ask_at.get(held.id, 0.0) and self._told_the_end(held)
            if due and held.accepts and self._may_release(held) and held.seat.phase is Phase.CLOSING:
                if held.unsettled:
                    continue
                self._ask_at[held.id] = trio.current_time() + ASK_S
                driver.doing.start(("release", held.id), driver.auditing.deliver_one, held, held.accepts[-1])

    # The transaction.

    async def _settle(self) -> None:
        driver, book = self.driver, self.driver.book
        if any(held.agreed is not None for held in book.all()):  # else nothing was ever sent
            await driver.leasing.note_opened()
        if book.opened:
            await driver.tools.chain.finish(book.order, self._endings())
        await driver.commit(Settled(driver.tools.clock(), driver.tools.chain.block_time()))

    def earned(self) -> dict[bytes, list[tuple[Signed, Signed]]]:
        """Seat -> (AuditOrder, Verdict) of each audit that is to be paid."""
        audits: dict[bytes, list[tuple[Signed, Signed]]] = {}
        for calling in self.driver.book.calls.values():
            earned = calling.verdict is not None and calling.call.state is CallState.DONE
            lied = calling.call.auditor in calling.audit.outvoted and calling.call.result is not Result.UNAVAILABLE
            if earned and not lied and calling.verdict is not None:
                audits.setdefault(calling.held.id, []).append((calling.order, calling.verdict))
        return audits

    def _endings(self) -> list[SeatEnding]:
        audits, found = self.earned(), []
        for held in self.driver.book.all():
            accept = held.accepts[-1] if held.accepts else None
            pairs = tuple(audits.get(held.id, ()))
            if held.state in AT_WORK and (accept or held.release or pairs):
                found.append(SeatEnding(held.lease, accept, held.release, pairs))
        return found

    # Afterwards.

    def _lapsed(self) -> bool:
        """Whether a seat can be closed by anybody: its worker vanished, was convicted, or could not be audited."""
        now = self.driver.tools.chain.block_time()
        return any(now >= self._expires_at(held) for held in self.driver.book.all() if held.state in AT_WORK)

    def _expires_at(self, held: Held) -> int:
        """When this node ends the seat, in seconds of the chain. Anybody may once the claims' window is over."""
        return held.lease.until + self.driver.book.order.claim_window + (AUDITED_S if held.unsettled else 0)

    async def _aftermath(self) -> None:
        driver, book, chain = self.driver, self.driver.book, self.driver.tools.chain
        if not book.opened and book.settled is not None:
            await driver.commit(Archived(driver.tools.clock()))
            return
        now = chain.block_time()
        seats = [held for held in book.all() if held.state in AT_WORK]
        # judged before anything is waited for: an Accept that comes in the meantime is settled first, in the next look
        expired = [held.lease for held in seats if now >= self._expires_at(held)]
        late = [h for h in seats if h.accepts and now >= h.lease.until + book.order.claim_window - SETTLE_MARGIN_S]
        owed = []
        for held in late:
            state = await chain.seat_state(held.id)
            if state is not None and state.open and state.paid_units < held.seat.accepted_units:
                owed.append((held.lease, held.accepts[-1]))
        if owed:
            await chain.settle(owed)
        if expired:
            await chain.expire(book.order, expired)
        await self._close(seats)
        returned = [h for h in seats if h.state in AT_WORK and h.release is not None]
        if returned and book.settled is not None:  # workers that came back after the settlement
            endings = [SeatEnding(h.lease, h.accepts[-1] if h.accepts else None, h.release) for h in returned]
            await chain.finish(book.order, endings)
            await self._close(returned)
        if book.ending is not None:  # before, the free wages are for new seats
            await self._refund(now)

    async def _close(self, seats: list[Held]) -> None:
        driver = self.driver
        for held in seats:
            state = await driver.tools.chain.seat_state(held.id)
            if state is not None and not state.open:
                await driver.commit(Closed(held.id, state.paid_units))
            elif state is None and held.state in (LeaseState.SEATED, LeaseState.ENDING, LeaseState.LOST):
                await driver.commit(Closed(held.id, 0))  # a reorganisation took it

    async def _refund(self, now: int) -> None:
        driver, book, chain = self.driver, self.driver.book, self.driver.tools.chain
        state = await chain.job_state(book.id)
        if state is None:
            return
        held_wei = state.free + state.reserve
        reserve_free = state.open_seats == 0 and now >= state.last_closed + book.order.evidence_window
        if state.free or (state.reserve and reserve_free):
            await chain.refund(book.order)
            state = await chain.job_state(book.id)
            held_wei = state.free + state.reserve if state is not None else 0
            driver.events.add("refund", left_wei=str(held_wei))
        await self.look()
        if state is not None and state.open_seats == 0 and held_wei == 0 and book.settled is not None:
            await driver.commit(Archived(driver.tools.clock()))

    async def look(self) -> None:
        """What the escrow holds for the job, as people see it."""
        driver, book = self.driver, self.driver.book
        state = await driver.tools.chain.job_state(book.id)
        if state is None:
            return
        open_caps = 0
        for held in book.all():
            if held.state in AT_WORK:
                seat = await driver.tools.chain.seat_state(held.id)
                if seat is not None and seat.open:
                    held.paid_units = seat.paid_units
                    open_caps += (seat.units - seat.paid_units) * held.lease.price + seat.bond
        driver.escrow_wei = state.free + state.reserve + open_caps
