"""What workers a job needs now, as the scheduler's request: stage by stage, within the wages that are free.

Reads the book and the market; asks nobody and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from tallymesh import cards, wheels
from tallymesh_ledger.newcomers import room_wei
from tallymesh_node.payer import replicas
from tallymesh_node.payer.ordering import PRICE_ANY
from tallymesh_scheduler.leases import LeaseState
from tallymesh_scheduler.matching import Candidate, MatchRequest, Proposal

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

ROOMS_MAX = 512  # newcomers looked at for one round of matching: as many as the offer book holds
NEWCOMERS_LOST_MAX = 16  # seats that a job's newcomers took for nothing or cheated on: accounts cost nothing, seats gas
KEPT_FREE = "It is kept free to audit: the payer's own node does not recompute units of this numeric class."
MORE_UNITS = 4  # another worker pays (its first unit is audited) from this many units a core on


class Needs:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self.rooms: dict[bytes, int] = {}  # account without a slot -> wei that one more seat of it may be worth

    async def look(self) -> None:
        """Ask the chain what newcomers may be offered, where the order allows them: no more than the escrow seats.
        Leases that other jobs agreed on meanwhile are the worker's to know."""
        driver = self.driver
        if not driver.book.order.newcomers:
            return
        now = driver.tools.chain.block_time()
        accounts = [c.offer.account for c in driver.tools.offers.candidates(now) if c.slots < 1][:ROOMS_MAX]
        found = await driver.tools.chain.newcomers(accounts)
        slot_wei = driver.tools.parameters.slot_wei
        self.rooms = {a: room_wei(each, slot_wei) for a, each in zip(accounts, found, strict=True)}

    def now(self) -> dict[int, tuple[int, int]]:
        """Stage -> (units to lease for, units side by side)."""
        book = self.driver.book
        if book.over or book.plan.finished or self.driver.watching.judging:
            return {}
        needs: dict[int, tuple[int, int]] = {}
        for stage in range(len(book.spec.stages)):
            live = [h for h in book.all() if h.stage == stage and (h.takes_work or h.state is LeaseState.ASKED)]
            left = replicas.runs_left(book, stage)
            uncovered = left - sum(replicas.covered(book, held) for held in live)
            wanted, width = book.copies * book.width(stage), sum(held.width for held in live)
            if left <= 0:
                continue
            if not live or uncovered > 0:
                needs[stage] = (left if not live else uncovered, max(1, wanted - width))
            elif width < wanted and left >= MORE_UNITS * width:
                needs[stage] = (-(-left * (wanted - width) // wanted), wanted - width)
        return needs

    def requests(self, needs: dict[int, tuple[int, int]], candidates: list[Candidate]) -> dict[int, MatchRequest]:
        driver, book = self.driver, self.driver.book
        order, parameters = book.order, driver.tools.parameters
        numeric_class = self._numeric_class(candidates)
        owner = next((c.owner for c in candidates if c.offer.account == order.payer), order.payer)
        # each new seat takes its claim bond out of the wages beside its cap
        seats = sum(min(width, len(candidates)) + 1 for _, width in needs.values())
        free = max(0, book.free_wages - seats * order.claim_bond)
        weights = {stage: units * book.spec.stages[stage].work_ms for stage, (units, _) in needs.items()}
        requests = {}
        room = self._room(numeric_class, candidates)
        packages = any(wheels.among(book.spec.shared))
        for stage, (units_left, width) in needs.items():
            live = [h for h in book.all() if h.stage == stage and (h.takes_work or h.state is LeaseState.ASKED)]
            busy = frozenset(h.account for h in live)
            owners = frozenset(h.owner for h in live)
            if book.terms.workers_max and len(busy) >= book.terms.workers_max:
                continue
            workers_max = max(0, book.terms.workers_max - len(busy)) if book.terms.workers_max else 0
            if room is not None:  # with no room left all but those that hold a seat are kept out by `candidates`
                workers_max = min(workers_max or ROOMS_MAX, max(1, room))
            requests[stage] = MatchRequest(
                payer=order.payer,
                payer_owner=owner,
                numeric_class=numeric_class,
                cores=order.cores,
                memory_mib=order.memory_mib,
                disk_mib=order.disk_mib,
                gpus=order.gpus,
                price_max=0 if order.price_max == PRICE_ANY else order.price_max,
                work_ms=book.spec.stages[stage].work_ms,
                units_left=units_left,
                width=width,
                wages=free * weights[stage] // sum(weights.values()),
                packages=packages,
                lock=book.lock(),
                workers_max=workers_max,
                class_accounts_min=parameters.class_accounts_min,
                class_share_min_bp=parameters.class_stake_bp,
                newcomers=order.newcomers and self._newcomers_lost() < NEWCOMERS_LOST_MAX,
                busy=busy,
                # Of a unit that is run twice one run is each owner's at most.
                positions_max=book.units_left(stage) if book.copies > 1 else 0,
                owners_min=max(1, book.copies - len(owners)),
                busy_owners=owners if book.copies > 1 else None,
            )
        return requests

    def _newcomers_lost(self) -> int:
        """Seats that newcomers left, or were thrown out of, without one accepted unit; with one, where they were false
        later: else a new account for each seat would have the payer pay gas and auditors for as long as it likes."""
        over = (LeaseState.LOST, LeaseState.CLOSED)
        newcomers = [held for held in self.driver.book.all() if held.newcomer and held.state in over]
        return sum(held.convicted or not held.accepts for held in newcomers)

    def _numeric_class(self, candidates: list[Candidate]) -> bytes:
        """The job's class once it has a lease; before, this node's own where anybody offers it, because then it can
        recompute itself; else the one that most offer."""
        for held in self.driver.book.all():
            if held.state is not LeaseState.REFUSED:
                return held.lease.numeric_class
        own = self.driver.own.numeric_class
        gpus = bool(self.driver.book.order.gpus)
        offered = Counter(
            c.offer.numeric_class
            for c in candidates
            if not c.offer.provisional and c.slots and bool(cards.count(c.offer.gpus)) == gpus
        )
        if own in offered or not offered:
            return own or bytes(32)
        return max(sorted(offered), key=lambda each: offered[each])

    def _room(self, numeric_class: bytes, candidates: list[Candidate]) -> int | None:
        """How many more accounts may get a seat; None for any number.

        In a federated job whoever takes part is given each round's aggregate, and may not audit it. Where this node
        cannot recompute, so many accounts stay without a seat as two of three verdicts need: else nobody is left."""
        driver = self.driver
        judges = driver.own.available and numeric_class == driver.own.numeric_class
        if judges or driver.book.spec.kind != "federated":
            return None
        staked = {c.offer.account for c in candidates if c.slots and c.chain_class == numeric_class}
        return max(driver.book.copies, len(staked) - driver.tools.parameters.auditors_min) - len(self._seated())

    def _seated(self) -> set[bytes]:
        held = self.driver.book.all()
        return {each.account for each in held if each.takes_work or each.state is LeaseState.ASKED}

    def candidates(self) -> list[Candidate]:
        driver, book = self.driver, self.driver.book
        offered = list(driver.tools.offers.candidates(driver.tools.chain.block_time()))
        room = self._room(self._numeric_class(offered), offered)
        kept = {c.offer.account for c in offered} - self._seated() if room is not None and room <= 0 else set()
        base_only = driver.trust.base_only()
        resting, doubted = driver.trust.resting("worker"), driver.trust.doubted()
        distrust = {**dict.fromkeys(kept, KEPT_FREE), **resting, **driver.trust.convicted, **book.convicted}
        return [
            msgspec.structs.replace(
                candidate,
                free_cores=candidate.offer.cores - driver.cores_held(candidate.offer.account, book.id),
                distrust=distrust.get(candidate.offer.account, candidate.distrust),
                base_only=candidate.offer.account in base_only,
                doubt=doubted.get(candidate.offer.account, ""),
                room=self.rooms.get(candidate.offer.account, 0),
            )
            for candidate in offered
        ]

    def width(self, proposal: Proposal) -> int:
        return max(1, proposal.candidate.free_cores // self.driver.book.order.cores)

    def job_s(self, stage: int, width: int) -> float:
        """Seconds that the rest of a training takes at least: a seat of one stage waits while the others work."""
        book = self.driver.book
        if not book.training:
            return 0.0
        seconds = 0.0
        for each, described in enumerate(book.spec.stages):
            side = width if each == stage else sum(held.width for held in book.all() if held.stage == each)
            runs, wide = book.copies * book.units_left(each), book.copies * book.width(each)
            seconds += runs * described.work_ms / 1000 / max(1, min(side, wide))
        return seconds
