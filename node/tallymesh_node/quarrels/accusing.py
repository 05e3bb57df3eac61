"""The accuser's side: sees grounds, decides, and makes the accusation; what follows stands in pleading.py.

Level-triggered: each look compares the payer's books, this journal and the chain. All that an accusation needs is on
disk before it is sent, so that it goes on whatever becomes of the job. A seat is accused once, ever: what a restored
journal has forgotten says the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from tallymesh import amounts, exchange
from tallymesh.errors import ChainError, LocalError, RemoteError
from tallymesh.exchange import Body
from tallymesh_ledger.court import Terms
from tallymesh_node import beats
from tallymesh_node.complaints import told
from tallymesh_node.interfaces import Entry
from tallymesh_node.lines import EndLine
from tallymesh_node.looks import backoff_s
from tallymesh_node.quarrels import worth
from tallymesh_node.quarrels.grounds import Ground, Grounds
from tallymesh_node.quarrels.pleading import Plea, Pleading, Side
from tallymesh_node.quarrels.tools import Tools, log, look_s
from tallymesh_node.quarrels.values import steps_of

SCOPE = "accusation/"  # of the journal: one a seat
GROUNDS, ACCUSE, END = "grounds", "accuse", "end"  # kinds of its lines
KEEP_S = 30 * 24 * 3600  # journals of accusations that are over: none is made twice, and money can be explained
TRIES_MAX = 12  # sendings that the contract refused: by then the reason does not go away
RETRY_FIRST_S, RETRY_MAX_S = 2.0, 600.0
FORGET_LOOK_S = 600.0
OBSTACLE_S = 5.0  # until it is looked again whether what stands against an accusation still does


class AccuseLine(Body, frozen=True):
    steps: int
    at: int  # chain time


class Accusation:
    """One seat. `line` None: nothing was signed yet."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.stored = False  # whether its grounds are on disk: the job may be archived before it can be made
        self.line: AccuseLine | None = None
        self.plea: Plea | None = None
        self.end: EndLine | None = None
        self.checked = False  # this machine found what the auditors found
        self.tries = 0
        self.problem: tuple[str, str] | None = None

    def __repr__(self) -> str:
        state = self.end.outcome if self.end else repr(self.plea) if self.plea else self.problem and self.problem[0]
        return f"<Accusation {self.ground!r} {state}>"


