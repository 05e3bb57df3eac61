"""The worker's side of a claim: sees what is unpaid, claims it, and moves the claim on until it has ended.

Level-triggered: each pass compares journal and chain and does the next thing that is due, one transaction a seat at
most; the tally that it signs is on disk before it is sent. This module runs no unit and serves nobody (serving.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from tallymesh import amounts, exchange
from tallymesh.errors import ChainError, LocalError, RemoteError
from tallymesh.ids import ZERO32
from tallymesh.messages import Lease, Order, Tally
from tallymesh_ledger import audit, claims, merkle, waits
from tallymesh_ledger.claims import CLAIM_TALLY, Claim, ClaimState, Draw, Terms
from tallymesh_ledger.phases import Phase
from tallymesh_ledger.waits import Step
from tallymesh_node.claims import due
from tallymesh_node.claims.due import Policy, Standing
from tallymesh_node.claims.kept import Kept, accusers, unpaid_end
from tallymesh_node.claims.moves import move_on
from tallymesh_node.claims.record import CLAIMANT, ClaimLine, ClaimRecord, EndLine, Line
from tallymesh_node.claims.tools import Tools, log, look_s, tried
from tallymesh_node.worker.record import SCOPE as WORKER
from tallymesh_node.worker.record import SeatRecord
from tallymesh_node.worker.tools import Work

CONVICTING = 2  # drawn auditors besides the first whose word is held against this node
GONE = "gone"  # a claim that was signed and can never be made: paid meanwhile, or too late


class Case:
    """What this node knows of one seat's claim beside its journal; all of it is found out again."""

    def __init__(self) -> None:
        self.record: ClaimRecord | None = None
        self.claim: Claim | None = None  # as last seen
        self.draws: tuple[bytes, list[Draw]] = (b"", [])  # seed, and who may audit under it
        self.stalled_at: float | None = None  # trio time since when the payer owes an Accept
        self.tries = 0
        self.not_before = 0.0  # trio time
        self.problem: tuple[str, str] | None = None  # (code, sentence) for the owner


