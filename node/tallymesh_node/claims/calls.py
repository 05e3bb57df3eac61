"""Whether what a worker answered is the unit that an auditor was drawn for: everything is checked against the claim on
chain, and nothing is believed.

The seat's id proves the lease, the lease's job proves the order, the signer's Assign proves the unit. Pure.
"""

from __future__ import annotations

import msgspec

from tallymesh import plan, units, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import ClaimUnitAnswer
from tallymesh.ids import JobId
from tallymesh.messages import Assign, Lease, Order
from tallymesh.units import JobSpec, Unit
from tallymesh_ledger import keys
from tallymesh_ledger.claims import Claim
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import job_id, seat_id


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A unit of the claim's sample, and the terms under which it was run."""

    order: Order
    job: JobId
    lease: Lease
    position: int
    index: int  # within the claim
    unit: Unit


def terms_of(domains: Domains, seat: bytes, order: bytes, lease: bytes, *, peer: str) -> tuple[Order, JobId, Lease]:
    """What a seat was agreed for, as somebody shows it. Whoever signed it: the seat's id proves the lease, the lease's
    job the order. RemoteError where one of them is another."""
    shown: Lease = wire.decode(lease, Lease, peer=peer).message
    if seat_id(domains, shown) != seat:
        raise RemoteError("wrong_seat", "The lease is not that of the seat.", peer=peer)
    bought: Order = wire.decode(order, Order, peer=peer).message
    job = job_id(domains, bought)
    if shown.job != job:
        raise RemoteError("wrong_job", "The order is not that of the lease's job.", peer=peer)
    return bought, job, shown


def read(domains: Domains, claim: Claim, sample: int, answer: ClaimUnitAnswer, *, peer: str) -> Call:
    """RemoteError names the first thing that is wrong."""

    def require(holds: bool, code: str, sentence: str) -> None:
        if not holds:
            raise RemoteError(code, sentence, peer=peer)

    order, job, lease = terms_of(domains, claim.seat, answer.order, answer.lease, peer=peer)
    assign: Assign = keys.open_signed(domains, answer.assign, Assign, order.signer, peer=peer).message
    position = claim.positions()[sample]
    require((assign.seat, assign.position) == (claim.seat, position), "wrong_assign", "Assign of another position.")
    unit = units.decode_unit(answer.unit, peer=peer)
    require(units.unit_id(unit) == assign.unit_id, "wrong_unit", "The unit is not the one that was assigned.")
    return Call(order=order, job=job, lease=lease, position=position, index=position - claim.from_, unit=unit)


def check(call: Call, spec: JobSpec, *, peer: str) -> None:
    """That the order pays for this unit. RemoteError why not."""
    if not plan.belongs(spec, call.unit) or spec.profile != call.order.numeric_profile:
        raise RemoteError("foreign_unit", "The unit does not belong to the order's template.", peer=peer)
    stages = [stage for stage in spec.stages if (stage.entry, stage.config) == (call.unit.entry, call.unit.config)]
    if all(stage.work_ms != call.lease.work_ms for stage in stages):
        raise RemoteError("foreign_unit", "The unit is of another stage than the lease declares.", peer=peer)
