"""A claim that was signed: brings it onto the chain, and moves it on until it has ended.

One step a look, from what the chain shows; who else moved it on, or took it back, makes no difference. This module
decides about no claim, and serves nobody (serving.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from tallymesh import amounts, exchange
from tallymesh.errors import ChainError
from tallymesh.messages import Lease, Order
from tallymesh_ledger import claims
from tallymesh_ledger.claims import Claim, ClaimState, Draw, Terms
from tallymesh_node.claims import due
from tallymesh_node.claims.kept import Kept
from tallymesh_node.claims.moves import move_on
from tallymesh_node.claims.record import ClaimRecord, Line
from tallymesh_node.claims.tools import Tools, log
from tallymesh_node.lines import EndLine
from tallymesh_node.looks import tried

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


class Pursuit:
    def __init__(self, tools: Tools, terms: Terms) -> None:
        self.tools = tools
        self.terms = terms

    async def ready(self, order: Order, lease: Lease) -> list[int]:
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

    async def send(self, case: Case, record: ClaimRecord, witnesses: Sequence[int]) -> None:
        tools, order, lease = self.tools, record.order, record.lease
        brings = due.share_of_pay(record.tally.count * lease.price, tools.parameters.fee_bp)
        await tools.claims.claim(order, lease, record.signed, witnesses, bond=order.claim_bond, brings_wei=brings)
        tools.counters["made"] += 1
        case.tries, case.problem = 0, None

    async def move(self, case: Case, record: ClaimRecord) -> None:
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
            await self._open(case, record, found)

    async def _open(self, case: Case, record: ClaimRecord, found: Claim) -> None:
        tools = self.tools
        try:
            kept = Kept(tools.domains, tools.journal, record.seat)
            leaves = kept.leaves(range(found.from_, found.from_ + found.count))
            shown = {position: kept.shown(position) for position in found.positions()}
        except KeyError:  # a journal that was tampered with, or restored: the claim will fail, the node must not
            case.problem = "no_evidence", f"The journal has no receipts of seat {record.seat[:4].hex()} any more."
            return
        samples = await tools.claims.samples(record.id, found.k)
        await tried("open", tools.claims.show(record.id, claims.openings(found, samples, leaves, shown)))

    async def _again(self, case: Case, record: ClaimRecord) -> None:
        """Signed and not on chain: never sent, or taken back by a reorganisation. The same bytes, while they fit."""
        state = await self.tools.chain.seat_state(record.seat)
        _, claimed_to = await self.tools.claims.quarrels(record.seat)
        late = self.tools.chain.block_time() > record.lease.until + record.order.claim_window
        tally = record.tally
        # A unit that was paid in front of it meanwhile does not stop a claim.
        unpaid = state is not None and state.open and tally.start <= state.paid_units < tally.start + tally.count
        fits = unpaid and claimed_to <= tally.start
        if late or not fits or case.tries >= due.TRIES_MAX:
            await self._end(case, record, GONE)
        else:
            await self.send(case, record, await self.ready(record.order, record.lease))

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
