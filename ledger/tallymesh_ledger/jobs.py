"""Identities of jobs and seats, as the escrow computes them."""

from __future__ import annotations

from tallymesh.ids import JobId, SeatId
from tallymesh.messages import Lease, Order
from tallymesh_ledger.eip712 import Domains, keccak, struct_hash, word

DOMAIN_JOB = keccak(b"tallymesh.job.1")


def job_id(domains: Domains, order: Order) -> JobId:
    """``keccak(abi.encode(DOMAIN_JOB, chainId, escrow, payer, orderHash, salt))``: known before `open`."""
    escrow = domains.escrow
    parts = (DOMAIN_JOB, escrow.chain_id, escrow.contract, order.payer, struct_hash(order), order.salt)
    return JobId(keccak(b"".join(word(part) for part in parts)))


def seat_id(domains: Domains, lease: Lease) -> SeatId:
    """The digest of the Lease: what both sides signed is the name of the seat."""
    return SeatId(domains.digest(lease))