class Accusing:
    """`grounds` are those that the payer's books hold now; `numeric_class` is this machine's, b"" while unknown."""

    def __init__(
        self,
        tools: Tools,
        terms: Terms,
        pleading: Pleading,
        grounds: Callable[[], Iterable[Grounds]],
        numeric_class: Callable[[], bytes],
    ) -> None:
        self.tools = tools
        self.terms = terms
        self.pleading = pleading
        self.grounds = grounds
        self.numeric_class = numeric_class
        self.accusations: dict[bytes, Accusation] = {}  # by seat
        for scope in tools.journal.scopes(SCOPE):
            self._replay(tools.journal.read(scope))

    def _replay(self, entries: Iterable[Entry]) -> None:
        lines = list(entries)
        grounds = exchange.decode(lines[0].body, Grounds)
        accusation = Accusation(Ground(self.tools.domains, grounds, self.tools.key.address))
        accusation.stored = True
        for entry in lines:
            if entry.kind == ACCUSE:
                self._begin(accusation, exchange.decode(entry.body, AccuseLine))
        if lines[-1].kind == END:
            accusation.end = exchange.decode(lines[-1].body, EndLine)
        self.accusations[accusation.ground.seat] = accusation

    def _begin(self, accusation: Accusation, line: AccuseLine) -> None:
        ground = accusation.ground
        accusation.line = line
        accusation.plea = Plea(ground.id, Side.ACCUSER, ground.dossier())

    @property
    def live(self) -> list[Accusation]:
        return [each for each in self.accusations.values() if each.line is not None and each.end is None]

    def pleas(self) -> list[Plea]:
        return [each.plea for each in self.live if each.plea is not None]

    async def run(self) -> None:
        """Until cancelled: a task for each seat, so that a long recomputation delays no other one's move."""
        async with trio.open_nursery() as nursery:
            for accusation in self.accusations.values():
                nursery.start_soon(self._follow, accusation)
            while True:
                for grounds in self.grounds():
                    ground = Ground(self.tools.domains, grounds, self.tools.key.address)
                    if ground.seat not in self.accusations:
                        accusation = self.accusations[ground.seat] = Accusation(ground)
                        nursery.start_soon(self._follow, accusation)
                await beats.pause(look_s(self.terms))

    async def _follow(self, accusation: Accusation) -> None:
        """Until it is over and forgotten. What goes wrong is told to the owner and tried again."""
        while accusation.ground.seat in self.accusations:
            pause = look_s(self.terms)
            try:
                if accusation.end is not None:
                    await self._forget(accusation, accusation.end)
                    pause = FORGET_LOOK_S
                elif accusation.line is None:
                    pause = max(pause, await self._consider(accusation))
                else:
                    await self._pursue(accusation)
            except (ChainError, LocalError, RemoteError) as error:
                pause = self._later(accusation, error)
            await trio.sleep(pause)

    def _later(self, accusation: Accusation, error: ChainError | LocalError | RemoteError) -> float:
        refused = isinstance(error, ChainError) and error.reverted
        accusation.tries += refused
        accusation.problem = told(error)
        log.warning("%r: %s", accusation, error)
        return backoff_s(accusation.tries, RETRY_FIRST_S, RETRY_MAX_S) if refused else RETRY_FIRST_S

    # To accuse or not.

    async def _consider(self, accusation: Accusation) -> float:
        """Whatever stands against it now is told, and looked at again after so many seconds."""
        ground, court = accusation.ground, self.tools.court
        if not accusation.stored:
            await self._store(accusation, GROUNDS, ground.grounds)
            accusation.stored = True
        made = await self._made(ground)
        if made and made != ground.id:
            await self._end(accusation, "made_before")
            return 0.0
        if not made:  # else by an earlier life of this node, whose journal was lost
            payer = ground.order.payer == self.tools.key.address
            lock = await court.lock_left(ground.lease)
            obstacle = worth.obstacle(ground.order, self.terms, lock_left=lock, payer=payer)
            obstacle = obstacle or await self._missing(ground)
            if obstacle is None and not accusation.checked:
                obstacle = await self._doubt(ground)
                accusation.checked = obstacle is None
            if obstacle is not None and not lock and self._unlocked(ground):
                await self._end(accusation, "not_made")
                return 0.0
            if obstacle is not None:
                if accusation.problem is None or accusation.problem[0] != obstacle[0]:
                    log.info("%r: not accused (%s): %s", accusation, *obstacle)
                accusation.problem = obstacle[0], f"Seat {ground.seat[:4].hex()} is not accused: {obstacle[1]}"
                return OBSTACLE_S
        line = AccuseLine(steps_of(ground.unit), self._now)
        await self._store(accusation, ACCUSE, line)
        self._begin(accusation, line)
        accusation.problem = None
        return 0.0

    def _unlocked(self, ground: Ground) -> bool:
        """Whether no lock of this seat can come any more."""
        parameters = self.tools.parameters
        return self._now > ground.lease.until + parameters.claim_window_s + parameters.lock_tail_s

    async def _made(self, ground: Ground) -> bytes:
        """The accusation of this seat that this account has made, b"" where there is none."""
        if await self.tools.court.accusation_of(ground.id) is not None:
            return ground.id
        since = ground.lease.until - self.tools.parameters.lease_max_s  # no lease is longer
        for each in await self.tools.court.accusations(ground.seat, since):
            if each.accuser == self.tools.key.address:
                return each.id
        return b""

    async def _missing(self, ground: Ground) -> tuple[str, str] | None:
        bond, have = self.terms.accusation_bond(ground.order), await self.tools.court.tokens()
        if have < bond <= have + await self.tools.chain.credits(self.tools.key.address):
            await self.tools.chain.withdraw()
            have = await self.tools.court.tokens()
        if have < bond:
            return "no_bond", f"It needs a bond of {amounts.show_up(bond)}, and the account has {amounts.show(have)}."
        witnesses = await self.tools.court.witnesses(ground.order, ground.lease)
        if len(witnesses) < self.terms.quorum:
            said = f"{len(witnesses)} other accounts of its class could judge, {self.terms.quorum} are needed."
            return "no_members", said
        return None

    async def _doubt(self, ground: Ground) -> tuple[str, str] | None:
        """This machine's own result, before its bond is risked. Where it is of another class it cannot say, nor answer
        for single steps."""
        steps, mine = steps_of(ground.unit), self.numeric_class()
        if not mine:
            return "own_class", "This machine's numeric class is being measured."
        if mine != ground.lease.numeric_class:
            if steps == 1:
                return None
            return "other_class", "This machine is of another numeric class and could not answer for single steps."
        values = self.tools.values(ground.id, ground.order, ground.lease.work_ms, ground.unit)
        if await values.at(steps) != ground.grounds.end:
            return "own_result", "This machine finds another result than the auditors that confirmed the mismatch."
        return None

    async def _store(self, accusation: Accusation, kind: str, line: Body) -> None:
        """Durable when it returns. LocalError `disk`."""
        with trio.CancelScope(shield=True):
            await self.tools.journal.append(SCOPE + accusation.ground.seat.hex(), (kind, exchange.encode(line)))

    # Afterwards.

    @property
    def _now(self) -> int:
        return self.tools.chain.block_time()

    async def _pursue(self, accusation: Accusation) -> None:
        plea, ground = accusation.plea, accusation.ground
        assert plea is not None
        found = await self.tools.court.accusation_of(ground.id)
        if found is None:
            await self._send(accusation)
            return
        accusation.tries, accusation.problem = 0, None
        plea.values_here = self.numeric_class() == ground.lease.numeric_class
        await self.pleading.look(plea)
        if found.ended and plea.found is not None:
            await self._end(accusation, plea.found.ruling.name.lower())

    async def _send(self, accusation: Accusation) -> None:
        """Never sent, or taken back by a reorganisation: the same words, while they can still do something."""
        ground, line, court = accusation.ground, accusation.line, self.tools.court
        assert line is not None
        lock = await court.lock_left(ground.lease)
        if not lock or accusation.tries >= TRIES_MAX:
            await self._end(accusation, "gone")
            return
        witnesses = await court.witnesses(ground.order, ground.lease)
        payer = ground.order.payer == self.tools.key.address
        brings = worth.conviction_wei(lock, payer=payer) - worth.cost_wei(lock, self.terms)
        await court.accuse(ground.order, ground.lease, ground.charge(line.steps), witnesses, brings_wei=brings)
        self.tools.counters["accusations"] += 1
        log.info("%r: accused", accusation)

    async def _end(self, accusation: Accusation, outcome: str) -> None:
        line = EndLine(outcome, self._now)
        await self._store(accusation, END, line)
        accusation.end, accusation.problem = line, None
        self.tools.counters[f"accusations_{outcome}"] += 1
        await self.tools.executor.close_job(self.tools.sandbox_of(accusation.ground.id))
        log.info("%r: %s", accusation, outcome)

    async def _forget(self, accusation: Accusation, end: EndLine) -> None:
        if self._now > end.at + KEEP_S:
            await self.tools.journal.drop(SCOPE + accusation.ground.seat.hex())
            del self.accusations[accusation.ground.seat]
