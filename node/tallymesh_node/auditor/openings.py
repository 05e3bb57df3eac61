"""Whether an Open is what the signer may show this auditor: for its commitment, and for the worker's leaf where one
leaf is the whole tally."""

from __future__ import annotations

from tallymesh import wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import Opening
from tallymesh.messages import AuditCommit, Open
from tallymesh_ledger import keys, merkle
from tallymesh_ledger.eip712 import Domains
from tallymesh_node.auditor.record import AuditRecord


def check(domains: Domains, record: AuditRecord, data: bytes, *, peer: str) -> Open:
    """The Open in `data`. RemoteError `bad_open` where it is not for this audit, or not the worker's."""
    call = record.call
    assert record.commit is not None
    opened: Open = keys.open_signed(domains, data, Open, call.order.signer, peer=peer).message
    commit = domains.digest(wire.decode(record.commit.commit, AuditCommit).message)
    if opened.audit_order != call.digest or opened.commit != commit:
        raise RemoteError("bad_open", "The Open is for another audit or another commitment.", peer=peer)
    if call.tally.count == 1:
        opening = Opening(call.audit_order.unit_id, call.unit.start, opened.end, opened.salt, opened.aux)
        leaf = merkle.leaf(call.audit_order.seat, call.audit_order.position, opening)
        if merkle.root([leaf]) != call.tally.root:
            raise RemoteError("bad_open", "What was opened is not what the worker tallied.", peer=peer)
    return opened
