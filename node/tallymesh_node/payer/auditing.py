"""From a shown secret to an Accept or a conviction: calls the drawn auditors, keeps their time, counts their words.

What follows from an answer is decided by tallymesh_ledger.audit; this module signs, sends and waits.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from tallymesh import exchange
from tallymesh.api import Problem
from tallymesh.errors import RemoteError
from tallymesh.exchange import (
    AcceptRequest,
    ForfeitRequest,
    Nothing,
    ReleaseAnswer,
)
from tallymesh.messages import Accept, Release, Result
from tallymesh.wire import Signed
from tallymesh_ledger import keys, sampling, waits
from tallymesh_ledger.audit import Action, Audit, Order, Outcome, Recompute, Stuck
from tallymesh_ledger.registry import RegistryAt
from tallymesh_ledger.seat import ClosedTally
from tallymesh_ledger.waits import Step
from tallymesh_node.payer import replicas
from tallymesh_node.payer.held import AT_WORK, Held
from tallymesh_node.payer.own import (
    NO_OUTPUT,
    NOT_DETERMINISTIC,
    NOT_DETERMINISTIC_REMEDY,
    NOT_DETERMINISTIC_SAYS,
)
from tallymesh_node.payer.records import (
    Accepted,
    Checked,
    Forfeited,
    Recomputed,
    Released,
    Shown,
)
from tallymesh_scheduler.leases import LeaseState

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

REGISTRIES = 8  # kept, by block: tallies of one job name a handful
REQUEST_S = 10.0
SECOND_RUNS = 2  # units' times that a tally waits for the second runs of its units: half of what its worker waits for
STUCK_S = 600.0  # that a job waits for an audit for which nobody is left: as long as who kept silent is left alone
STUCK_AGAIN_S = 120.0  # without one: for the next seat's first unit to be done, and its audit to find nobody, too
NO_AUDITORS = "no_auditors"
NO_AUDITORS_REMEDY = (
    "Let the payer's node run units, or order again where more staked peers of this numeric class are online."
)
OK = exchange.encode(Nothing())


class Auditing:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._registries: OrderedDict[tuple[int, bytes], RegistryAt] = OrderedDict()
        self._stuck: set[tuple[bytes, int]] = set()
        self._stuck_since = self._stuck_seen = -math.inf  # trio's clock
        self._accepts = 0  # when it was seen last
        self._alone_since: dict[
            tuple[bytes, int], float
        ] = {}  # (seat, tally) -> when a unit without a second run was seen
        self._spent = False  # whether the audit reserve is what is missing

    def problems(self) -> list[Problem]:
        if not self._stuck:
            return []
        return [Problem(NO_AUDITORS, self._stuck_sentence(), remedy=NO_AUDITORS_REMEDY)]

    def _stuck_sentence(self) -> str:
        what = f"{len(self._stuck)} unit{'s' if len(self._stuck) > 1 else ''} cannot be audited"
        if self._spent:
            return f"{what}: the job's audit reserve is promised to auditors already."
        return f"{what}: no staked account is left that may do it, and this node cannot recompute them itself."

    def reconcile(self) -> None:
        self._stuck.clear()
        self._spent = False
        driver = self.driver
        for held in driver.book.all():
            if held.state not in AT_WORK:
                continue
            if held.convicted:
                if "forfeit" not in held.live.told:
                    driver.doing.start(("forfeited", held.id), self._tell_forfeit, held)
                continue
            pending = held.pending_tallies()
            for place, closed in enumerate(pending):
                if not closed.secret:
                    driver.doing.start(("show", held.id, closed.range.number), self._show, held, closed.range.number)
                elif self._tally(held, closed) and place == 0 and self._secured(held, closed):
                    driver.doing.start(("accept", held.id), self._accept, held, closed)
            if any(f"accept:{n}" not in held.live.told for n in range(1, len(held.accepts) + 1)):
                driver.doing.start(("deliver", held.id), self.deliver, held)
        if self._stuck and driver.book.ending is None and self._stuck_s() > STUCK_S:
            driver.doing.start(("stuck",), self._no_auditors)

    def _stuck_s(self) -> float:
        """How long an audit has been impossible and nothing was accepted. A tally's block names the slots that may
        audit it: nobody who joins later can, and seats that run out are followed by others that get no further."""
        now, accepts = trio.current_time(), sum(len(held.accepts) for held in self.driver.book.all())
        if accepts != self._accepts or now - self._stuck_seen > STUCK_AGAIN_S:
            self._stuck_since = now
        self._accepts, self._stuck_seen = accepts, now
        return now - self._stuck_since

    async def registry(self, number: int, block_hash: bytes) -> RegistryAt:
        """As of the block that a Tally names. RemoteError `wrong_block` where the chain has another one there."""
        found = self._registries.get((number, block_hash))
        if found is None:
            found = await self.driver.tools.chain.registry_at(number, block_hash)
            self._registries[number, block_hash] = found
            while len(self._registries) > REGISTRIES:
                self._registries.popitem(last=False)
        return found

    # One tally.

    def _tally(self, held: Held, closed: ClosedTally) -> bool:
        """Go on with its audits; True when all of them found the work sound."""
        driver, message = self.driver, closed.message
        registry = self._registries.get((message.block_number, message.block_hash))
        if registry is None:
            driver.doing.start(
                ("registry", message.block_hash), self._registry, message.block_number, message.block_hash
            )
            return False
        sound, alone = True, []
        for position in range(closed.range.start, closed.range.end):
            if position in held.unchecked:
                sound = False  # its loss check may still force an audit
            audit = held.audits.get(position)
            if audit is None or audit.outcome is Outcome.SOUND:
                if not replicas.owed(driver.book, held, position):
                    sound = False  # its second run is still to come
                    alone.append(position)
                continue
            if audit.outcome is Outcome.UNDECIDED:
                # The payer answers for its program: the tally is paid, nobody is at fault, and the job ends.
                if driver.book.ending is None:
                    driver.doing.start(("undecided",), self._undecided)
                continue
            sound = False
            if audit.outcome is Outcome.CONVICTED:
                driver.doing.start(("forfeit", held.account), self._forfeit, held, position, audit)
                return False
            self._audit(held, closed, position, audit, registry)
        if alone and self._waited(held, closed.range.number):
            driver.doing.start(("alone", held.id), self._alone, held, alone)
        return sound

    def _waited(self, held: Held, number: int) -> bool:
        """Whether the second runs of a tally's units had their time: a worker's, and another's in its place."""
        since = self._alone_since.setdefault((held.id, number), trio.current_time())
        unit_s = waits.seconds(Step.UNIT, self.driver.tools.parameters, work_ms=held.lease.work_ms)
        return trio.current_time() - since > SECOND_RUNS * unit_s

    async def _alone(self, held: Held, positions: list[int]) -> None:
        """An auditor takes the place of the second worker: the first one is not to wait for its pay for ever."""
        found = [Checked(held.id, p, True, replicas.ALONE) for p in positions if p not in held.unchecked]
        if found:
            await self.driver.commit(*found)

    def _secured(self, held: Held, closed: ClosedTally) -> bool:
        """Whether it is known what the escrow took the seat with: a worker that releases its slot before is a newcomer
        there, of which a sample is too little. A first tally has one unit, which is always recomputed."""
        return held.state is not LeaseState.AGREED or not self.driver.book.order.newcomers or closed.range.number == 1

    async def _registry(self, number: int, block_hash: bytes) -> None:
        await self.registry(number, block_hash)

    async def _show(self, held: Held, number: int) -> None:
        await self.driver.commit(Shown(held.id, number))

    def _audit(self, held: Held, closed: ClosedTally, position: int, audit: Audit, registry: RegistryAt) -> None:
        driver = self.driver
        for call in audit.open_calls():
            driver.calling.wait(driver.book.calls[driver.book.orders[held.id, position, call.auditor]])
        own_key = ("recompute", held.id, position)
        if not audit.idle or own_key in driver.doing:  # this node's own verdict is on its way: nobody else need be paid
            return
        for action in self._actions(held, position, audit, registry):
            if isinstance(action, Order):
                key = ("call", held.id, position)
                driver.doing.start(key, self._order, held, closed, position, audit, registry)
            elif isinstance(action, Recompute):
                driver.doing.start(own_key, self._recompute, held, position, audit, action.draws)
            elif audit.tied:
                # Three different ends, and this node cannot side with any: it has no result, so nothing agrees.
                driver.doing.start(own_key, driver.commit, Recomputed(held.id, position, NO_OUTPUT, ()))
            else:
                assert isinstance(action, Stuck)
                self._stuck.add((held.id, position))

    def _actions(self, held: Held, position: int, audit: Audit, registry: RegistryAt) -> list[Action]:
        driver = self.driver
        own, struck = driver.own.judges, driver.trust.struck
        paid = driver.book.free_reserve >= 3 * driver.calling.fee(held)  # what is promised must be there, for three
        self._spent = self._spent or not paid

        def actions(excluded: set[bytes]) -> list[Action]:
            admissible = driver.book.admissible(held, position, registry, excluded=excluded) if paid else set()
            return audit.next(registry, admissible, own=own)

        # An auditor that kept silent lately is spared while others, or this node, can do without it: each silence costs
        # a unit's whole deadline.
        resting = set(driver.trust.resting("auditor"))
        found = actions(struck | resting)
        if resting and any(isinstance(each, Stuck) for each in found):
            found = actions(struck)
        if paid and not audit.tied and any(isinstance(each, Stuck) for each in found):
            found = self._last_resort(held, position, audit, registry, struck) or found
        return found

    def _last_resort(
        self, held: Held, position: int, audit: Audit, registry: RegistryAt, struck: set[bytes]
    ) -> list[Action]:
        """Where this node cannot recompute, and the chain has auditors enough: whoever was not given the output itself,
        however many kept silent before. The tally's block names the slots, so nobody who comes later could help."""
        book = self.driver.book
        if len(book.staked_for(held, registry)) < audit.auditors_min:
            return []
        admissible = book.admissible(held, position, registry, excluded=struck, strict=False)
        return audit.next(registry, admissible, own=False, last=True)

    async def _order(self, held: Held, closed: ClosedTally, position: int, audit: Audit, registry: RegistryAt) -> None:
        """Drawn anew, and in the book before anything else happens: a neighbouring unit's audit may have been ordered
        since, and what an auditor was given may have changed."""
        actions = self._actions(held, position, audit, registry)
        orders = [action for action in actions if isinstance(action, Order)]
        if orders:
            await self.driver.calling.order(held, closed, position, audit, orders)

    async def _recompute(self, held: Held, position: int, audit: Audit, draws: tuple[int, ...]) -> None:
        if audit.own_end is None:
            await self.driver.own.recompute(held, position, draws)
        else:
            await self.driver.commit(Recomputed(held.id, position, audit.own_end, draws))
        await self.driver.calling.strike()

    # What follows.

    async def _no_auditors(self) -> None:
        await self.driver.closing.fail(NO_AUDITORS, self._stuck_sentence(), "", remedy=NO_AUDITORS_REMEDY)

    async def _undecided(self) -> None:
        await self.driver.closing.fail(NOT_DETERMINISTIC, NOT_DETERMINISTIC_SAYS, "", remedy=NOT_DETERMINISTIC_REMEDY)

    async def _accept(self, held: Held, closed: ClosedTally) -> None:
        driver, number = self.driver, closed.range.number
        if closed.accepted or held.convicted:
            return
        accept = Accept(
            seat=held.id,
            tally=number,
            units=closed.range.end,
            chain=closed.chain,
            next_secret=sampling.secret_hash(driver.book.secrets.of(held.lease, number + 2)),
        )
        await driver.commit(Accepted(driver.sign(accept).body))

    async def deliver(self, held: Held) -> None:
        """Accepts that the worker has not acknowledged, in order; the answer may be its Release."""
        for number, accept in enumerate(held.accepts, 1):
            if f"accept:{number}" not in held.live.told:
                await self.deliver_one(held, accept)
                held.live.told.add(f"accept:{number}")

    async def deliver_one(self, held: Held, accept: Signed) -> None:
        tools = self.driver.tools
        await self.driver.durable()
        request = AcceptRequest(accept.body)
        body = await tools.network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=REQUEST_S)
        await self.take_release(held, body)

    async def take_release(self, held: Held, body: bytes) -> None:
        """What a worker answers to an Accept, a Close and a Cancel."""
        tools, peer = self.driver.tools, held.peer.peer_id
        answer = exchange.decode(body, ReleaseAnswer, peer=peer)
        if answer.release and held.release is None:
            release = keys.open_signed(tools.domains, answer.release, Release, held.account, peer=peer)
            if release.message.seat != held.id:
                raise RemoteError("bad_release", "It released another seat than this one.", peer=peer)
            await self.driver.commit(Released(answer.release))

    async def _forfeit(self, held: Held, position: int, audit: Audit) -> None:
        if held.convicted:
            return
        driver = self.driver
        reason = audit.subject.reason.name.lower()
        by = "the payer's own node" if audit.by_payer else "drawn auditors"
        sentence = f"Unit {position} was recomputed by {by} ({reason}) with another result."
        check = f"recomputation:{reason}:{'payer' if audit.by_payer else 'auditors'}"
        await driver.commit(Forfeited(held.id, position, check, sentence))
        await driver.trust.convict(held.account, sentence)
        await self.driver.calling.strike()

    async def _tell_forfeit(self, held: Held) -> None:
        assert held.problem is not None
        verdicts = [
            calling.verdict.body
            for calling in self.driver.book.calls.values()
            if calling.verdict is not None
            and calling.held.account == held.account
            and calling.call.result is Result.MISMATCH
        ]
        code, sentence = held.problem
        await self.driver.durable()
        request = ForfeitRequest(held.id, code, sentence, tuple(verdicts[:3]))
        await self.driver.tools.network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=REQUEST_S)
        held.live.told.add("forfeit")
