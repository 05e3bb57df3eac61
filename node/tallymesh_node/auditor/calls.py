"""Whether this node was really called: everything that an AuditRequest says is checked against signatures, the
template and the Registry, and nothing is believed (docs/PROTOCOL.md sections 5.2 to 5.4).

Pure: the caller brings the Registry of the block that the Tally names. This module does not run or fetch anything.
"""

from __future__ import annotations

import msgspec

from tallymesh import plan, units, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import AuditRequest
from tallymesh.ids import JobId
from tallymesh.messages import Assign, AuditOrder, Auditors, AuditReason, Lease, Order, Tally
from tallymesh.parameters import Parameters
from tallymesh.units import JobSpec, Unit
from tallymesh.wire import Signed
from tallymesh_ledger import keys, sampling
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.registry import RegistryAt

BLOCK_AGE_FACTOR = 2  # the Tally's block was fresh when it was signed; audits of it may be called this much later
CONFIRMING_DRAWS = (1, 2)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose signatures hold and whose parts belong together."""

    digest: bytes  # of the AuditOrder: its name everywhere
    audit_order: AuditOrder
    order: Order
    job: JobId
    lease: Lease
    tally: Tally
    unit: Unit
    seed: bytes

    @property
    def index(self) -> int:
        """Place of the unit within its tally."""
        return self.audit_order.position - self.tally.start

    def probe_key(self) -> bytes:
        return sampling.probe_key(self.seed, self.index, self.audit_order.draw, self.audit_order.auditor)


def read(domains: Domains, request: AuditRequest, *, peer: str) -> Call:
    """Signatures and how the parts fit. RemoteError names the first thing that is wrong."""

    def require(holds: bool, code: str, sentence: str) -> None:
        if not holds:
            raise RemoteError(code, sentence, peer=peer)

    signed_order = wire.decode(request.order, Order, peer=peer)
    order: Order = signed_order.message
    keys.check(domains, signed_order, order.payer, peer=peer)
    signed = keys.open_signed(domains, request.audit_order, AuditOrder, order.signer, peer=peer)
    called: AuditOrder = signed.message
    signed_lease = wire.decode(request.lease, Lease, peer=peer)
    lease: Lease = signed_lease.message
    # The signer's word for the lease is its AuditOrder, which names the lease's digest as the seat.
    keys.check(domains, signed_lease, lease.worker, peer=peer)
    job = job_id(domains, order)
    seat = seat_id(domains, lease)
    require(lease.job == job, "wrong_job", "The lease is not for a job of this order.")
    require(called.seat == seat, "wrong_seat", "The AuditOrder names another seat than the lease's.")
    tally = _tally(domains, request.tally, order, lease, peer)
    require(tally.seat == seat and tally.number == called.tally, "wrong_tally", "The Tally is not the one named.")
    require(tally.start <= called.position < tally.start + tally.count, "wrong_position", "Not in this tally.")
    require(tally.start + tally.count <= lease.positions, "wrong_tally", "The tally has more units than the lease.")
    assign: Assign = keys.open_signed(domains, request.assign, Assign, order.signer, peer=peer).message
    require((assign.seat, assign.position) == (seat, called.position), "wrong_assign", "Assign of another position.")
    unit = units.decode_unit(request.unit, peer=peer)
    name = units.unit_id(unit)
    require(name == called.unit_id == assign.unit_id, "wrong_unit", "The unit is not the one that was assigned.")
    known = {1: lease.secret_1, 2: lease.secret_2}.get(tally.number)
    fits = known is None or sampling.secret_hash(request.secret) == known
    require(len(request.secret) == 32 and fits, "bad_secret", "The secret is not the one whose hash was signed.")
    return Call(
        digest=domains.digest(called),
        audit_order=called,
        order=order,
        job=job,
        lease=lease,
        tally=tally,
        unit=unit,
        seed=sampling.tally_seed(seat, tally.number, tally.root, request.secret),
    )


def _tally(domains: Domains, data: bytes, order: Order, lease: Lease, peer: str) -> Tally:
    """By the worker, or by the signer in its place."""
    signed: Signed = wire.decode(data, Tally, peer=peer)
    try:
        keys.check(domains, signed, lease.worker, peer=peer)
    except RemoteError:
        keys.check(domains, signed, order.signer, peer=peer)
    tally: Tally = signed.message
    if tally.count < 1 or (tally.number == 1) != (tally.start == 0) or (tally.number == 1 and tally.count != 1):
        raise RemoteError("bad_tally", "Tally 1 is the first unit alone, and a tally is not empty.", peer=peer)
    return tally


def check(call: Call, spec: JobSpec, registry: RegistryAt, parameters: Parameters, *, now: int, me: bytes) -> None:
    """That this account was drawn for this unit, at this fee, in time. RemoteError says why not."""
    order, called = call.order, call.audit_order
    if called.auditor != me:
        raise RemoteError("wrong_auditor", "The AuditOrder calls another account.")
    if order.auditors == Auditors.PAYER:
        raise RemoteError("not_drawn", "The order keeps its audits to the payer's own node.")
    if now * 1000 + call.lease.work_ms > called.commit_by * 1000:
        raise RemoteError("too_late", "The unit's declared work does not fit before the commitment is due.")
    fee = call.lease.price * parameters.auditor_fee_bp // sampling.BP
    if called.fee != fee:
        raise RemoteError("wrong_fee", f"The fee is {called.fee} wei, not {fee}.")
    if not plan.belongs(spec, call.unit) or spec.profile != order.numeric_profile:
        raise RemoteError("foreign_unit", "The unit does not belong to the order's template.")
    stages = [s for s in spec.stages if (s.entry, s.config) == (call.unit.entry, call.unit.config)]
    if all(stage.work_ms != call.lease.work_ms for stage in stages):
        raise RemoteError("foreign_unit", "The unit is of another stage than the lease declares.")
    if registry.block_time < now - BLOCK_AGE_FACTOR * parameters.block_age_max_s:
        raise RemoteError("old_block", "The block that the Tally names is too old to draw auditors from.")
    _unit_drawn(call)
    _auditor_drawn(call, registry, me)


def _unit_drawn(call: Call) -> None:
    """That the seed, or a reason which needs none, calls for this unit."""
    called, tally = call.audit_order, call.tally
    if called.reason == AuditReason.CONFIRM:
        if called.draw not in CONFIRMING_DRAWS:
            raise RemoteError("not_drawn", "Draws 1 and 2 confirm a mismatch.")
        return
    if called.draw != 0:
        raise RemoteError("not_drawn", "The first auditor of a unit is draw 0.")
    if called.reason == AuditReason.FIRST:
        if tally.number != 1:
            raise RemoteError("not_drawn", "Only a seat's first unit is audited as such.")
    elif called.reason == AuditReason.DRAWN:
        k = sampling.sample_count(call.seed, tally.count, call.order.audit_rate_bp)
        if call.index not in sampling.draw_units(call.seed, tally.count, k):
            raise RemoteError("not_drawn", f"Position {called.position} is not among the {k} drawn ones.")
    elif called.reason != AuditReason.FORCED:
        raise RemoteError("bad_message", f"Reason {called.reason} is unknown.")


def _auditor_drawn(call: Call, registry: RegistryAt, me: bytes) -> None:
    """That the attempt hits a slot of ours, and that we may audit this worker at all."""
    called, lease = call.audit_order, call.lease
    total = len(registry.slots)
    if total == 0 or called.attempt >= sampling.MAX_ATTEMPTS:
        raise RemoteError("not_drawn", f"Attempt {called.attempt} is beyond {sampling.MAX_ATTEMPTS}, or no slots.")
    slot = sampling.auditor_slot(call.seed, call.index, called.draw, called.attempt, total)
    if registry.slots[slot] != me:
        raise RemoteError("not_drawn", f"Attempt {called.attempt} hits slot {slot}, which is not this account's.")
    admissible = registry.admissible(
        payer=call.order.payer,
        signer=call.order.signer,
        worker=lease.worker,
        numeric_class=lease.numeric_class,
        excluded=(),
    )
    if me not in admissible:
        raise RemoteError("not_admissible", "This account is a party of the job, or of another numeric class.")
