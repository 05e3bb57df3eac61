"""One sample that this account was drawn for, from the draw to the pay, going on from wherever its journal stands.

The commitment is on disk before it is sent, and nothing of the worker's output is known before it is on chain. What the
leaf says is revealed by the worker; what this node found is revealed then, whatever it is: silence would cost the bond.
A Mismatch goes before the Court, which is not this module's.
"""

from __future__ import annotations

import trio

from tallymesh import exchange
from tallymesh.errors import ChainError
from tallymesh.ids import ZERO32
from tallymesh.messages import Lease
from tallymesh_ledger import claims, sampling
from tallymesh_ledger.claims import Claim, ClaimState, Heard, Sample, Terms
from tallymesh_node.claims.finding import Finding
from tallymesh_node.claims.moves import move_on
from tallymesh_node.claims.record import AuditRecord, CommitLine, Line
from tallymesh_node.claims.tools import Tools, grace_s, look_s
from tallymesh_node.duties import Duty, Over

OWN_SHARE = 0.8  # of a rank's window: what could not be had by then is UNAVAILABLE, and the commitment still gets there
GAS_SHARE = 2  # of both its transactions' gas, that of the commitment
UNAVAILABLE_SHARE = 10
LAST = ("unavailable", "match", "mismatch")


class Auditing(Duty[Tools, AuditRecord]):
    COUNTED = "audits"

    def __init__(self, tools: Tools, terms: Terms, record: AuditRecord) -> None:
        super().__init__(tools, record, look_s(terms))
        self.terms = terms
        self._lease: Lease | None = None

    async def _step(self) -> None:
        """The next thing that is due, by journal and chain."""
        record = self.record
        found = await self._claim()
        if found is None:
            return
        sample = (await self.tools.claims.samples(record.line.claim, found.k))[record.line.sample]
        mine = sample.auditor == self.tools.key.address
        if record.commit is None and mine:
            await self._recall(found, sample)
        elif record.commit is None:
            await self._find(found, sample)
        elif found.state is ClaimState.SAMPLING and not mine:
            await self._commit(found, sample)
        elif not mine:
            raise Over("taken")
        elif found.state is ClaimState.REVEALING and sample.heard is Heard.COMMITTED and self._now <= found.deadline:
            await self._reveal(found)
        elif found.state.ended:
            raise Over(_outcome(found, sample))
        else:
            await self._move_on(found, sample)

    async def _claim(self) -> Claim | None:
        """As the chain has it under this draw's seed; None for a while after a reorganisation."""
        found = await self.tools.claims.claim_of(self.record.line.claim)
        return found if self._still(found is not None and found.seed == self.record.line.seed) else None

    async def _lease_of(self, found: Claim) -> Lease | None:
        if self._lease is None:
            self._lease = await self.tools.claims.lease_of(self.record.line.claim, found.block_number)
        return self._lease

    async def _move_on(self, found: Claim, sample: Sample) -> None:
        """What the worker should do, and did not, where this account gets something by it."""
        lease, line = await self._lease_of(found), self.record.line
        if lease is None:
            return
        brings = found.bond if sample.heard in (Heard.COMMITTED, Heard.DISPUTED) else 0
        brings += found.audit_fee // (UNAVAILABLE_SHARE if sample.heard is Heard.UNAVAILABLE else 1)
        try:
            await move_on(self.tools, lease, line.claim, found, brings_wei=brings, grace_s=grace_s(self.terms))
        except ChainError as error:
            if error.code == "not_worth_gas":
                raise Over("not_worth_gas") from None  # whoever has more at stake concludes it
            raise

    # Finding out.

    async def _find(self, found: Claim, sample: Sample) -> None:
        """Run the unit in this rank's time, and keep what comes out."""
        record, until = self.record, self.terms.commit_by(found)
        if found.state is not ClaimState.SAMPLING or sample.taken or self._now >= until:
            raise Over("taken" if sample.taken else "late")
        if self._now < self.terms.rank_from(found, record.line.rank):
            return  # an auditor of an earlier rank may still do it
        lease = await self._lease_of(found)
        if lease is None:
            raise Over("unknown_lease")
        if not await self.tools.can_put_up(found.bond):
            raise ChainError("no_bond", "The account has too little MESH for an auditor's bond.", reverted=False)
        finding = Finding(self.tools, record.line.claim, found, record.line.sample, lease)
        commit: CommitLine | None = CommitLine(ZERO32, ZERO32, ZERO32, 1)
        lines: list[tuple[str, bytes]] = []
        with trio.move_on_after(self._patience_s(found)):
            call = await finding.fetch()
            lines.append((Line.CALL, exchange.encode(call)))
        if lines:
            with trio.move_on_after(until - self._now) as slow:
                commit = await finding.run()
            if slow.cancelled_caught or commit is None:
                raise Over("own_fault")  # it says nothing about the worker: the next rank may
        assert commit is not None
        if await self._stored(*lines, (Line.COMMIT, exchange.encode(commit))):
            await self._commit(found, sample)

    async def _recall(self, found: Claim, sample: Sample) -> None:
        """The journal was put back from a backup, and the chain has a commitment of this account's, with a bond on it.
        What it says follows from the unit and the key, so it is found again while the worker serves the unit."""
        record, tools = self.record, self.tools
        lease = await self._lease_of(found)
        if found.state is not ClaimState.SAMPLING or lease is None:
            raise Over("forgotten")
        finding = Finding(tools, record.line.claim, found, record.line.sample, lease)
        said = [CommitLine(ZERO32, ZERO32, ZERO32, 1)]
        with trio.move_on_after(max(0, found.deadline - self._now)):
            await finding.fetch()
            again = await finding.run()
            said += [again] if again is not None else []
        for line in said:
            salt = record.salt(tools.key)
            if sampling.commitment(line.end, salt, tools.key.address, line.probe) == sample.commitment:
                await self._stored((Line.COMMIT, exchange.encode(line)))
                return
        raise Over("forgotten")

    def _patience_s(self, found: Claim) -> float:
        """How long to try for the unit and its inputs: until most of a rank's window is over, one's own or, for a node
        that was off, that of a later rank."""
        window, left_s = self.terms.commit_s, self.terms.commit_by(found) - self._now
        into = (self._now - found.sampled_at) % window
        if into < OWN_SHARE * window:
            return OWN_SHARE * window - into
        return left_s / 2 if left_s <= window else window - into + OWN_SHARE * window

    async def _commit(self, found: Claim, sample: Sample) -> None:
        record, tools = self.record, self.tools
        if sample.taken or found.opened or self._now >= self.terms.commit_by(found):
            raise Over("taken" if sample.taken else "late")
        assert record.commit is not None
        pay = found.audit_fee if any(record.commit.end) else found.audit_fee // UNAVAILABLE_SHARE
        try:
            await tools.claims.commit(
                record.line.claim,
                record.draw(tools.key.address),
                record.commitment(tools.key),
                bond=found.bond,
                brings_wei=pay // GAS_SHARE,
            )
        except ChainError as error:
            if error.code == "not_worth_gas":
                raise Over("not_worth_gas") from None
            raise  # the next look at the chain says whether somebody else was first
        tools.counters["commits"] += 1

    async def _reveal(self, found: Claim) -> None:
        record, tools = self.record, self.tools
        assert record.commit is not None
        line, commit = record.line, record.commit
        leaf = await tools.claims.leaf(line.claim, line.sample, found.block_number)
        if leaf is None:
            return
        start, end = leaf
        said = claims.Finding(
            opened_start=start,
            opened_end=end,
            start=commit.start,
            end=commit.end,
            salt=record.salt(tools.key),
            probe=commit.probe,
            steps=commit.steps,
        )
        await tools.claims.reveal(line.claim, line.sample, said)
        what = LAST[0] if not any(commit.end) else LAST[1] if (commit.start, commit.end) == leaf else LAST[2]
        tools.counters[f"reveals_{what}"] += 1


def _outcome(found: Claim, sample: Sample) -> str:
    """How it ended for this auditor."""
    if sample.heard is Heard.COMMITTED:
        return "silent" if found.opened == found.k else "unopened"
    return sample.heard.name.lower()
