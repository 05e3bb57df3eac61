"""Where peers knock: each message finds its job by the seat or the AuditOrder that it names, each blob by its ticket.

What is believed is decided behind, in receiving.py and calling.py. Nothing is answered for a job whose book is ahead of
its journal.
"""

from __future__ import annotations

from collections.abc import Mapping

from tallymesh import exchange, wire
from tallymesh.errors import RemoteError, TallymeshError
from tallymesh.exchange import (
    CommitRequest,
    FailureRequest,
    LeaveRequest,
    ProgressRequest,
    ReceiptRequest,
    TallyRequest,
    VerdictRequest,
)
from tallymesh.ids import BlobId
from tallymesh.messages import AuditCommit, AuditOrder, Lease, Leave, Receipt, Tally, Verdict
from tallymesh_ledger.jobs import seat_id
from tallymesh_node.payer.driver import JobDriver
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.tools import Tools
from tallymesh_node.unit_inputs import names_of


class Doors:
    """`drivers` is the service's own map of jobs: it changes as jobs come and go."""

    def __init__(self, tools: Tools, drivers: Mapping[str, JobDriver]) -> None:
        self._tools = tools
        self._drivers = drivers

    def open(self) -> None:
        serve = self._tools.network.serve
        serve(ReceiptRequest.NAME, self._receipt)
        serve(FailureRequest.NAME, self._failure)
        serve(TallyRequest.NAME, self._tally)
        serve(LeaveRequest.NAME, self._leave)
        serve(ProgressRequest.NAME, self._progress)
        serve(CommitRequest.NAME, self._commit)
        serve(VerdictRequest.NAME, self._verdict)

    def _seat(self, seat: bytes, peer: str) -> tuple[JobDriver, Held]:
        for driver in self._drivers.values():
            held = driver.book.helds.get(seat)
            if held is not None:
                driver.check_disk()
                return driver, held
        raise RemoteError("unknown_seat", f"This payer has no seat {seat[:4].hex()}.", peer=peer)

    async def _receipt(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, ReceiptRequest, peer=peer)
        driver, held = self._seat(wire.decode(request.receipt, Receipt, peer=peer).message.seat, peer)
        return await driver.receiving.receipt(held, peer, request)

    async def _tally(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, TallyRequest, peer=peer)
        driver, held = self._seat(wire.decode(request.tally, Tally, peer=peer).message.seat, peer)
        return await driver.receiving.tally(held, peer, request)

    async def _leave(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, LeaveRequest, peer=peer)
        driver, held = self._seat(wire.decode(request.leave, Leave, peer=peer).message.seat, peer)
        return await driver.receiving.leave(held, peer, request)

    async def _failure(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, FailureRequest, peer=peer)
        driver, held = self._seat(request.seat, peer)
        return await driver.receiving.failure(held, peer, request)

    async def _progress(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, ProgressRequest, peer=peer)
        driver, held = self._seat(request.seat, peer)
        return await driver.receiving.progress(held, peer, request)

    def _audited(self, digest: bytes, peer: str) -> JobDriver:
        for driver in self._drivers.values():
            if digest in driver.book.calls:
                driver.check_disk()
                return driver
        raise RemoteError("unknown_audit", "This payer gave no such AuditOrder.", peer=peer)

    async def _commit(self, peer: str, body: bytes) -> bytes:
        data = exchange.decode(body, CommitRequest, peer=peer).commit
        digest = wire.decode(data, AuditCommit, peer=peer).message.audit_order
        return await self._audited(digest, peer).calling.committed(peer, data, digest)

    async def _verdict(self, peer: str, body: bytes) -> bytes:
        data = exchange.decode(body, VerdictRequest, peer=peer).verdict
        digest = wire.decode(data, Verdict, peer=peer).message.audit_order
        return await self._audited(digest, peer).calling.judged(peer, data, digest)

    # Who may fetch what from this node.

    def may_fetch(self, peer: str, blob: BlobId, ticket: bytes) -> bool:
        """A worker gets what its own units take; an auditor what the unit that it was called for takes, never its
        output; both get the template. The ticket is the Lease, or the AuditOrder, in its wire form."""
        return self._by_lease(peer, blob, ticket) or self._by_audit(peer, blob, ticket)

    def _by_lease(self, peer: str, blob: BlobId, ticket: bytes) -> bool:
        try:
            driver, held = self._seat(seat_id(self._tools.domains, wire.decode(ticket, Lease).message), peer)
        except TallymeshError:
            return False
        return held.peer.peer_id == peer and (blob in held.blobs or blob == driver.book.order.template)

    def _by_audit(self, peer: str, blob: BlobId, ticket: bytes) -> bool:
        try:
            digest = self._tools.domains.digest(wire.decode(ticket, AuditOrder).message)
            driver = self._audited(digest, peer)
        except TallymeshError:
            return False
        calling = driver.book.calls[digest]
        source = self._tools.offers.source_of(calling.call.auditor)
        if source is None or source.peer_id != peer:
            return False
        unit = calling.held.units.get(calling.order.message.position)
        return blob == driver.book.order.template or (unit is not None and blob in names_of(unit))
