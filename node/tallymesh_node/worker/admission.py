"""Whether this node takes a lease: its terms against the node's own current Offer. Pure; every no has a reason.

The caller has checked signatures and that the template is the order's. This module reads no clock and asks nobody.
"""

from __future__ import annotations

import msgspec

from tallymesh import amounts, cards, wheels
from tallymesh.errors import RemoteError
from tallymesh.ids import ZERO32
from tallymesh.messages import Lease, Offer, Order
from tallymesh.parameters import Parameters
from tallymesh.units import JobSpec
from tallymesh_ledger import newcomers
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_scheduler.matching import unit_price_up

MAX_OPEN_LEASES = 64  # seats that this node keeps in memory and reconciles with the chain, a few kilobytes each
MAX_PAYER_LEASES = 16  # of one payer: a job has a seat or two here, and one payer must not fill the house
SEAT_BY_MAX_S = 300  # an agreed lease holds cores and stake until it is seated; a transaction takes less than this
TALLY_FACTOR_MAX = 2  # tallies up to twice the network's size (100 for workers with history): what a payer can owe us


class Refusal(msgspec.Struct, frozen=True):
    """Why not. `code` is for programs and counters, `sentence` for the payer and for the owner of this node."""

    code: str
    sentence: str


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """This node at the moment when it is asked. Amounts in wei, `now` in the chain's seconds."""

    now: int
    offer: Offer | None  # None: paused by its owner, or still being measured
    slots: int
    free_stake: int
    pending_lock: int  # stake of leases that were agreed and are not on chain yet
    open_leases: int
    payer_leases: int  # open ones of this payer
    cores_held: int  # by jobs other than this one
    funds: int | None = None  # wages that the escrow has free for this job, or what its payer can open it with
    unseated_until: float = 0.0  # this payer's leases were agreed and never seated: it is refused until then
    base_only: bool = False  # the owner takes no job that brings packages
    newcomer: Newcomer = Newcomer()  # without a slot: what the chain has open and what was agreed since, together


def judge(order: Order, lease: Lease, spec: JobSpec, situation: Situation, parameters: Parameters) -> Refusal | None:
    """None if the lease is fine, else the first thing that is wrong with it."""
    return (
        _standing(order, situation)
        or _form(order, lease, spec)
        or _times(order, lease, situation.now, parameters)
        or _packages(spec, situation)
        or _machine(order, lease, situation)
        or _money(order, lease, situation, parameters)
        or _payer(order, lease, situation)
        or _room(order, situation)
    )


def cores_of(order: Order) -> int:
    """Cores that a job holds while it has an open seat here. All its seats share them: its stages take turns."""
    return max(1, order.cores)


def _standing(order: Order, situation: Situation) -> Refusal | None:
    if situation.offer is None:
        return Refusal("no_offer", "This node offers nothing at the moment.")
    if situation.offer.expires < situation.now:
        return Refusal("no_offer", "This node's offer has expired and was not renewed.")
    if situation.slots < 1 and not order.newcomers:
        return Refusal("unstaked", "This node holds no slot: it takes leases of jobs that allow newcomers alone.")
    return None


def _form(order: Order, lease: Lease, spec: JobSpec) -> Refusal | None:
    if lease.positions < 1 or lease.work_ms < 1:
        return Refusal("bad_lease", "A lease is for at least one unit with some declared work.")
    if all(stage.work_ms != lease.work_ms for stage in spec.stages):
        return Refusal("bad_lease", f"No stage of the job declares {lease.work_ms} ms of work.")
    if spec.profile != order.numeric_profile:
        return Refusal("bad_lease", "The order names another numeric profile than its template.")
    if ZERO32 in (lease.secret_1, lease.secret_2) or lease.secret_1 == lease.secret_2:
        return Refusal("bad_lease", "The hashes of the payer's two first secrets are missing or equal.")
    if not order.tally_units >= 1:
        return Refusal("bad_lease", "A tally has at least one unit.")
    return None


def _times(order: Order, lease: Lease, now: int, parameters: Parameters) -> Refusal | None:
    if order.deadline <= now:
        return Refusal("too_late", "The job's deadline is over.")
    if lease.until - now > parameters.lease_max_s:
        return Refusal("too_long", f"The lease is longer than {parameters.lease_max_s} s.")
    if (lease.until - now) * 1000 < lease.work_ms:
        return Refusal("too_late", "The lease ends before one unit could be done.")
    if not now <= lease.seat_by <= now + SEAT_BY_MAX_S:
        return Refusal("bad_seat_by", f"A seat must be on chain within {SEAT_BY_MAX_S} s.")
    return None


