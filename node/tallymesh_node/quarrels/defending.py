"""Finds the cases that this account is in and did not make itself: those against it as a worker, and those that its
MISMATCH in a claim has opened, where it is the accuser.

Level-triggered: each look goes over all cases of this account that are young enough to be live. What is needed to
plead is copied out of the worker's (or auditor's) journal at the first sight: that one is dropped when its seat is
over, and a case may last longer. Pleading itself stands in pleading.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import trio

from tallymesh import exchange
from tallymesh.errors import ChainError, LocalError, RemoteError
from tallymesh.exchange import Body, Opening, Source
from tallymesh.ids import SeatId
from tallymesh.units import decode_unit, unit_id
from tallymesh_ledger.court import Opened, Origin, Terms, accusation_of
from tallymesh_ledger.jobs import seat_id
from tallymesh_node import beats
from tallymesh_node.claims.kept import Kept
from tallymesh_node.claims.record import AUDITOR, AuditRecord
from tallymesh_node.interfaces import Entry
from tallymesh_node.lines import EndLine
from tallymesh_node.quarrels.pleading import Plea, Pleading, Side
from tallymesh_node.quarrels.serving import Dossier
from tallymesh_node.quarrels.tools import Tools, log, look_s

SCOPE = "plea/"  # of the journal: one a case
BEGIN, END = "begin", "end"  # kinds of its lines
MAX_PLEAS = 64  # cases at a time: each costs its maker a bond, and a seat has room for 255
SLACK_S = 3600  # a case is looked for so much longer than its windows add up to: draws wait for somebody to call them
LOST_S = 60.0  # until it is looked again whether the journal has what a case needs
GONE = "gone"  # a case that a reorganisation took back, or that nobody ended in all the time there was
KEEP_S = 24 * 3600  # journals of cases that are over: a case must not be taken for new


class BeginLine(Body, frozen=True):
    case: bytes
    side: str
    claim: bytes  # b"": an accusation
    order: bytes
    lease: bytes
    template: bytes
    unit: bytes
    opening: Opening | None
    sources: tuple[Source, ...]
    at: int  # chain time


class Defending:
    def __init__(self, tools: Tools, terms: Terms, pleading: Pleading) -> None:
        self.tools = tools
        self.terms = terms
        self.pleading = pleading
        self.cases: dict[bytes, Plea] = {}
        self.ended: dict[bytes, int] = {}  # case -> when, chain time
        self.lost: dict[bytes, tuple[str, str]] = {}  # cases that this node cannot plead in, and why
        self._rest: dict[bytes, float] = {}  # cases that are not looked at before this trio time
        for scope in tools.journal.scopes(SCOPE):
            self._replay(tools.journal.read(scope))

    def _replay(self, entries: Iterable[Entry]) -> None:
        lines = list(entries)
        line = exchange.decode(lines[0].body, BeginLine)
        if lines[-1].kind == END:
            self.ended[line.case] = exchange.decode(lines[-1].body, EndLine).at
        else:
            self.cases[line.case] = _plea(line)

    @property
    def live(self) -> list[Plea]:
        return [plea for plea in self.cases.values() if plea.live]

    async def run(self) -> None:
        """Until cancelled: a task for each case, so that a long recomputation delays no other one's move."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    await self._find()
                    await self._forget()
                except (ChainError, LocalError) as error:
                    log.debug("cases cannot be watched: %s", error)
                for plea in self.live:  # those too that were found before the chain went away
                    if not plea.followed:
                        plea.followed = True
                        nursery.start_soon(self._follow, plea)
                await beats.pause(look_s(self.terms))

    async def _follow(self, plea: Plea) -> None:
        while plea.case in self.cases:
            await self.pleading.look(plea)
            if not plea.over and self.tools.chain.block_time() > plea.at + self.terms.case_s + SLACK_S:
                plea.over = GONE
            if plea.over:
                await self._end(plea)
            await beats.pause(look_s(self.terms))

    # Cases.

    async def _find(self) -> None:
        """Those that are new."""
        me, now = self.tools.key.address, self.tools.chain.block_time()
        opened = await self.tools.court.cases(me, now - self.terms.case_s - SLACK_S)
        young = {each.case for each in opened}
        self.lost = {case: why for case, why in self.lost.items() if case in young}
        self._rest = {case: time for case, time in self._rest.items() if case in young}
        for each in opened:
            if each.case in self.cases or each.case in self.ended or len(self.cases) >= MAX_PLEAS:
                continue
            if trio.current_time() < self._rest.get(each.case, 0.0):
                continue
            origin = await self.tools.court.origin(each.case)
            if origin is None:
                continue  # not there yet
            if each.accuser == me and not origin.claim:
                self._rest[each.case] = math.inf  # an accusation of our own (accusing.py)
                continue
            try:
                await self._begin(each, origin)
            except LocalError as error:
                log.error("case %s cannot be stored: %s", each.case[:4].hex(), error)
            except (KeyError, RemoteError) as error:
                if each.case not in self.lost:
                    log.error("case %s cannot be pleaded: %s", each.case[:4].hex(), error)
                said = f"Case {each.case[:4].hex()} needs a unit that this node's journal does not have (any more)."
                self.lost[each.case] = "no_evidence", said
                self._rest[each.case] = trio.current_time() + LOST_S

    async def _begin(self, opened: Opened, origin: Origin) -> None:
        accused = opened.accused == self.tools.key.address
        dossier = self._accused_of(opened, origin) if accused else self._audited(opened, origin)
        line = BeginLine(
            opened.case, (Side.ACCUSED if accused else Side.ACCUSER).value, origin.claim, dossier.order, dossier.lease,
            dossier.template, dossier.unit, dossier.opening, dossier.sources, opened.at,
        )  # fmt: skip
        with trio.CancelScope(shield=True):
            await self.tools.journal.append(SCOPE + opened.case.hex(), (BEGIN, exchange.encode(line)))
            self.cases[opened.case] = _plea(line)
        self.lost.pop(opened.case, None)
        self.tools.counters["cases_against" if accused else "cases_for"] += 1
        log.warning("case %s: this node is the %s", opened.case[:4].hex(), line.side)

    def _accused_of(self, opened: Opened, origin: Origin) -> Dossier:
        """KeyError where the journal has no such unit."""
        kept = Kept(self.tools.domains, self.tools.journal, SeatId(origin.seat))
        record, request = kept.record, kept.assigns[origin.position]
        opening = record.seat.openings[origin.position]
        if not origin.claim and accusation_of(record.id, origin.position, opening, opened.accuser) != opened.case:
            raise KeyError(origin.position)  # about a leaf that this journal does not know
        return Dossier(
            order=record.line.order,
            lease=record.line.lease,
            template=record.order.template,
            unit=request.unit,
            opening=None if origin.claim else opening,
            sources=(*request.sources, record.payer),
        )

    def _audited(self, opened: Opened, origin: Origin) -> Dossier:
        """What the auditor was given for this sample; the seed's newest draw counts."""
        for scope in reversed(self.tools.journal.scopes(f"{AUDITOR}{origin.claim.hex()}/{origin.sample}/")):
            call = AuditRecord.replay(self.tools.journal.read(scope)).call
            if call is None or unit_id(decode_unit(call.answer.unit)) != origin.unit_id:
                continue
            answer = call.answer
            plea = Plea(opened.case, Side.ACCUSER, Dossier(
                order=answer.order, lease=answer.lease, template=b"", unit=answer.unit,
            ))  # fmt: skip
            if seat_id(self.tools.domains, plea.lease) == origin.seat:
                return Dossier(
                    order=answer.order,
                    lease=answer.lease,
                    template=plea.order.template,
                    unit=answer.unit,
                    sources=(call.worker, *answer.sources),
                )
        raise KeyError(origin.sample)

    async def _end(self, plea: Plea) -> None:
        try:
            line = EndLine(plea.over, self.tools.chain.block_time())
            with trio.CancelScope(shield=True):
                await self.tools.journal.append(SCOPE + plea.case.hex(), (END, exchange.encode(line)))
                del self.cases[plea.case]
                self.ended[plea.case] = line.at
        except LocalError as error:
            log.error("%r cannot be stored: %s", plea, error)
            return
        self.tools.counters[f"cases_{plea.over}"] += 1
        await self.tools.executor.close_job(self.tools.sandbox_of(plea.case))
        log.info("%r", plea)

    async def _forget(self) -> None:
        now = self.tools.chain.block_time()
        for case, at in list(self.ended.items()):
            if now > at + KEEP_S + self.terms.case_s + SLACK_S:
                await self.tools.journal.drop(SCOPE + case.hex())
                del self.ended[case]


def _plea(line: BeginLine) -> Plea:
    dossier = Dossier(
        order=line.order,
        lease=line.lease,
        template=line.template,
        unit=line.unit,
        opening=line.opening,
        sources=line.sources,
    )
    return Plea(line.case, Side(line.side), dossier, claim=line.claim, at=line.at)
