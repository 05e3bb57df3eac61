"""From a shown secret to an Accept or a conviction: calls the drawn auditors, keeps their time, counts their words.

What follows from an answer is decided by tallymesh_ledger.audit; this module signs, sends and waits.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from tallymesh import exchange, units
from tallymesh.api import Problem
from tallymesh.errors import RemoteError
from tallymesh.exchange import (
    INLINE_BYTES,
    AcceptRequest,
    AuditRequest,
    ForfeitRequest,
    Nothing,
    OpenAnswer,
    ReleaseAnswer,
)
from tallymesh.ids import BlobId
from tallymesh.messages import Accept, AuditCommit, AuditOrder, Open, Release, Result, Verdict
from tallymesh.wire import Signed
from tallymesh_ledger import keys, sampling, waits
from tallymesh_ledger.audit import Audit, CallState, Order, Outcome, Recompute, Stuck
from tallymesh_ledger.registry import RegistryAt
from tallymesh_ledger.seat import ClosedTally
from tallymesh_ledger.waits import Step
from tallymesh_node.payer.book import Calling
from tallymesh_node.payer.held import AT_WORK, Held
from tallymesh_node.payer.own import NO_OUTPUT
from tallymesh_node.payer.records import (
    Accepted,
    Called,
    Committed,
    Forfeited,
    Handed,
    Judged,
    Recomputed,
    Released,
    Shown,
    Silent,
)

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

REGISTRIES = 8  # kept, by block: tallies of one job name a handful
REQUEST_S = 10.0
OK = exchange.encode(Nothing())


class Auditing:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._registries: OrderedDict[tuple[int, bytes], RegistryAt] = OrderedDict()
        self._sent: set[bytes] = set()  # AuditOrders that their auditor has
        self._since: dict[bytes, float] = {}  # when the present wait for an auditor began
        self._stuck: set[tuple[bytes, int]] = set()

    def problems(self) -> list[Problem]:
        if not self._stuck:
            return []
        return [
            Problem(
                code="no_auditors",
                sentence=f"{len(self._stuck)} units cannot be audited: too few staked accounts may do it, and this "
                "node cannot recompute them itself.",
                remedy="Wait for more staked peers of this numeric class, or let the payer's node run units.",
            )
        ]

    def reconcile(self) -> None:
        self._stuck.clear()
        driver = self.driver
        for held in driver.book.all():
            if held.state not in AT_WORK:
                continue
            if held.convicted:
                if "forfeit" not in held.live.told:
                    driver.doing.start(("forfeited", held.id), self._tell_forfeit, held)
                continue
            pending = held.pending_tallies()
            for place, closed in enumerate(pending):
                if not closed.secret:
                    driver.doing.start(("show", held.id, closed.range.number), self._show, held, closed.range.number)
                elif self._tally(held, closed) and place == 0:
                    driver.doing.start(("accept", held.id), self._accept, held, closed)
            if any(f"accept:{n}" not in held.live.told for n in range(1, len(held.accepts) + 1)):
                driver.doing.start(("deliver", held.id), self.deliver, held)

    async def registry(self, number: int, block_hash: bytes) -> RegistryAt:
        """As of the block that a Tally names. RemoteError `wrong_block` where the chain has another one there."""
        found = self._registries.get((number, block_hash))
        if found is None:
            found = await self.driver.tools.chain.registry_at(number, block_hash)
            self._registries[number, block_hash] = found
            while len(self._registries) > REGISTRIES:
                self._registries.popitem(last=False)
        return found

    # One tally.

    def _tally(self, held: Held, closed: ClosedTally) -> bool:
        """Go on with its audits; True when all of them found the work sound."""
        driver, message = self.driver, closed.message
        registry = self._registries.get((message.block_number, message.block_hash))
        if registry is None:
            driver.doing.start(
                ("registry", message.block_hash), self._registry, message.block_number, message.block_hash
            )
            return False
        sound = True
        for position in range(closed.range.start, closed.range.end):
            if position in held.unchecked:
                sound = False  # its loss check may still force an audit
            audit = held.audits.get(position)
            if audit is None or audit.outcome is Outcome.SOUND:
                continue
            if audit.outcome is Outcome.UNDECIDED:
                # The payer answers for its program: the tally is paid, nobody is at fault, and the job ends.
                if driver.book.ending is None:
                    driver.doing.start(("undecided",), self._undecided)
                continue
            sound = False
            if audit.outcome is Outcome.CONVICTED:
                driver.doing.start(("forfeit", held.account), self._forfeit, held, position, audit)
                return False
            self._audit(held, closed, position, audit, registry)
        return sound

    async def _registry(self, number: int, block_hash: bytes) -> None:
        await self.registry(number, block_hash)

    async def _show(self, held: Held, number: int) -> None:
        await self.driver.commit(Shown(held.id, number))

    def _audit(self, held: Held, closed: ClosedTally, position: int, audit: Audit, registry: RegistryAt) -> None:
        driver = self.driver
        for call in audit.open_calls():
            self._wait(driver.book.calls[driver.book.orders[held.id, position, call.auditor]])
        if not audit.idle:
            return
        own = driver.own.judges
        excluded = driver.trust.struck
        if own:  # an auditor that kept silent lately is spared while this node can do without it
            excluded = excluded | set(driver.trust.resting("auditor"))
        admissible = driver.book.admissible(held, position, registry, excluded=excluded)
        if driver.book.free_reserve < 3 * self._fee(held):
            admissible = set()  # what is promised to auditors must be there, confirmations included
        for action in audit.next(registry, admissible, own=own):
            if isinstance(action, Order):
                driver.doing.start(("call", held.id, position, action.draw), self._call, held, closed, position, action)
            elif isinstance(action, Recompute):
                key = ("recompute", held.id, position)
                driver.doing.start(key, self._recompute, held, position, audit, action.draws)
            elif audit.tied:
                # Three different ends, and this node cannot side with any: it has no result, so nothing agrees.
                key = ("recompute", held.id, position)
                driver.doing.start(key, driver.commit, Recomputed(held.id, position, NO_OUTPUT, ()))
            else:
                assert isinstance(action, Stuck)
                self._stuck.add((held.id, position))

    def _fee(self, held: Held) -> int:
        return held.lease.price * self.driver.tools.parameters.auditor_fee_bp // sampling.BP

    async def _recompute(self, held: Held, position: int, audit: Audit, draws: tuple[int, ...]) -> None:
        if audit.own_end is None:
            await self.driver.own.recompute(held, position, draws)
        else:
            await self.driver.commit(Recomputed(held.id, position, audit.own_end, draws))
        await self._strike()

    # One call.

    async def _call(self, held: Held, closed: ClosedTally, position: int, action: Order) -> None:
        driver, tools = self.driver, self.driver.tools
        wait = waits.seconds(Step.AUDIT_COMMIT, tools.parameters, work_ms=held.lease.work_ms)
        audit = held.audits[position]
        if any(call.draw == action.draw for call in audit.open_calls()) or audit.outcome is not None:
            return
        order = AuditOrder(
            seat=held.id,
            tally=closed.range.number,
            position=position,
            unit_id=held.seat.assigned[position],
            reason=audit.reason_of(action.draw),
            draw=action.draw,
            attempt=action.attempt,
            auditor=action.auditor,
            fee=self._fee(held),
            commit_by=tools.chain.block_time() + int(wait) + 1,
        )
        await driver.commit(Called(driver.sign(order).body))

    def _wait(self, calling: Calling) -> None:
        """Send the order, and end the wait when its time is over."""
        driver, tools = self.driver, self.driver.tools
        message: AuditOrder = calling.order.message
        digest = driver.book.orders[message.seat, message.position, message.auditor]
        now = trio.current_time()
        if calling.call.state is CallState.ORDERED:
            if tools.chain.block_time() > message.commit_by:
                self._silence(digest, "It committed to nothing in time.")
            elif digest not in self._sent:
                driver.doing.start(("audit", digest), self._send, calling, digest)
            return
        # Committed or opened: a restart begins this wait anew.
        since = self._since.setdefault(digest, now)
        limit = waits.seconds(Step.OPEN, tools.parameters) + waits.seconds(Step.VERDICT, tools.parameters)
        if now - since > limit:
            self._silence(digest, "It gave no verdict after its commitment was opened.")

    def _silence(self, digest: bytes, sentence: str) -> None:
        self.driver.doing.start(("silent", digest), self._silent, digest, sentence)

    async def _silent(self, digest: bytes, sentence: str) -> None:
        calling = self.driver.book.calls[digest]
        await self.driver.commit(Silent(digest, sentence))
        self.driver.trust.rest("auditor", calling.call.auditor, sentence)

    async def _send(self, calling: Calling, digest: bytes) -> None:
        tools, book = self.driver.tools, self.driver.book
        message, held = calling.order.message, calling.held
        source = tools.offers.source_of(message.auditor)
        if source is None:
            await self._silent(digest, "No offer of it is known: it cannot be reached.")
            return
        closed = held.seat.tallies[message.tally - 1]
        await self.driver.durable()
        template = tools.blobs.get(BlobId(book.order.template))
        assert held.agreed is not None
        request = AuditRequest(
            audit_order=calling.order.body,
            order=book.order_signed.body,
            lease=held.agreed.body,
            tally=held.tallies[message.tally - 1],
            secret=closed.secret,
            assign=held.assigns[message.position],
            unit=units.encode(held.units[message.position]),
            spec=template if len(template) <= INLINE_BYTES else b"",
            sources=(tools.source, held.peer),
        )
        try:
            await tools.network.request(source, request.NAME, exchange.encode(request), timeout_s=REQUEST_S)
        except RemoteError as error:
            await self._silent(digest, f"{error.code}: {error.sentence}")
            return
        self._sent.add(digest)

    # What auditors send.

    def _calling(self, digest: bytes, peer: str) -> Calling:
        calling = self.driver.book.calls.get(digest)
        if calling is None:
            raise RemoteError("unknown_audit", "This payer gave no such AuditOrder.", peer=peer)
        return calling

    async def committed(self, peer: str, data: bytes, digest: bytes) -> bytes:
        """An AuditCommit is answered with the worker's opening, and never anything before it."""
        driver, calling = self.driver, self._calling(digest, peer)
        signed = keys.open_signed(driver.tools.domains, data, AuditCommit, calling.call.auditor, peer=peer)
        if calling.commit is None or calling.open is None:
            opening = calling.held.seat.openings[calling.order.message.position]
            opened = Open(
                audit_order=digest,
                commit=driver.tools.domains.digest(signed.message),
                end=opening.end,
                salt=opening.salt,
                aux=opening.aux,
                recheck=sampling.secret_hash(driver.book.secrets.recheck(digest)),
            )
            await driver.commit(Committed(data), Handed(driver.sign(opened).body))
            self._since[digest] = trio.current_time()
        elif calling.commit.message != signed.message:
            raise RemoteError("two_commits", "This auditor committed to something else before.", peer=peer)
        await driver.durable()  # a repeat may come while the first is still being written
        assert calling.open is not None
        return exchange.encode(OpenAnswer(calling.open.body))

    async def judged(self, peer: str, data: bytes, digest: bytes) -> bytes:
        driver, calling = self.driver, self._calling(digest, peer)
        signed = keys.open_signed(driver.tools.domains, data, Verdict, calling.call.auditor, peer=peer)
        if signed.message.result not in set(Result):
            raise RemoteError("bad_verdict", "The result is none of those that there are.", peer=peer)
        await driver.commit(Judged(data))
        await self._strike()
        if calling.call.state is CallState.SILENT:
            raise RemoteError("bad_verdict", "The verdict does not open its commitment.", peer=peer)
        return OK

    async def _strike(self) -> None:
        await self.driver.trust.strike(self.driver.book.struck, "Its verdict was outvoted or contradicted itself.")

    # What follows.

    async def _undecided(self) -> None:
        await self.driver.closing.fail(
            "not_deterministic",
            "Recomputations of one unit gave three different results: the program is not a pure function of its inputs "
            "and seed.",
            "",
            remedy="Take time, randomness without the unit's seed, and the order of sets out of the program.",
        )

    async def _accept(self, held: Held, closed: ClosedTally) -> None:
        driver, number = self.driver, closed.range.number
        if closed.accepted or held.convicted:
            return
        accept = Accept(
            seat=held.id,
            tally=number,
            units=closed.range.end,
            chain=closed.chain,
            next_secret=sampling.secret_hash(driver.book.secrets.of(held.lease, number + 2)),
        )
        await driver.commit(Accepted(driver.sign(accept).body))

    async def deliver(self, held: Held) -> None:
        """Accepts that the worker has not acknowledged, in order; the answer may be its Release."""
        for number, accept in enumerate(held.accepts, 1):
            if f"accept:{number}" not in held.live.told:
                await self.deliver_one(held, accept)
                held.live.told.add(f"accept:{number}")

    async def deliver_one(self, held: Held, accept: Signed) -> None:
        tools = self.driver.tools
        await self.driver.durable()
        request = AcceptRequest(accept.body)
        body = await tools.network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=REQUEST_S)
        answer = exchange.decode(body, ReleaseAnswer, peer=held.peer.peer_id)
        if answer.release and held.release is None:
            keys.open_signed(tools.domains, answer.release, Release, held.account, peer=held.peer.peer_id)
            await self.driver.commit(Released(answer.release))

    async def _forfeit(self, held: Held, position: int, audit: Audit) -> None:
        if held.convicted:
            return
        driver = self.driver
        reason = audit.subject.reason.name.lower()
        by = "the payer's own node" if audit.by_payer else "drawn auditors"
        sentence = f"Unit {position} was recomputed by {by} ({reason}) with another result."
        check = f"recomputation:{reason}:{'payer' if audit.by_payer else 'auditors'}"
        await driver.commit(Forfeited(held.id, position, check, sentence))
        await driver.trust.convict(held.account, sentence)
        await self._strike()

    async def _tell_forfeit(self, held: Held) -> None:
        assert held.problem is not None
        verdicts = [
            calling.verdict.body
            for calling in self.driver.book.calls.values()
            if calling.verdict is not None
            and calling.held.account == held.account
            and calling.call.result is Result.MISMATCH
        ]
        code, sentence = held.problem
        await self.driver.durable()
        request = ForfeitRequest(held.id, code, sentence, tuple(verdicts[:3]))
        await self.driver.tools.network.request(held.peer, request.NAME, exchange.encode(request), timeout_s=REQUEST_S)
        held.live.told.add("forfeit")
