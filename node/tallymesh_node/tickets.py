"""Why a peer may have a blob of a job: the ticket that it shows (docs/PROTOCOL.md section 5.9).

A ticket is a signed message in its wire form, so that whoever holds the blob can judge it alone and at once: the Lease
under the signer's signature (a worker of the job), or the AuditOrder (an auditor that was called for one of its
units). Both name an account; the caller holds that against the account of the peer that asks.
"""

from __future__ import annotations

from tallymesh import wire
from tallymesh.errors import RemoteError
from tallymesh.messages import AuditOrder, Lease
from tallymesh_ledger import keys
from tallymesh_ledger.eip712 import Domains

MAX_TICKET_BYTES = wire.MAX_MESSAGE_BYTES


def entitled(domains: Domains, ticket: bytes, *, job: bytes, signer: bytes) -> bytes | None:
    """The account to which `ticket` gives the blobs of `job`, or None. `signer` is the job's: its signature on an
    AuditOrder means this job, because the key signs for no other."""
    for kind in (Lease, AuditOrder):
        try:
            signed = keys.open_signed(domains, ticket, kind, signer)
        except RemoteError:
            continue
        message = signed.message
        if isinstance(message, Lease):
            return message.worker if message.job == job else None
        assert isinstance(message, AuditOrder)
        return message.auditor
    return None


def audit_order_seat(ticket: bytes) -> bytes | None:
    """The seat that an AuditOrder names, before its signature is checked; None for any other ticket."""
    try:
        return bytes(wire.decode(ticket, AuditOrder).message.seat)
    except RemoteError:
        return None
