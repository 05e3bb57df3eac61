"""Finds the samples that this account was drawn for: claims that got their seed lately, and who is drawn for them.

Level-triggered: every look goes over all claims whose auditors may still be missing, so an event that was missed
costs a delay. Each sample is a task of its own (auditing.py), at most MAX_OPEN of them.
"""

from __future__ import annotations

import trio

from tallymesh import exchange
from tallymesh.errors import ChainError, LocalError
from tallymesh_ledger.claims import Claim, ClaimState, Draw, Terms
from tallymesh_node.claims.auditing import Auditing
from tallymesh_node.claims.record import AUDITOR, AuditRecord, DrawnLine, EndLine, Line
from tallymesh_node.claims.tools import Tools, log, look_s

MAX_OPEN = 16  # samples at work or waiting for their end: each holds a bond of this account
SLACK_S = 60  # a claim is looked at for so much longer than it can need us: clocks and blocks differ
KEEP_S = 24 * 3600  # journals of samples that are over: a draw must not be taken for new, and pay can be explained
PRUNE_LOOKS = 1000  # between looks for journals that can be forgotten


class Watching:
    def __init__(self, tools: Tools, terms: Terms) -> None:
        self.tools = tools
        self.terms = terms
        self.open: dict[str, Auditing] = {}  # by journal scope
        self._draws: dict[tuple[bytes, bytes], list[Draw]] = {}  # (claim, seed) -> this account's
        self._known: set[str] = set()  # scopes on disk

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for scope in self.tools.journal.scopes(AUDITOR):
                self._known.add(scope)
                record = AuditRecord.replay(self.tools.journal.read(scope))
                if record.over is None:
                    self._begin(nursery, record)
            looks = 0
            while True:
                try:
                    await self._look(nursery)
                    if looks % PRUNE_LOOKS == 0:
                        await self._prune()
                except (ChainError, LocalError) as error:
                    log.debug("claims cannot be watched: %s", error)
                looks += 1
                await trio.sleep(look_s(self.terms))

    async def _look(self, nursery: trio.Nursery) -> None:
        since = self.tools.chain.block_time() - self.terms.watched_s - SLACK_S
        live: set[tuple[bytes, bytes]] = set()
        for claim in dict.fromkeys(await self.tools.claims.captured(since)):
            found = await self.tools.claims.claim_of(claim)
            if found is not None and found.state is ClaimState.SAMPLING:
                live.add((claim, found.seed))
                await self._take(nursery, claim, found)
        self._draws = {key: draws for key, draws in self._draws.items() if key in live}

    async def _take(self, nursery: trio.Nursery, claim: bytes, found: Claim) -> None:
        me = self.tools.key.address
        if (claim, found.seed) not in self._draws:
            drawn = await self.tools.claims.draws(claim, found.k)
            self._draws[claim, found.seed] = [draw for draw in drawn if draw.auditor == me]
        for draw in self._draws[claim, found.seed]:
            line = DrawnLine(claim, found.seed, draw.sample, draw.rank, draw.attempt)
            record = AuditRecord(line)
            if record.scope in self._known or len(self.open) >= MAX_OPEN:
                continue
            await self.tools.journal.append(record.scope, (Line.DRAWN.value, exchange.encode(line)))
            self._known.add(record.scope)
            self.tools.counters["draws"] += 1
            log.info("drawn for claim %s, sample %d, rank %d", claim[:4].hex(), draw.sample, draw.rank)
            self._begin(nursery, record)

    def _begin(self, nursery: trio.Nursery, record: AuditRecord) -> None:
        auditing = self.open[record.scope] = Auditing(self.tools, self.terms, record)
        nursery.start_soon(self._run, auditing)

    async def _run(self, auditing: Auditing) -> None:
        scope, claim = auditing.record.scope, auditing.record.line.claim
        try:
            await auditing.run()
        finally:
            self.open.pop(scope, None)
        if all(other.record.line.claim != claim for other in self.open.values()):
            await self.tools.executor.close_job(self.tools.sandbox_of(claim))

    async def _prune(self) -> None:
        for scope in self.tools.journal.scopes(AUDITOR):
            entries = self.tools.journal.read(scope)
            if entries and entries[-1].kind == Line.OVER:
                over = exchange.decode(entries[-1].body, EndLine)
                if self.tools.chain.block_time() > over.at + KEEP_S + self.terms.watched_s:
                    await self.tools.journal.drop(scope)
                    self._known.discard(scope)
            await trio.lowlevel.checkpoint()
