"""Who may fetch a blob from this worker: the job's payer, and whoever shows a Lease of that job or an AuditOrder by its
signer, if the account that the ticket names is bound to the peer that shows it. Nobody else.

A blob that belongs to no job of this worker is not its to give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tallymesh.ids import BlobId
from tallymesh_node.tickets import entitled
from tallymesh_node.worker.tools import Tools, Work

AccountOf = Callable[[str], bytes | None]  # the account that a valid PeerBinding gives a peer, None for unknown ones


class Access:
    def __init__(self, tools: Tools, works: Callable[[], Iterable[Work]], account_of: AccountOf) -> None:
        self._tools = tools
        self._works = works
        self._account_of = account_of

    def may_fetch(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        """At once and without asking anybody: a stranger's question must cost little."""
        holding = [work.record for work in self._works() if blob in work.record.blobs]
        if any(record.payer.peer_id == peer_id for record in holding):
            return True
        if not holding or not ticket:
            return False
        account = self._account_of(peer_id)
        if account is None:
            return False
        jobs = {(record.lease.job, record.order.signer) for record in holding}
        domains = self._tools.domains
        return any(entitled(domains, ticket, job=job, signer=signer) == account for job, signer in jobs)
