"""The worker's side of claims: sees what is unpaid, decides, signs and makes the claim.

Level-triggered: each pass compares journal and chain and does the next thing that is due, one transaction a seat at
most; the tally that it signs is on disk before it is sent. What follows a claim stands in pursuing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from tallymesh import amounts, exchange
from tallymesh.errors import ChainError, LocalError, RemoteError
from tallymesh.ids import ZERO32
from tallymesh.messages import Tally
from tallymesh_ledger import audit, claims, merkle, waits
from tallymesh_ledger.claims import CLAIM_TALLY, Terms
from tallymesh_ledger.phases import Phase
from tallymesh_ledger.waits import Step
from tallymesh_node import beats
from tallymesh_node.claims import due
from tallymesh_node.claims.due import Policy, Standing
from tallymesh_node.claims.kept import accusers, unpaid_end
from tallymesh_node.claims.pursuing import Case, Pursuit
from tallymesh_node.claims.record import CLAIMANT, ClaimLine, ClaimRecord, Line
from tallymesh_node.claims.tools import Tools, log, look_s
from tallymesh_node.complaints import told
from tallymesh_node.worker.record import SCOPE as WORKER
from tallymesh_node.worker.record import SeatRecord
from tallymesh_node.worker.tools import Work

CONVICTING = 2  # auditors whose MISMATCH is held against this node: two of three confirm one


class Claimant:
    def __init__(self, tools: Tools, terms: Terms, works: Callable[[], Iterable[Work]], policy: Policy) -> None:
        self.tools = tools
        self.terms = terms
        self.works = works
        self.policy = policy
        self.pursuit = Pursuit(tools, terms)
        self.cases: dict[bytes, Case] = {}  # by seat
        for scope in tools.journal.scopes(CLAIMANT):
            record = ClaimRecord.replay(tools.domains, tools.journal.read(scope))
            self._case(record.seat).record = record

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await beats.pause(look_s(self.terms))

    @property
    def live(self) -> list[Case]:
        return [case for case in self.cases.values() if case.record is not None and not case.record.over]

    async def look(self) -> None:
        """One pass over all seats and claims."""
        works: dict[bytes, Work] = {work.record.id: work for work in self.works()}
        for seat in [*works, *(seat for seat in self.cases if seat not in works)]:
            case, work = self._case(seat), works.get(seat)
            if trio.current_time() < case.not_before:
                continue
            try:
                if case.record is not None and not case.record.over:
                    await self.pursuit.move(case, case.record)
                elif work is not None:
                    await self._consider(case, work)
                else:
                    await self._forget(seat, case)
            except (ChainError, RemoteError, LocalError) as error:
                self._later(case, error)
            if work is not None:
                work.claimed = case.record is not None and not case.record.over

    async def _forget(self, seat: bytes, case: Case) -> None:
        """A seat that is over. Its claims are kept as long as the worker keeps the seat."""
        if case.record is None or not self.tools.journal.read(WORKER + seat.hex()):
            if case.record is not None:
                await self.tools.journal.drop(case.record.scope)
            del self.cases[seat]

    def _case(self, seat: bytes) -> Case:
        return self.cases.setdefault(seat, Case())

    def _later(self, case: Case, error: ChainError | RemoteError | LocalError) -> None:
        """Try again; a chain that is away, or gas that is dear, costs no try: that passes."""
        refused = isinstance(error, ChainError) and error.reverted
        case.tries += refused
        case.not_before = trio.current_time() + (due.retry_s(case.tries) if refused else look_s(self.terms))
        case.problem = told(error)
        if refused:
            self.tools.counters["refused"] += 1
        log.warning("a claim: %s", error)

    # To claim or not.

    async def _consider(self, case: Case, work: Work) -> None:
        record, chain = work.record, self.tools.chain
        state = work.state
        if state is None or not work.seated or case.tries >= due.TRIES_MAX:
            return
        # What an Accept covers is settled and needs no claim. The chain is asked only where there is a reason to.
        start = max(state.paid_units, min(record.voucher_units, state.units))
        positions = self._claimable(record, start, 0)
        reason = due.reason(self.policy, self._standing(case, work, len(positions)))
        if reason:
            _, claimed_to = await self.tools.claims.quarrels(record.id)
            positions = self._claimable(record, start, claimed_to)
        if not reason or not positions:
            case.problem = None
            return
        convicted = len(await self._accusers(work)) >= CONVICTING
        obstacle = due.obstacle(record.order, self.terms, convicted=convicted)
        if reason == "lost":
            obstacle = "lost", f"{len(positions)} units were not paid, and the time to claim them is over."
        if obstacle is not None:
            case.problem = obstacle
            return
        worth = amounts.show(len(positions) * record.lease.price)
        units = f"{len(positions)} units worth {worth}"
        if record.seat.phase is Phase.OPEN or work.running:
            work.claiming = True  # the keeper leaves the seat first: what is claimed must not change any more
            work.ring()
            case.problem = "unpaid", f"Seat {record.id[:4].hex()}: {units} are unpaid ({reason}); leaving the seat."
        elif state.paid_units < min(record.voucher_units, state.units):
            assert record.voucher is not None
            await chain.settle([(record.lease, record.voucher)])
            self.tools.counters["settlements"] += 1
            work.state = await chain.seat_state(record.id)
        else:
            await self._claim(case, work, positions)
            log.info("seat %s: claimed %s (%s)", record.id[:4].hex(), units, reason)

    @staticmethod
    def _claimable(record: SeatRecord, start: int, claimed_to: int) -> range:
        order, lease = record.order, record.lease
        return claims.claimable(unpaid_end(record), start, claimed_to, order.tally_units, lease.positions)

    def _standing(self, case: Case, work: Work, units: int) -> Standing:
        record, now = work.record, trio.current_time()
        waiting = units > 0 and not work.running and not record.waiting and record.seat.phase is not Phase.OPEN
        if not waiting:
            case.stalled_at = None
        elif case.stalled_at is None:
            case.stalled_at = now
        calls = audit.SILENT_MAX + self.tools.parameters.audit_answers_max
        return Standing(
            units=units,
            now=self.tools.chain.block_time(),
            until=record.lease.until,
            claim_window=record.order.claim_window,
            silent_s=now - work.heard_at,
            stalled_s=now - case.stalled_at if case.stalled_at is not None else 0.0,
            accept_s=waits.seconds(Step.ACCEPT, self.tools.parameters, work_ms=record.lease.work_ms, audits=calls),
        )

    async def _accusers(self, work: Work) -> set[bytes]:
        """Auditors that the payer could have drawn, and that said MISMATCH. No other word keeps us from a claim."""
        record = work.record
        named = accusers(self.tools.domains, record.forfeited)
        if not named:
            return set()
        registry = await self.tools.chain.registry_at(*await self.tools.chain.final_block())
        order, lease = record.order, record.lease
        return named & registry.admissible(
            payer=order.payer, signer=order.signer, worker=lease.worker, numeric_class=lease.numeric_class, excluded=()
        )

    async def _claim(self, case: Case, work: Work, positions: range) -> None:
        tools, record = self.tools, work.record
        witnesses = await self.pursuit.ready(record.order, record.lease)
        number, block_hash = await tools.chain.final_block()
        tally = Tally(
            seat=record.id,
            number=CLAIM_TALLY,
            previous=_chain_at(record, case.record, positions.start),
            start=positions.start,
            count=len(positions),
            root=merkle.root([record.seat.leaves[position] for position in positions]),
            block_number=number,
            block_hash=block_hash,
        )
        signed = tools.key.sign(tools.domains, tally)
        line = ClaimLine(record.line.order, record.line.lease, signed.body, tools.chain.block_time())
        with trio.CancelScope(shield=True):
            await tools.journal.append(CLAIMANT + record.id.hex(), (Line.CLAIM.value, exchange.encode(line)))
            if case.record is None:
                case.record = ClaimRecord(line, tools.domains)
            else:
                case.record.apply(Line.CLAIM, exchange.encode(line))
        await self.pursuit.send(case, case.record, witnesses)


def _chain_at(record: SeatRecord, before: ClaimRecord | None, units: int) -> bytes:
    """The seat's chain value after `units`, which the new one continues."""
    known = {closed.range.end: closed.chain for closed in record.seat.tallies}
    if before is not None:
        known |= before.chains
    return known.get(units, ZERO32)
