"""A party's part in one case: names the values that it is asked for, appeals, and moves the case on where nobody else
gains by it. Accuser and accused are alike, but for whose turn it is.

One step a look, from what the chain shows. Values follow from the unit, so nothing of this has to be on disk: a node
that was off, or killed, finds them again. Who makes a case, or why, stands elsewhere (accusing.py, defending.py).
"""

from __future__ import annotations

from enum import Enum

import trio

from tallymesh import amounts, wire
from tallymesh.errors import ChainError, LocalError, RemoteError, TallymeshError
from tallymesh.exchange import WhereRequest
from tallymesh.messages import Lease, Order
from tallymesh.units import decode_unit
from tallymesh_ledger.court import SEED_DELAY, Case, CaseState, Ruling, Terms
from tallymesh_node import complaints
from tallymesh_node.looks import tried
from tallymesh_node.quarrels import worth
from tallymesh_node.quarrels.serving import Dossier
from tallymesh_node.quarrels.tools import Tools, log
from tallymesh_node.quarrels.values import steps_of
from tallymesh_node.quarrels.whereabouts import Whereabouts

GRACE_SHARE = 0.5  # of a move's window: before a party moves a case on that the other one gains more by
PATIENCE_DRAWS = 3  # times the wait for a panel's seed, before the accused has it drawn
TELL_S = 3.0  # for a member to hear where this party is
RETRY_S = 2.0  # after this machine, or the chain, refused


class Side(Enum):
    ACCUSED = "accused"
    ACCUSER = "accuser"

    @property
    def other(self) -> Side:
        return Side.ACCUSER if self is Side.ACCUSED else Side.ACCUSED


class Plea:
    """One case in which this account is a party, and what is known of it here; all from `followed` on is found
    out again after a restart."""

    def __init__(self, case: bytes, side: Side, dossier: Dossier, *, claim: bytes = b"", at: int = 0) -> None:
        self.case, self.side, self.dossier, self.claim = case, side, dossier, claim  # claim b"": an accusation
        self.at = at  # when it was opened, chain time
        self.order: Order = wire.decode(dossier.order, Order).message
        self.lease: Lease = wire.decode(dossier.lease, Lease).message
        self.unit = decode_unit(dossier.unit)
        self.followed = False  # whether a task moves it on
        self.values_here = True  # whether this machine's results are those of the lease's class
        self.found: Case | None = None  # as last seen
        self.over = ""  # how it ended, once nothing is left to do
        self.panel: set[bytes] = set()  # members that do not know yet where this node is, of the panel …
        self.panel_round = -1  # … of this round
        self.problem: tuple[str, str] | None = None
        self.not_before = 0.0  # trio time

    def __repr__(self) -> str:
        state = self.over or (self.found.state.name if self.found else "?")
        return f"<Plea {self.case[:4].hex()} {self.side.value} {state}>"

    @property
    def live(self) -> bool:
        return not self.over


