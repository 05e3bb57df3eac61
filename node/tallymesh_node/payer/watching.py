"""Sees when a worker is gone, too slow, or fails, and gives it up: the work goes to others at once.

What it has receipts for is tallied in its place, audited and paid as usual. This module convicts nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tallymesh import exchange
from tallymesh.api import Problem
from tallymesh.errors import RemoteError
from tallymesh.exchange import CloseRequest, SeatedRequest
from tallymesh.messages import Cancel, Tally
from tallymesh_ledger import waits
from tallymesh_ledger.phases import Phase
from tallymesh_ledger.waits import Step
from tallymesh_node.payer import losses
from tallymesh_node.payer.held import AT_WORK, Held
from tallymesh_node.payer.own import LIMITS_REMEDY, NOT_DETERMINISTIC, NOT_DETERMINISTIC_REMEDY
from tallymesh_node.payer.records import Cancelled, GivenUp, Shown, Tallied
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

FIRST_HEARTBEAT_S = 10.0  # a worker that has just agreed may be busy making the job's sandbox
UNREACHABLE_S = 2.0  # no answer and no sign of life for this long: a broken connection, not a hiccup
OWN_LAG_S = 2.0  # this process was held up: nobody is late before it has listened again
REQUEST_S = 10.0
PROBE_S = 5.0  # for a peer whose connection broke to answer on a new one: a dial and a request
PROBE_PAUSE_S = 0.5  # between two tries: a peer that is gone refuses at once
# A worker that takes so many times the declared work, and half of the grace, for so many units in the mean is late.
# Ten times and the whole grace end the seat; a busy or slower machine is far from either.
PACE_FACTOR, PACE_GRACE_SHARE, PACE_UNITS = 4, 2, 2
REPORT_S = 10.0  # a worker ends a unit at its limit and says so: its clock starts later than ours, and its word travels
FAULTS_OF_PROGRAM = ("program", "limits")  # may be the user's: tried here before the worker is blamed
FAILURES_WITH_OWN = 3  # workers that units must fail on which run here, before the program is to blame after all
FAILURES_WITHOUT_OWN = 2  # workers that a unit must fail on where this node cannot try it


class Watching:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._looked_at: float | None = None
        self._late_once: set[tuple[bytes, int]] = set()  # accounts that were found late in this job, by stage

    def problems(self) -> list[Problem]:
        return []

    @property
    def judging(self) -> bool:
        """Whether a failed unit is being tried here: if the program is at fault, the job needs nobody any more."""
        return any(("failure", held.id) in self.driver.doing for held in self.driver.book.all())

    def reconcile(self) -> None:
        now = trio.current_time()
        lagged = self._looked_at is not None and now - self._looked_at > OWN_LAG_S
        self._looked_at = now
        for held in self.driver.book.all():
            if held.state not in AT_WORK or held.convicted:
                continue
            live = held.live
            if live.since is None:
                live.since = now
            if lagged:
                live.lagged_at = now
                live.heard_at = None if live.heard_at is None else now
            live.due_since = (live.due_since or now) if held.seat.due() is not None else None
            if held.state is LeaseState.LOST:
                self._in_place(held)
            elif held.state in (LeaseState.SEATED, LeaseState.ENDING):
                self._watch(held, now)

    def _watch(self, held: Held, now: float) -> None:
        if held.live.unreachable_since is None and held.peer.peer_id not in self.driver.tools.network.peers:
            # A process that was killed takes its connections along at once; its silence would tell it seconds later.
            self.driver.doing.start(("probe", held.id), self._probe, held)
        if held.failures and held.seat.phase in (Phase.OPEN, Phase.CLOSING):
            position = min(held.failures)
            if position >= held.seat.goal:
                return
            self.driver.doing.start(("failure", held.id), self._failed, held, position)
            return
        late = self._late(held, now)
        if late is not None:
            self.driver.doing.start(("give_up", held.id), self.give_up, held, *late)
        elif (held.account, held.stage) not in self._late_once:
            self._pace(held)

    def _pace(self, held: Held) -> None:
        """A worker that is within its limit each time, and always far from what was declared, would hold a chain or a
        round up until its lease is over, and then be the cheapest again. Once a stage: it may be all that there is."""
        declared_s, live = held.lease.work_ms / 1000, held.live
        limit_s = PACE_FACTOR * declared_s + self.driver.tools.parameters.unit_grace_s / PACE_GRACE_SHARE
        if live.timed >= PACE_UNITS and live.timed_s > live.timed * limit_s:
            mean_s = live.timed_s / live.timed
            self._late_once.add((held.account, held.stage))
            sentence = f"Its units took {mean_s:.0f} s each, where {declared_s:.1f} s are declared."
            self.driver.trust.doubt(held.account, sentence)
            if self.driver.book.training and held.takes_work and held.positions_left > held.width:
                self.driver.events.add("warning", code="late", sentence=sentence)
                self.driver.closing.end(held, sentence)

    def _late(self, held: Held, now: float) -> tuple[str, str] | None:
        """(code, sentence) where the worker has run out of time."""
        parameters, live = self.driver.tools.parameters, held.live
        if not (held.takes_work or held.outstanding or live.due_since is not None):
            return None  # nothing is expected of it but a Release
        assert live.since is not None
        heartbeat = waits.seconds(Step.HEARTBEAT, parameters)
        if live.heard_at is None:
            if now - live.since > heartbeat + FIRST_HEARTBEAT_S:
                return "silent", "It never gave a sign of life."
        elif now - live.heard_at > heartbeat:
            return "silent", f"It missed {parameters.heartbeats_missed} signs of life."
        elif live.unreachable_since is not None and now - live.heard_at > UNREACHABLE_S:
            return "unreachable", "It cannot be reached, and gives no sign of life."
        if live.due_since is not None and now - live.due_since > waits.seconds(Step.TALLY, parameters):
            return "no_tally", f"Its tally is {parameters.tally_due_s:g} s overdue."
        return self._slow(held, now)

    def _slow(self, held: Held, now: float) -> tuple[str, str] | None:
        """A unit's time begins when it can: with its Assign, or with the newest receipt where others came first."""
        limit = waits.seconds(Step.UNIT, self.driver.tools.parameters, work_ms=held.lease.work_ms)
        wait = limit + REPORT_S
        sent = [held.live.assigned_at[p] for p in held.outstanding if p in held.live.assigned_at]
        if not sent:
            return None
        began = min(sent)
        rounds = len(held.outstanding) // held.width + 1  # of its cores, at the very most
        if now - max(began, held.live.received_at or began) > wait or now - began > wait * (rounds + 1):
            return "too_slow", f"A unit takes more than the {limit:g} s that it may."
        return None

    async def _probe(self, held: Held) -> None:
        """Whether the worker answers on a new connection. Only that it does not is remembered: what it says of the seat
        is no sign of life, for any process at its address with its key could say it."""
        request = SeatedRequest(held.id, b"")
        try:
            network = self.driver.tools.network
            await network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=PROBE_S)
        except RemoteError as error:
            if error.code in ("unreachable", "timeout") and held.live.unreachable_since is None:
                held.live.unreachable_since = trio.current_time()
                return
        await trio.sleep(PROBE_PAUSE_S)

    # Giving up.

    async def give_up(self, held: Held, code: str, sentence: str, cut: int = -1) -> None:
        """Nothing more goes to this seat; what it has receipts for still counts."""
        driver = self.driver
        if held.state in (LeaseState.SEATED, LeaseState.ENDING):
            await driver.commit(GivenUp(held.id, code, sentence, cut))
            driver.trust.rest("worker", held.account, f"{code}: {sentence}")
            if not held.seat.leaves:
                driver.trust.doubt(held.account, f"It took a seat and delivered nothing ({code}).")
            driver.doing.start(("cancel", held.id), self._cancel, held)

    async def _cancel(self, held: Held) -> None:
        """Tell it, if it can hear, that the running units do not count any more."""
        driver = self.driver
        if not held.cancel:
            message = Cancel(seat=held.id, at=driver.tools.chain.block_time())
            await driver.commit(Cancelled(held.id, driver.sign(message).body))
        await self.send_cancel(held)

    async def send_cancel(self, held: Held, timeout_s: float = REQUEST_S) -> None:
        request = CloseRequest(cancel=held.cancel)
        await self.driver.durable()
        network = self.driver.tools.network
        answer = await network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=timeout_s)
        if held.state in AT_WORK:  # a lease that was called off is in no escrow: there is nothing to release
            await self.driver.auditing.take_release(held, answer)
        held.live.told.add("cancel")

    def _in_place(self, held: Held) -> None:
        """The signer signs the tallies of a worker that is given up."""
        if held.seat.due() is not None:
            self.driver.doing.start(("tally", held.id), self._tally_in_place, held)

    async def _tally_in_place(self, held: Held) -> None:
        driver = self.driver
        number, block_hash = await driver.tools.chain.final_block()
        while (covered := held.seat.due()) is not None:
            tally = Tally(
                seat=held.id,
                number=covered.number,
                previous=held.seat.chain,
                start=covered.start,
                count=covered.count,
                root=held.seat.root_of(covered),
                block_number=number,
                block_hash=block_hash,
            )
            await driver.commit(Tallied(driver.sign(tally).body, True), Shown(held.id, covered.number))

    # Failures.

    async def _failed(self, held: Held, position: int) -> None:
        """A unit gave no output there. Whose fault? The payer's own node tries where it may be the program's."""
        driver = self.driver
        code, sentence = held.failures[position]
        unit, which = held.units[position], self._which(held, position)
        sentence += which
        if driver.book.over:
            pass  # whose fault it is changes nothing any more
        elif code == "inputs" and (gone := losses.missing(driver, unit)):
            await losses.end_without(driver, gone)
            return
        elif code in FAULTS_OF_PROGRAM and driver.own.tries:
            failure = await driver.own.try_unit(unit, held.lease.work_ms)
            if failure is not None:
                await driver.closing.fail(failure.code, failure.sentence + which, failure.traceback)
                return
            failed_on = self._failed_on(code)
            if len(failed_on) >= FAILURES_WITH_OWN:
                await self._fail_everywhere_else(code, sentence, failed_on)
                return
        elif code in FAULTS_OF_PROGRAM:
            unit_id = held.seat.assigned[position]
            accounts = {
                other.account
                for other in driver.book.all()
                for p in other.failures
                if other.seat.assigned[p] == unit_id and other.failures[p][0] == code
            }
            if len(accounts) >= FAILURES_WITHOUT_OWN:
                await driver.closing.fail(code, sentence, "")
                return
        await self.give_up(held, f"unit_{code}", f"Its unit gave no output: {sentence}")

    def _which(self, held: Held, position: int) -> str:
        """A map's unit is one input of its owner's, who looks for it in a list."""
        return f" It was input {held.nodes[position].index}." if self.driver.book.spec.kind == "map" else ""

    def _failed_on(self, code: str) -> set[bytes]:
        """Accounts of this job on which units, be it others than here, failed that way."""
        held = self.driver.book.all()
        return {each.account for each in held if any(found == code for found, _ in each.failures.values())}

    async def _fail_everywhere_else(self, code: str, sentence: str, accounts: set[bytes]) -> None:
        """So many strangers are hardly all broken: the program fails now and then, or wants more than it declared."""
        said = f"Units failed on {len(accounts)} workers and ran on this node. The last one: {sentence}"
        if code == "limits":
            await self.driver.closing.fail(code, said, "", LIMITS_REMEDY)
        else:
            await self.driver.closing.fail(NOT_DETERMINISTIC, said, "", NOT_DETERMINISTIC_REMEDY)
        self.driver.trust.wake("worker", accounts)