class Claimant:
    def __init__(self, tools: Tools, terms: Terms, works: Callable[[], Iterable[Work]], policy: Policy) -> None:
        self.tools = tools
        self.terms = terms
        self.works = works
        self.policy = policy
        self.cases: dict[bytes, Case] = {}  # by seat
        for scope in tools.journal.scopes(CLAIMANT):
            record = ClaimRecord.replay(tools.domains, tools.journal.read(scope))
            self._case(record.seat).record = record

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await trio.sleep(look_s(self.terms))

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
                    await self._move(case, case.record)
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
        case.problem = error.code, f"{error.sentence} {error.remedy}".strip()
        if refused:
            self.tools.counters["refused"] += 1
        log.warning("a claim: %s", error)

    # To claim or not.

    async def _consider(self, case: Case, work: Work) -> None:
        record, chain = work.record, self.tools.chain
        state = work.state
        if state is None or not work.seated or case.tries >= due.TRIES_MAX:
            return
        _, claimed_to = await self.tools.claims.quarrels(record.id)
        positions = claims.claimable(
            unpaid_end(record), state.paid_units, claimed_to, record.order.tally_units, record.lease.positions
        )
        standing = self._standing(case, work, len(positions))
        reason = due.reason(self.policy, standing)
        if not reason:
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
        witnesses = await self._ready(record.order, record.lease)
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
        await self._send(case, case.record, witnesses)

    async def _ready(self, order: Order, lease: Lease) -> list[int]:
        """Witnesses for a claim, with the bond at hand. ChainError where one of them is missing."""
        if not await self.tools.can_put_up(order.claim_bond):
            need = amounts.show_up(order.claim_bond)
            raise ChainError(
                "no_bond",
                f"A claim needs a bond of {need}, and the account has less.",
                reverted=True,
                remedy="Send MESH to the account: the bond comes back with the pay.",
            )
        witnesses = await self.tools.claims.witnesses(order, lease)
        if len(witnesses) < self.terms.quorum:
            said = f"{len(witnesses)} accounts could judge a quarrel about this seat, {self.terms.quorum} are needed."
            raise ChainError("no_members", said, reverted=True)
        return witnesses

    async def _send(self, case: Case, record: ClaimRecord, witnesses: Sequence[int]) -> None:
        tools, order, lease = self.tools, record.order, record.lease
        brings = due.share_of_pay(record.tally.count * lease.price, tools.parameters.fee_bp)
        await tools.claims.claim(order, lease, record.signed, witnesses, bond=order.claim_bond, brings_wei=brings)
        tools.counters["made"] += 1
        case.tries, case.problem = 0, None

    # A claim that was signed.

    async def _move(self, case: Case, record: ClaimRecord) -> None:
        tools, lease = self.tools, record.lease
        found = case.claim = await tools.claims.claim_of(record.id)
        if found is None:
            await self._again(case, record)
            return
        case.problem = "claimed", f"Seat {record.seat[:4].hex()}: {told(found)}"
        if found.state.ended:
            await self._end(case, record, found.state.name.lower())
        elif found.state is ClaimState.PENDING:
            over = await tools.claims.head() > found.block_number + claims.SEED_DELAY
            if over and not await tried("capture", tools.claims.capture(record.id)):
                await tried("conclude", tools.claims.conclude(lease, record.id))  # where its seed is lost
        else:
            if found.state is ClaimState.SAMPLING:
                await self._sampling(case, record, found)
            pay = found.count * found.price
            await move_on(tools, lease, record.id, found, brings_wei=pay + found.bond)

    async def _sampling(self, case: Case, record: ClaimRecord, found: Claim) -> None:
        now, tools = self.tools.chain.block_time(), self.tools
        if case.draws[0] != found.seed:
            case.draws = found.seed, await tools.claims.draws(record.id, found.k)
        ready = found.committed == found.k or now >= self.terms.commit_by(found)
        if ready and now <= found.deadline:
            kept = Kept(tools.domains, tools.journal, record.seat)
            samples = await tools.claims.samples(record.id, found.k)
            leaves = kept.leaves(range(found.from_, found.from_ + found.count))
            shown = {position: kept.shown(position) for position in found.positions()}
            await tried("open", tools.claims.show(record.id, claims.openings(found, samples, leaves, shown)))

    async def _again(self, case: Case, record: ClaimRecord) -> None:
        """Signed and not on chain: never sent, or taken back by a reorganisation. The same bytes, while they fit."""
        state = await self.tools.chain.seat_state(record.seat)
        _, claimed_to = await self.tools.claims.quarrels(record.seat)
        late = self.tools.chain.block_time() > record.lease.until + record.order.claim_window
        fits = state is not None and state.open and state.paid_units == record.tally.start >= claimed_to
        if late or not fits or case.tries >= due.TRIES_MAX:
            await self._end(case, record, GONE)
        else:
            await self._send(case, record, await self._ready(record.order, record.lease))

    async def _end(self, case: Case, record: ClaimRecord, outcome: str) -> None:
        line = exchange.encode(EndLine(outcome, self.tools.chain.block_time()))
        with trio.CancelScope(shield=True):
            await self.tools.journal.append(record.scope, (Line.END.value, line))
            record.apply(Line.END, line)
        self.tools.counters[outcome] += 1
        case.claim, case.problem, case.draws = None, None, (b"", [])
        if outcome == "failed":
            said = "it was refuted, could not be audited, or was not opened in time"
            case.problem = "claim_failed", f"The claim of seat {record.seat[:4].hex()} failed: {said}."
        log.info("claim %s of seat %s: %s", record.id[:4].hex(), record.seat[:4].hex(), outcome)


def told(found: Claim) -> str:
    """Where a claim stands, for its owner."""
    units = f"{found.count} units are claimed on chain"
    if found.state is ClaimState.PENDING:
        return f"{units}; the draw waits for its block."
    if found.state is ClaimState.SAMPLING:
        return f"{units}; {found.committed} of {found.k} drawn auditors have committed."
    if found.state is ClaimState.REVEALING:
        court = f", {found.in_court} of them before the Court" if found.in_court else ""
        return f"{units}; {found.revealed} of {found.committed} auditors have spoken{court}."
    if found.state is ClaimState.CHALLENGEABLE:
        half = "half of them" if found.half else "all of them"
        return f"{units}; {half} will be paid after {found.deadline} (chain time) unless somebody proves fraud."
    return f"{units}; the claim has ended: {found.state.name.lower()}."


def _chain_at(record: SeatRecord, before: ClaimRecord | None, units: int) -> bytes:
    """The seat's chain value after `units`, which the new one continues."""
    known = {closed.range.end: closed.chain for closed in record.seat.tallies}
    if before is not None:
        known |= before.chains
    return known.get(units, ZERO32)
