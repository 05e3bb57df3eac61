"""Finds workers for a job: matches offers, asks for leases, takes the seats on chain.

The scheduler proposes; any worker may say no. This module assigns nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

import trio

from tallymesh import amounts, exchange, wheels
from tallymesh.api import Problem
from tallymesh.errors import ChainError, RemoteError
from tallymesh.exchange import INLINE_BYTES, LeaseAnswer, LeaseRequest
from tallymesh.messages import Cancel, Lease
from tallymesh_ledger import keys, sampling, waits
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.waits import Step
from tallymesh_node.interfaces import SeatState, SignedLease
from tallymesh_node.payer import losses
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.needs import Needs
from tallymesh_node.payer.records import Agreed, Cancelled, Declined, Leased, Opened, Seated
from tallymesh_node.payer.trust import BUSY_S
from tallymesh_scheduler.leases import LeaseState
from tallymesh_scheduler.matching import Match, MatchRequest, Proposal, advice, match, summary

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

log = logging.getLogger("tallymesh.payer")

MATCH_S = 1.0  # between two rounds of matching that found nobody
MATCH_MORE_S = 5.0  # … and that look for more workers than are needed
LEASE_FACTOR = 4  # a lease lasts this many times what its units should take, within the network's bound
CALL_OFF_S = 2.0  # for a worker to hear that its lease is off: it would find out by itself
SEAT_LOOKS = 3  # how often the chain is asked whether a seat was taken
NO_FUNDS = "erc20_insufficient_balance"  # the token's own error


class Leasing:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self.needs = Needs(driver)
        self.matches: dict[int, Match] = {}  # stage -> the newest
        self._announced: dict[int, dict[str, object]] = {}
        self._next_at = 0.0
        self._at_work = 0  # seats that took work at the last look
        self._look_at = 0.0  # for seats of a job that is over, which an unsure transaction may still take
        self._nonce = max((held.lease.nonce for held in driver.book.all()), default=0)
        self._stale = [held for held in driver.book.all() if held.state is LeaseState.ASKED]
        # Leases in a transaction whose fate is unknown: a process that is gone may have sent it.
        self._unsure = {held.id for held in driver.book.all() if held.state is LeaseState.AGREED}

    def reconcile(self) -> None:
        driver, now = self.driver, trio.current_time()
        unseated = any(held.state is LeaseState.AGREED for held in driver.book.all())
        at_work = sum(held.takes_work for held in driver.book.all())
        if at_work < self._at_work:
            self.look_again()  # what a worker left undone need not wait for the next round
        self._at_work = at_work
        if driver.book.over:
            wanted = unseated and now >= self._look_at
        else:
            wanted = unseated or (now >= self._next_at and bool(self.needs.now()))
        if self._stale or wanted:
            driver.doing.start(("lease",), self._round)

    def look_again(self) -> None:
        """Somebody may have room for a lease now who had none, or is needed who was not."""
        self._next_at = 0.0

    def problems(self) -> list[Problem]:
        book, found = self.driver.book, []
        if not book.over:
            for stage, matched in sorted(self.matches.items()):
                name = book.spec.stages[stage].name
                owners = {held.owner for held in book.all() if held.stage == stage and held.takes_work}
                lacking = len(owners) < book.copies  # where each unit is run twice one worker gets nowhere
                if matched.waiting is not None and lacking:
                    found.append(self._waiting(name, matched))
                # Who was not needed is in nobody's way: the seats that were taken may have ended their work by now.
                rejected = [each for each in matched.rejections if each.code != "not_needed"]
                if matched.waiting is None and lacking and rejected:
                    sentence = f"{name}: {summary(rejected)}"
                    found.append(Problem(code="no_worker", sentence=sentence, remedy=advice(rejected)))
        error = self.driver.doing.errors.get(("lease",))
        if error is not None:
            sentence, remedy = error.sentence, error.remedy
            if error.code == NO_FUNDS:  # the contract speaks of wei
                total = book.order.wages + book.order.audit_reserve
                sentence = f"The account holds less than the job's budget of {amounts.show(total)}."
                remedy = "See 'tallymesh balance'; send it more, or stop the job and order it with a smaller budget."
            found.append(Problem(code=error.code, sentence=sentence, remedy=remedy))
        return found

    def _waiting(self, stage: str, matched: Match) -> Problem:
        waiting = matched.waiting
        assert waiting is not None
        remedy = advice(matched.rejections) if waiting.code == "no_offers" else ""
        if waiting.needed_wei:
            order = self.driver.book.order
            missing = max(0, waiting.needed_wei - self.driver.book.free_wages)
            total = order.wages + order.audit_reserve
            needed = total + -(-missing * total // order.wages)
            remedy = (
                f"A budget of {amounts.show_up(needed)} would do at today's prices: "
                "wait for a cheaper offer, or stop the job and order it with that."
            )
        why = f" {summary(matched.rejections)}" if waiting.code != "no_offers" and matched.rejections else ""
        return Problem(code=waiting.code, sentence=f"{stage}: {waiting.sentence}{why}", remedy=remedy)

    # One round.

    async def _round(self) -> None:
        driver = self.driver
        await self._clear()
        needs = self.needs.now()
        if needs:
            more = all(any(h.stage == stage and h.takes_work for h in driver.book.all()) for stage in needs)
            self._next_at = trio.current_time() + (MATCH_MORE_S if more else MATCH_S)
            await self.needs.look()
            await self._check_funds()
            await self._ask(self.needs.requests(needs, self.needs.candidates()))
        agreed = [held for held in driver.book.all() if held.state is LeaseState.AGREED]
        if agreed and not driver.book.over:
            await self._seat(agreed)

    async def _check_funds(self) -> None:
        """Nobody is asked to hold cores for a job that cannot be opened: workers refuse it."""
        driver = self.driver
        total = driver.book.order.wages + driver.book.order.audit_reserve
        if not driver.book.opened and await driver.tools.chain.tokens() < total:
            await self.note_opened()
            if not driver.book.opened:
                raise ChainError(NO_FUNDS, "The account holds less than the job's budget.", reverted=True)

    async def _clear(self) -> None:
        """Leases that were asked for by a process that is gone, and those whose time to be seated is over."""
        driver = self.driver
        for held in self._stale:
            await driver.commit(Declined(held.id, "restart", "This node was restarted before the worker answered."))
        self._stale = []
        ended: list[Held] = []
        for held in driver.book.all():
            if held.state is not LeaseState.AGREED:
                continue
            late = driver.tools.chain.block_time() > held.lease.seat_by
            if not late and not driver.book.over:
                continue
            taken = await self._taken(held)
            if taken is not None:
                if driver.book.over:  # it is ended like every other seat; while the job runs, it is put to work
                    await self.note_opened()
                    await driver.commit(Seated(held.id, taken.newcomer))
            elif late:
                await driver.commit(Declined(held.id, "timeout", "The seat did not get on chain in time."))
            elif held.id not in self._unsure:
                ended.append(held)
            else:  # until it is too late for the seat, it may still be mined
                self._look_at = trio.current_time() + MATCH_S
        async with trio.open_nursery() as nursery:
            for held in ended:
                nursery.start_soon(self._call_off, held)

    async def _call_off(self, held: Held) -> None:
        """The job ended before the seat was taken: its worker need not keep cores for it until `seat_by`."""
        driver = self.driver
        message = Cancel(seat=held.id, at=driver.tools.chain.block_time())
        await driver.commit(Cancelled(held.id, driver.sign(message).body))
        try:
            await driver.watching.send_cancel(held, CALL_OFF_S)
        except RemoteError as error:
            log.debug("seat %s was called off unheard: %s", held.id[:4].hex(), error)
        await driver.commit(Declined(held.id, "ended", "The job ended before its seat was taken."))

    def _announce(self, stage: int, matched: Match) -> None:
        """Once for each change: a job that waits for a day would push everything else out of its events."""
        said = {
            "proposals": len(matched.proposals),
            "rejected": dict(Counter(rejection.code for rejection in matched.rejections)),
            "waiting": matched.waiting.code if matched.waiting else "",
        }
        if matched.proposals or self._announced.get(stage) != said:
            self._announced[stage] = said
            self.driver.events.add("match", stage=self.driver.book.spec.stages[stage].name, **said)

    async def _ask(self, requests: dict[int, MatchRequest]) -> None:
        driver = self.driver
        seed = int.from_bytes(driver.book.id[:8], "big")
        now = driver.tools.chain.block_time()
        new: list[Leased] = []
        candidates = self.needs.candidates()
        for stage, request in requests.items():
            matched = self.matches[stage] = match(request, candidates, now, seed)
            self._announce(stage, matched)
            least_s = self.needs.job_s(stage, sum(self.needs.width(proposal) for proposal in matched.proposals))
            new += [self._lease(stage, request, proposal, now, least_s) for proposal in matched.proposals]
        if not new:
            return
        before = set(driver.book.helds)
        await driver.commit(*new)
        asked = [held for held in driver.book.all() if held.id not in before]
        async with trio.open_nursery() as nursery:
            for held in asked:
                nursery.start_soon(self._request, held)

    def _lease(self, stage: int, request: MatchRequest, proposal: Proposal, now: int, least_s: float) -> Leased:
        driver = self.driver
        parameters = driver.tools.parameters
        offer = proposal.candidate.offer
        self._nonce += 1
        width = self.needs.width(proposal)
        expected_s = max(least_s, proposal.positions * request.work_ms / 1000 / width)
        unit_s = waits.seconds(Step.UNIT, parameters, work_ms=request.work_ms)
        lasts = min(parameters.lease_max_s, int(LEASE_FACTOR * expected_s + 2 * unit_s) + 1)
        secrets = driver.book.secrets

        def hashed(number: int) -> bytes:
            return sampling.secret_hash(secrets.tally(driver.book.id, offer.account, self._nonce, number))

        lease = Lease(
            job=driver.book.id,
            worker=offer.account,
            positions=proposal.positions,
            price=proposal.price,
            work_ms=request.work_ms,
            numeric_class=request.numeric_class,
            lock=driver.book.lock(newcomer=proposal.candidate.newcomer),
            until=now + lasts,
            seat_by=now + int(waits.seconds(Step.SEAT, parameters)),
            secret_1=hashed(1),
            secret_2=hashed(2),
            nonce=self._nonce,
        )
        addresses = tuple(address for address in offer.addresses.split(",") if address)
        peer = exchange.Source(proposal.candidate.peer_id, addresses)
        owner = proposal.candidate.owner
        return Leased(driver.sign(lease).body, stage, peer, width, proposal.candidate.newcomer, owner)

    async def _request(self, held: Held) -> None:
        driver, tools = self.driver, self.driver.tools
        template = await losses.template(driver)
        spec = template if len(template) <= INLINE_BYTES else b""
        request = LeaseRequest(driver.book.order_signed.body, held.offered.body, spec, tools.source)
        wait = waits.seconds(Step.LEASE_ANSWER, tools.parameters)
        try:
            await tools.network.reach(held.peer)  # auditors fetch from it, too: our own connection is not enough
            body = await tools.network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=wait)
            answer = exchange.decode(body, LeaseAnswer, peer=held.peer.peer_id)
            signed = keys.open_signed(tools.domains, answer.lease, Lease, held.account, peer=held.peer.peer_id)
            if seat_id(tools.domains, signed.message) != held.id:
                raise RemoteError("bad_lease", "It signed another lease than it was asked for.")
        except RemoteError as error:
            if error.code in ("unreachable", "timeout"):
                tools.offers.note_unreachable(held.account, error.sentence)
            if error.code == wheels.BASE_ONLY and wheels.among(driver.book.spec.shared):
                driver.trust.takes_base_only(held.account)
            else:
                driver.trust.rest("worker", held.account, f"{error.code}: {error.sentence}", BUSY_S)
            await driver.commit(Declined(held.id, error.code, error.sentence))
            return
        tools.offers.note_unreachable(held.account, "")
        await driver.commit(Agreed(held.id, signed.body))

    async def _seat(self, agreed: list[Held]) -> None:
        driver, chain = self.driver, self.driver.tools.chain
        order = driver.book.order
        leases = []
        for held in agreed:
            assert held.agreed is not None
            leases.append(SignedLease(held.lease, held.offered.signature, held.agreed.signature))
        await self.note_opened()
        try:
            if not driver.book.opened:
                transaction = await chain.open(order, leases)
                await driver.commit(Opened(transaction))
            elif None in [await self._taken(held) for held in agreed]:
                await chain.seat(order, leases)
        except ChainError as error:
            if not error.reverted:
                self._unsure.update(held.id for held in agreed)
            raise
        for held in agreed:
            if held.state is LeaseState.AGREED:
                taken = await self._taken(held)
                if taken is not None:
                    await driver.commit(Seated(held.id, taken.newcomer))
                else:
                    await driver.commit(Declined(held.id, "not_seated", "The escrow refused the seat."))
                    driver.trust.rest("worker", held.account, "The escrow refused its seat.", BUSY_S)

    async def note_opened(self) -> None:
        """The job was opened by a process that is gone, or by a transaction that was given up too early."""
        driver = self.driver
        if not driver.book.opened and await driver.tools.chain.job_state(driver.book.id) is not None:
            await driver.commit(Opened(b""))

    async def _taken(self, held: Held) -> SeatState | None:
        """The seat as it is on chain; None where it is not open."""
        for look in range(SEAT_LOOKS):
            try:
                state = await self.driver.tools.chain.seat_state(held.id)
                return state if state is not None and state.open else None
            except ChainError as error:
                if error.reverted or look == SEAT_LOOKS - 1:
                    raise
                await trio.sleep(self.driver.tools.parameters.heartbeat_s)
        raise AssertionError("the loop returns or raises")