class Pleading:
    """Contract: a value is named only where the case, as it is on chain now, asks this side for it."""

    def __init__(self, tools: Tools, terms: Terms, whereabouts: Whereabouts) -> None:
        self.tools = tools
        self.terms = terms
        self.whereabouts = whereabouts

    async def look(self, plea: Plea) -> None:
        """The one thing that is due. What goes wrong is told to the owner and tried again."""
        if plea.over or trio.current_time() < plea.not_before:
            return
        try:
            plea.found = await self.tools.court.case_of(plea.case)
            if plea.found is not None:
                plea.problem = f"{plea.side.value}", told(plea, plea.found)
                await self._step(plea, plea.found)
        except (ChainError, LocalError) as error:
            self.later(plea, error)

    def later(self, plea: Plea, error: TallymeshError) -> None:
        plea.problem = complaints.told(error)
        plea.not_before = trio.current_time() + RETRY_S
        log.warning("%r: %s", plea, error)

    @property
    def _now(self) -> int:
        return self.tools.chain.block_time()

    async def _step(self, plea: Plea, found: Case) -> None:
        court, late = self.tools.court, self._now > found.deadline
        if found.state is CaseState.VOTING and not late:
            await self._tell(plea, found)
        turn = {CaseState.POSTING: Side.ACCUSED, CaseState.ANSWERING: Side.ACCUSER}.get(found.state)
        if found.state is CaseState.RULED:
            await self._carry_out(plea, found)
        elif turn is plea.side and not late:
            await self._name(plea, found)
        elif found.state is CaseState.APPEALABLE and not late:
            await self._appeal(plea, found)
        elif await self._due(found, self._gains(plea, found)):
            await tried("advance", court.advance(plea.case))

    async def _tell(self, plea: Plea, found: Case) -> None:
        """Members hear from this party where it can be asked: a payer publishes no offer, and nobody else could say
        where it is."""
        if plea.panel_round != found.round:
            members = await self.tools.court.members(plea.case, self.terms.size(found))
            plea.panel, plea.panel_round = {member.account for member in members}, found.round
        if plea.panel:
            body = self.whereabouts.of_mine()
            async with trio.open_nursery() as nursery:
                for account in plea.panel:
                    nursery.start_soon(self._tell_one, plea, account, body)

    async def _tell_one(self, plea: Plea, account: bytes, body: bytes) -> None:
        source = self.tools.source_of(account)
        if source is None:
            return  # its offer may come yet
        try:
            await self.tools.network.request(source, WhereRequest.NAME, body, timeout_s=TELL_S)
            plea.panel.discard(account)
        except RemoteError as error:
            log.debug("%r: a member could not be told where this party is: %s", plea, error)

    # Moves.

    async def _name(self, plea: Plea, found: Case) -> None:
        """Value (lo + hi) / 2, as this machine finds it."""
        value = await self._value(plea, found.middle)
        court = self.tools.court
        if plea.side is Side.ACCUSED:
            self.tools.counters["posts"] += await tried("post", court.post(plea.case, value))
        else:
            self.tools.counters["answers"] += await tried("answer", court.answer(plea.case, value))

    async def _value(self, plea: Plea, index: int) -> bytes:
        values = self.tools.values(plea.case, plea.order, plea.lease.work_ms, plea.unit)
        return await values.at(index)

    async def _appeal(self, plea: Plea, found: Case) -> None:
        """Where the panel ruled against this side, and this side is right when it looks again."""
        court, fee, me = self.tools.court, self.terms.appeal_fee, plea.side is Side.ACCUSED
        if not plea.values_here or not worth.appeals(found, self.terms, accused=me, at_stake=await self.at_stake(plea)):
            return
        mine = found.accused_value if me else found.accuser_value
        # The last value that the accuser counted is the unit's end, however many steps that really takes.
        if mine not in (await self._value(plea, found.hi), await self._value(plea, steps_of(plea.unit))):
            plea.problem = "wrong", f"Case {plea.case[:4].hex()}: this node finds that the panel was right."
            return
        if await court.tokens() < fee:
            said = f"An appeal costs {amounts.show_up(fee)}, and the account has less."
            raise ChainError("no_fee", said, reverted=False, remedy="Send MESH to the account.")
        self.tools.counters["appeals"] += await tried("appeal", court.appeal(plea.case))

    async def at_stake(self, plea: Plea) -> int:
        """What this side gets by winning and not by losing, in wei."""
        lock = await self.tools.court.lock_left(plea.lease)
        if plea.side is Side.ACCUSED:
            return lock
        brings = worth.conviction_wei(lock, payer=plea.order.payer == self.tools.key.address)
        return brings + plea.order.claim_bond

    # What anybody may do.

    async def _due(self, found: Case, gains: bool) -> bool:
        """Whether `advance` does something now, and it is this side's to call it: at once where this side gains by it,
        else when the other one has had the time to."""
        if found.state is CaseState.DRAWING:
            wait = SEED_DELAY if gains else PATIENCE_DRAWS * SEED_DELAY
            return await self.tools.court.head() > found.drawn_block + wait
        if found.state is CaseState.VOTING and gains:
            told = found.revealed == found.committed and self._now > found.deadline
            if told or found.revealed == self.terms.size(found):
                return True
        since = found.reveal_until if found.state is CaseState.VOTING else found.deadline
        return self._now > since + (0 if gains else self._grace_s)

    @property
    def _grace_s(self) -> float:
        return GRACE_SHARE * self.terms.move_s

    def _gains(self, plea: Plea, found: Case) -> bool:
        """Whether this side is the first to want the case to go on: the other one is silent, or won so far."""
        if found.state is CaseState.POSTING:
            return plea.side is Side.ACCUSER
        if found.state is CaseState.ANSWERING:
            return plea.side is Side.ACCUSED
        if found.state is CaseState.APPEALABLE:
            return plea.side is winner(found.ruling)
        return plea.side is Side.ACCUSER

    async def _carry_out(self, plea: Plea, found: Case) -> None:
        """An accusation is ended here; a claim's case by the claim's parties (claims/moves.py)."""
        if found.taken:
            plea.over = found.ruling.name.lower()
            return
        if plea.claim:
            return
        brings = await self.brings(plea, found.ruling)
        if brings and (plea.side is winner(found.ruling) or self._now > found.deadline + self._grace_s):
            await tried(
                "end an accusation",
                self.tools.court.acquit_or_convict(plea.lease, plea.case, brings_wei=brings),
            )

    async def brings(self, plea: Plea, ruling: Ruling) -> int:
        """What ending an accusation with this ruling brings this side; of the accused, a lock that is free again."""
        stake, bond = await self.at_stake(plea), self.terms.accusation_bond(plea.order)
        if plea.side is Side.ACCUSED:
            return 0 if ruling is Ruling.FOR_ACCUSER else stake + plea.order.claim_bond
        if ruling is Ruling.FOR_ACCUSER:
            return stake + bond
        return plea.order.claim_bond if ruling in (Ruling.VOID, Ruling.NO_QUORUM) else 0


def winner(ruling: Ruling) -> Side:
    """Who gets a bond: of a void, and where nobody could judge, its own accuser."""
    return Side.ACCUSED if ruling in worth.AGAINST_ACCUSER else Side.ACCUSER


def told(plea: Plea, found: Case) -> str:
    """Where a case stands, for its owner."""
    name = f"Case {plea.case[:4].hex()} about a unit of worker {plea.lease.worker[:4].hex()}"
    if found.state in (CaseState.POSTING, CaseState.ANSWERING):
        who = Side.ACCUSED if found.state is CaseState.POSTING else Side.ACCUSER
        steps = f"steps {found.lo} to {found.hi} of {steps_of(plea.unit)}"
        return f"{name}: narrowed to {steps}; the {who.value} has until {found.deadline} (chain time)."
    if found.state is CaseState.DRAWING:
        return f"{name}: a panel of members is about to be drawn."
    if found.state is CaseState.VOTING:
        return f"{name}: {found.committed} members have voted, {found.revealed} votes are open."
    ruling = found.ruling.name.lower().replace("_", " ")
    if found.state is CaseState.APPEALABLE:
        return f"{name}: ruled {ruling}; either party may appeal until {found.deadline} (chain time)."
    return f"{name}: ruled {ruling}."