def _packages(spec: JobSpec, situation: Situation) -> Refusal | None:
    try:
        found = wheels.among(spec.shared)
    except RemoteError as error:
        return Refusal(error.code, error.sentence)
    if found and situation.base_only:
        return Refusal("base_only", "The owner allows the base set only.")
    return None


def _machine(order: Order, lease: Lease, situation: Situation) -> Refusal | None:
    offer = situation.offer
    assert offer is not None
    if offer.provisional or lease.numeric_class != offer.numeric_class:
        return Refusal("other_class", "The lease is for another numeric class than this node's.")
    if order.memory_mib > offer.memory_mib:
        return Refusal("too_little_memory", f"{order.memory_mib} MiB are more than the {offer.memory_mib} offered.")
    if order.disk_mib > offer.disk_mib:
        return Refusal("too_little_disk", f"{order.disk_mib} MiB of disk are more than the {offer.disk_mib} offered.")
    gpus = cards.count(offer.gpus)
    if order.gpus > gpus:
        return Refusal("too_few_gpus", f"{order.gpus} GPUs are more than the {gpus} offered.")
    if gpus and not order.gpus:
        return Refusal("sells_gpus", "This node sells GPUs, to jobs that ask for one.")
    if cores_of(order) > offer.cores:
        return Refusal("too_few_cores", f"{order.cores} cores are more than the {offer.cores} offered.")
    return None


def _payer(order: Order, lease: Lease, situation: Situation) -> Refusal | None:
    """A lease holds cores and stake before its seat is on chain, and asking for one costs a payer nothing."""
    if situation.now < situation.unseated_until:
        left = situation.unseated_until - situation.now
        return Refusal("never_seated", f"Leases of this payer were not seated: it is asked to wait {left:.0f} s.")
    needed = lease.positions * lease.price + order.claim_bond
    if situation.funds is not None and situation.funds < needed:
        worth, there = amounts.show_up(needed), amounts.show(situation.funds)
        return Refusal("unfunded", f"The seat takes {worth}, and the payer has {there} for it.")
    return None


def _money(order: Order, lease: Lease, situation: Situation, parameters: Parameters) -> Refusal | None:
    assert situation.offer is not None
    asked = unit_price_up(situation.offer.ask_price, lease.work_ms)
    if lease.price < max(1, asked):
        offered, least = amounts.show(lease.price), amounts.show_up(asked)
        return Refusal("price_too_low", f"{offered} a unit are less than the {least} asked.")
    if lease.positions * lease.price + order.claim_bond > order.wages:
        return Refusal("over_budget", "The lease is worth more than all wages of the order.")
    if order.tally_units > TALLY_FACTOR_MAX * parameters.tally_units:
        return Refusal("tally_too_long", f"Tallies of {order.tally_units} units would leave too much unpaid.")
    if situation.slots < 1:  # what it has is locked, however little: there is no lock to be short of
        return _probation(lease, situation.newcomer, parameters)
    free = situation.free_stake - situation.pending_lock
    if lease.lock > free:
        lock, left = amounts.show_up(lease.lock), amounts.show(max(0, free))
        return Refusal("too_little_stake", f"The lock of {lock} is more than the {left} of stake that is free.")
    return None


def _probation(lease: Lease, newcomer: Newcomer, parameters: Parameters) -> Refusal | None:
    room = newcomers.room_wei(newcomer, parameters.slot_wei)
    value = lease.positions * lease.price
    if value > room:
        worth, left = amounts.show_up(value), amounts.show(room)
        return Refusal("newcomer_full", f"The lease is worth {worth}, and a newcomer may have {left} more open.")
    return None


def _room(order: Order, situation: Situation) -> Refusal | None:
    assert situation.offer is not None
    if situation.open_leases >= MAX_OPEN_LEASES:
        return Refusal("busy", f"This node has {situation.open_leases} open leases already.")
    if situation.payer_leases >= MAX_PAYER_LEASES:
        return Refusal("busy", f"This payer has {situation.payer_leases} open leases here already.")
    free = situation.offer.cores - situation.cores_held
    if cores_of(order) > free:
        return Refusal("busy", f"{max(0, free)} of {situation.offer.cores} cores are free, {cores_of(order)} wanted.")
    return None
