"""One panel that this account sits on, from the draw to the ruling, going on from wherever its journal stands.

The vote is on disk before its commitment is sent. A member says what it found; that neither party could show it what it
needs, where that was so for most of its time; and nothing where its own machine is at fault. It puts up no bond: who
votes as most do is paid, who is silent is not.
"""

from __future__ import annotations

import trio

from tallymesh import exchange
from tallymesh.errors import ChainError, LocalError
from tallymesh_ledger.court import RIGHT, UNSERVED, Ballot, Case, CaseState, Ruling, Terms, Vote
from tallymesh_node.duties import Duty, Over
from tallymesh_node.looks import tried
from tallymesh_node.quarrels.disputed import Disputed, Foreign
from tallymesh_node.quarrels.record import Line, MemberRecord, VoteLine
from tallymesh_node.quarrels.tools import Tools, log, look_s

OWN_SHARE = 0.8  # of the time to commit: what could not be had by then is UNSERVED, and the commitment still gets there
GAS_SHARE = 3  # of what a seat brings, what one of its transactions may cost: commit, reveal, and one for the case
TURN_LOOKS = 2  # looks that one member leaves the one before it to move the case on


class Membership(Duty[Tools, MemberRecord]):
    COUNTED = "panels"

    def __init__(self, tools: Tools, terms: Terms, record: MemberRecord) -> None:
        super().__init__(tools, record, look_s(terms))
        self.terms = terms
        self._result: bytes | None = None  # found, and not on disk yet
        self._due_since: float | None = None  # trio time since when the case could be moved on

    @property
    def _brings_wei(self) -> int:
        """What this account's places bring at least, if it votes as most do, for each of their transactions."""
        return len(self.record.line.places) * self.terms.member_fee // GAS_SHARE

    async def _step(self) -> None:
        """The next thing that is due, by journal and chain."""
        record, line = self.record, self.record.line
        found = await self._case()
        if found is None:
            return
        if found.round != line.round or found.state is not CaseState.VOTING:
            await self._after(found)
        elif record.vote is None:
            await self._find(found)
        else:
            await self._speak(found)

    async def _case(self) -> Case | None:
        """As the chain has it, of this draw; None for a while after a reorganisation."""
        found, line = await self.tools.court.case_of(self.record.line.case), self.record.line
        same = found is not None and (found.round > line.round or found.seed == line.seed)
        return found if self._still(same) else None

    # Finding out.

    async def _find(self, found: Case) -> None:
        """The disputed value, in the time that there is, and onto the disk."""
        tools, line = self.tools, self.record.line
        if self._now >= found.deadline:
            raise Over("late")
        if self._result is not None:
            await self._vote(found)  # the disk refused it a moment ago
            return
        parties, origin = await tools.court.parties_of(line.case), await tools.court.origin(line.case)
        if origin is None:
            raise ChainError("no_origin", "The chain does not say what a case is about (yet).", reverted=False)
        disputed = Disputed(tools, line.case, found, parties, origin)
        result: bytes | None = UNSERVED
        with trio.move_on_after(self._patience_s(found)):
            try:
                await disputed.fetch()
                result = None
            except Foreign as foreign:
                log.info("%r: %s", disputed, foreign)
        if result is None:
            with trio.move_on_after(found.deadline - self._now) as slow:
                try:
                    result = await disputed.value()
                except LocalError as error:
                    log.error("%r: %s", disputed, error)
            if slow.cancelled_caught or result is None:
                raise Over("own_fault")  # it says nothing about either party
        self._result = result
        await self._vote(found)

    async def _vote(self, found: Case) -> None:
        assert self._result is not None
        await self._store((Line.VOTE, exchange.encode(VoteLine(self._result))))
        await self._speak(found)

    def _patience_s(self, found: Case) -> float:
        """How long to try for the unit: until most of the time is over; half of the rest for a node that was off."""
        left_s = found.deadline - self._now
        spare_s = (1 - OWN_SHARE) * self.terms.commit_s
        return left_s - spare_s if left_s > 2 * spare_s else left_s / 2

    # Saying it.

    async def _speak(self, found: Case) -> None:
        """Commit what is not committed, reveal what may be revealed, count what was said."""
        line, now, size = self.record.line, self._now, self.terms.size(found)
        ballots = await self.tools.court.ballots(line.case, line.round, size)
        mine = {number: ballots[number] for number, _ in line.places}
        if now <= found.deadline and await self._commit(mine):
            return
        committed = [number for number, ballot in mine.items() if self._is_mine(ballot)]
        if not committed and now > found.deadline:
            raise Over("late")
        if now > found.deadline or found.committed == size:
            hidden = [number for number in committed if mine[number].vote is Vote.NONE]
            if hidden and now <= found.reveal_until:
                await self._reveal(hidden)
                return
        told = found.revealed == size or (now > found.deadline and found.revealed == found.committed)
        await self._move_on(found, told or now > found.reveal_until)

    def _is_mine(self, ballot: Ballot) -> bool:
        return ballot.member == self.tools.key.address

    async def _commit(self, mine: dict[int, Ballot]) -> bool:
        """Whether something was sent."""
        tools, record, sent = self.tools, self.record, False
        for member in record.members(tools.key.address):
            if not any(mine[member.number].member):
                commitment = record.commitment(tools.key, member.number)
                await tools.court.commit(record.line.case, member, commitment, brings_wei=self._brings_wei)
                tools.counters["votes_committed"] += 1
                sent = True
        return sent

    async def _reveal(self, numbers: list[int]) -> None:
        tools, record = self.tools, self.record
        assert record.vote is not None
        for number in numbers:
            salt = record.salt(tools.key, number)
            call = tools.court.reveal(record.line.case, number, record.vote.result, salt, brings_wei=self._brings_wei)
            if await tried("reveal", call):
                tools.counters["votes_unserved" if record.vote.result == UNSERVED else "votes_revealed"] += 1

    # What follows.

    async def _after(self, found: Case) -> None:
        """The votes are counted, or others are called; the pay comes with the ruling."""
        line = self.record.line
        if found.state is CaseState.RULED:
            raise Over(await self._outcome(found))
        decided = found.first_round == line.round and (found.state is CaseState.APPEALABLE or found.appealed)
        if not decided:
            raise Over("redrawn")
        if self._now > found.deadline + self.terms.case_s:
            raise Over("left")  # nobody moves the case on; what it owes is drawn whenever somebody does
        if found.state is CaseState.APPEALABLE:
            await self._move_on(found, self._now > found.deadline)
        elif found.state is CaseState.VOTING:  # on the appeal, which is its own panel's to count, if it is there
            await self._move_on(found, self._now > found.reveal_until)

    async def _move_on(self, found: Case, due: bool) -> None:
        """Anybody may; members take turns, so that only one of them pays for it."""
        if not due:
            self._due_since = None
            return
        now = trio.current_time()
        self._due_since = now if self._due_since is None else self._due_since
        first = min(number for number, _ in self.record.line.places)
        if now >= self._due_since + first * TURN_LOOKS * look_s(self.terms):
            call = self.tools.court.advance(self.record.line.case, brings_wei=self._brings_wei)
            if await tried("advance", call):
                self.tools.counters["cases_advanced"] += 1

    async def _outcome(self, found: Case) -> str:
        line = self.record.line
        appeal = found.appealed and line.round > found.first_round
        if line.round != (found.round if appeal else found.first_round) or found.ruling is Ruling.NO_QUORUM:
            return "redrawn"
        size = self.terms.appeal_panel if appeal else self.terms.panel
        ballots = await self.tools.court.ballots(line.case, line.round, size)
        votes = {ballots[number].vote for number, _ in line.places if self._is_mine(ballots[number])}
        if not votes - {Vote.NONE}:
            return "silent"
        return "right" if votes & RIGHT[found.ruling] else "wrong"
