"""One call of an auditor: the AuditOrder, its waits, the Open in answer to a commitment, and the Verdict.

The worker's opening leaves this node only in answer to a commitment that is on disk. This module does not decide whom
to call or what a verdict means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from tallymesh import exchange, units
from tallymesh.errors import RemoteError
from tallymesh.exchange import INLINE_BYTES, AuditRequest, Nothing, OpenAnswer
from tallymesh.messages import AuditCommit, AuditOrder, Open, Result, Verdict
from tallymesh_ledger import keys, sampling, waits
from tallymesh_ledger.audit import Audit, CallState, Order
from tallymesh_ledger.seat import ClosedTally
from tallymesh_ledger.waits import Step
from tallymesh_node.payer import losses
from tallymesh_node.payer.book import Calling
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.records import Called, Committed, Handed, Judged, Silent

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

REQUEST_S = 10.0
OK = exchange.encode(Nothing())


class Calls:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._sent: set[bytes] = set()  # AuditOrders that their auditor has
        self._since: dict[bytes, float] = {}  # when the present wait for an auditor began

    def fee(self, held: Held) -> int:
        return held.lease.price * self.driver.tools.parameters.auditor_fee_bp // sampling.BP

    # One call.

    async def order(
        self, held: Held, closed: ClosedTally, position: int, audit: Audit, orders: Sequence[Order]
    ) -> None:
        tools = self.driver.tools
        wait = waits.seconds(Step.AUDIT_COMMIT, tools.parameters, work_ms=held.lease.work_ms)
        messages = [
            AuditOrder(
                seat=held.id,
                tally=closed.range.number,
                position=position,
                unit_id=held.seat.assigned[position],
                reason=audit.reason_of(order.draw),
                draw=order.draw,
                attempt=order.attempt,
                auditor=order.auditor,
                fee=self.fee(held),
                commit_by=tools.chain.block_time() + int(wait) + 1,
            )
            for order in orders
        ]
        await self.driver.commit(*[Called(self.driver.sign(message).body) for message in messages])

    def wait(self, calling: Calling) -> None:
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
        template = await losses.template(self.driver)
        if calling.audit.outcome is not None:
            return  # decided without it while the disk was slow: what it needs may be gone with the Accept
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

    def _find(self, digest: bytes, peer: str) -> Calling:
        calling = self.driver.book.calls.get(digest)
        if calling is None:
            raise RemoteError("unknown_audit", "This payer gave no such AuditOrder.", peer=peer)
        return calling

    async def committed(self, peer: str, data: bytes, digest: bytes) -> bytes:
        """An AuditCommit is answered with the worker's opening, and never anything before it."""
        driver, calling = self.driver, self._find(digest, peer)
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
        driver, calling = self.driver, self._find(digest, peer)
        signed = keys.open_signed(driver.tools.domains, data, Verdict, calling.call.auditor, peer=peer)
        if signed.message.result not in set(Result):
            raise RemoteError("bad_verdict", "The result is none of those that there are.", peer=peer)
        await driver.commit(Judged(data))
        await self.strike()
        if calling.call.state is CallState.SILENT:
            raise RemoteError("bad_verdict", "The verdict does not open its commitment.", peer=peer)
        return OK

    async def strike(self) -> None:
        await self.driver.trust.strike(self.driver.book.struck, "Its verdict was outvoted or contradicted itself.")
