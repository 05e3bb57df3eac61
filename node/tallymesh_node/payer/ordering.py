"""From a buyer's terms to the Order: how the budget is split, and what a seat locks. Pure."""

from __future__ import annotations

from tallymesh import amounts, api
from tallymesh.errors import CallerError
from tallymesh.ids import ZERO32
from tallymesh.messages import Auditors, Order
from tallymesh.parameters import Parameters
from tallymesh.units import JobSpec
from tallymesh_node.gpus import check_order
from tallymesh_node.payer import replicas

BP = 10_000
INTEGRITY_BP = BP
PRICE_ANY = (1 << 96) - 1
DEADLINE_MAX_S = 1 << 36  # two thousand years; an Order's times have 40 bits
SEATS_EXPECTED = 16  # of one stage, for the reserve: each has a first unit and at least one more that are audited
RESERVE_MAX_BP = 5_000  # of the budget, where most units are audited anyway ("integrity" needs 11/21)
BOND_SHARE = 4  # claim bonds of all seats that are to be expected hold at most a fourth of the wages, or there are none
LOCK_SHARE = 4  # a seat locks at most a fourth of a slot, so that one slot is good for several payers


def audit_rate_bp(terms: api.Terms, parameters: Parameters) -> int:
    if terms.verify not in api.VERIFY:
        raise CallerError(
            "bad_terms", f"verify={terms.verify!r} is not offered.", remedy=f"Use one of {', '.join(api.VERIFY)}."
        )
    return INTEGRITY_BP if terms.verify == "integrity" else parameters.audit_rate_bp


def split(budget: int, spec: JobSpec, rate_bp: int, parameters: Parameters) -> tuple[int, int]:
    """(wages, audit reserve). The reserve holds the drawn share of all units, and two audits for each seat that is to
    be expected, at the auditor's fee; what is not used goes back. Units that are run twice have twice the runs and
    twice the seats: the same shares."""
    total = units_of(spec)
    seats = min(SEATS_EXPECTED, spec.per_round or len(spec.inputs)) if spec.kind == "federated" else 1
    seats = min(SEATS_EXPECTED, len(spec.inputs)) if spec.kind == "map" else seats
    share_bp = min(BP, rate_bp + 2 * BP * seats // total)
    fees_bp = share_bp * parameters.auditor_fee_bp // BP
    reserve = budget * fees_bp // (BP + fees_bp)
    if rate_bp < BP:
        reserve = min(reserve, budget * RESERVE_MAX_BP // BP)
    return budget - reserve, reserve


def units_of(spec: JobSpec) -> int:
    if spec.kind == "map":
        return len(spec.inputs)
    if spec.kind == "sequential":
        return spec.rounds
    return spec.rounds * ((spec.per_round or len(spec.inputs)) + 1)


def lock_of(wages: int, spec: JobSpec, parameters: Parameters, copies: int = 1) -> int:
    """The pay of two tallies, at the price that the wages allow for: no price is known yet, and a lock above the
    market's price harms nobody but who has no stake."""
    total = copies * units_of(spec)
    return min(wages * min(2 * parameters.tally_units, total) // total, parameters.slot_wei // LOCK_SHARE)


def claim_bond_of(wages: int, spec: JobSpec, parameters: Parameters) -> int:
    """What each seat puts aside for a worker that is not paid, and gets back with its close; 0 for a job so small that
    the bonds would leave too little for work: its workers have Accepts only."""
    seats = min(SEATS_EXPECTED, units_of(spec))
    return parameters.claim_bond_wei if parameters.claim_bond_wei * seats * BOND_SHARE <= wages else 0


def make_order(
    spec: JobSpec,
    template: bytes,
    terms: api.Terms,
    *,
    payer: bytes,
    signer: bytes,
    salt: bytes,
    now: int,
    parameters: Parameters,
) -> Order:
    """CallerError for terms that cannot be met by anybody."""
    try:
        budget, price_max = int(terms.budget_wei), int(terms.max_price_wei or 0)
    except ValueError:
        raise CallerError("bad_amount", "Amounts are wei as decimal strings.") from None
    if not 0 < budget < 1 << 96 or not 0 <= price_max < 1 << 96:
        raise CallerError("bad_amount", "The budget must be more than nothing, and fit 96 bits.")
    if terms.max_price_wei and not price_max:  # in an Order nothing would mean any price
        raise CallerError("bad_amount", "The highest price is less than 3600 wei per core-hour, a wei per second.")
    require = terms.require
    if require.cores < 1 or require.memory_gib < 0 or require.disk_gib < 0 or require.gpu < 0 or terms.deadline_s <= 0:
        raise CallerError("bad_terms", "Requirements and the deadline are positive numbers.")
    memory, disk = require.memory_gib * 1024, require.disk_gib * 1024
    if max(memory, disk) >= 1 << 32 or max(require.cores, require.gpu) >= 1 << 16 or terms.deadline_s > DEADLINE_MAX_S:
        raise CallerError("bad_terms", "Requirements or the deadline are larger than any machine or job.")
    check_order(require.gpu, spec.profile, require.memory_gib)
    rate = audit_rate_bp(terms, parameters)
    # All of it may be done by newcomers, of whom every unit is audited; what is not needed for that comes back.
    copies = replicas.copies_of(terms.verify)
    if terms.workers_max and terms.workers_max < copies:
        raise CallerError(
            "bad_terms",
            f"verify={terms.verify!r} runs each unit on {copies} workers, and workers_max is {terms.workers_max}.",
        )
    wages, reserve = split(budget, spec, BP if terms.newcomers else rate, parameters)
    runs = copies * units_of(spec)
    if wages < runs:
        raise CallerError(
            "budget_too_small",
            f"{amounts.show(budget)} cannot pay for {units_of(spec)} units{f', each {copies} times' * (copies > 1)}.",
            remedy=f"At least {amounts.show_up(runs + reserve)} are needed, at the lowest price there is.",
        )
    return Order(
        payer=payer,
        signer=signer,
        template=template,
        numeric_profile=spec.profile,
        cores=require.cores,
        memory_mib=int(require.memory_gib * 1024),
        disk_mib=int(require.disk_gib * 1024),
        gpus=require.gpu,
        price_max=price_max or PRICE_ANY,
        wages=wages,
        audit_reserve=reserve,
        # The least of any seat: a newcomer has nothing to lock, nor gas to unlock it with.
        lock_per_seat=0 if terms.newcomers else lock_of(wages, spec, parameters, copies),
        claim_bond=claim_bond_of(wages, spec, parameters),
        audit_rate_bp=rate,
        tally_units=parameters.tally_units,
        claim_window=parameters.claim_window_s,
        evidence_window=parameters.evidence_window_s,
        auditors=Auditors.OPEN,
        auditors_root=ZERO32,
        signer_seat_max=wages,
        newcomers=terms.newcomers,
        deadline=now + terms.deadline_s,
        salt=salt,
    )
