"""Random calls of JobEscrow: valid ones that lead deep, each with a few that are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from judge.acts_stake import permit_of
from judge.scene import KEYS, Held, Scene
from judge.sides import Step
from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.messages import Accept, AuditOrder, Lease, Order, Release, Verdict
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.model.machine import ZERO_WORD
from tallymesh_ledger.model.signatures import NONE, digest
from tallymesh_ledger.model.terms import NO_ACCEPT, NO_RELEASE, Audit, Closing, SeatEnd, Seating, SeatState, Settlement

STATES_OF_JOB = ("none", "idle", "seated", "over", "spent")
STATES_OF_SEAT = ("none", "open", "ended", "closed", "unlocked")
BATCH = 4
WIDE = 50  # units of a tally
AUDITS_PER_WORD = 64  # the contract keeps which were paid in words of so many positions
KEPT = 24  # leases worth calling about


def job_state(scene: Scene, order: Order) -> str:
    job = scene.world.escrow.job_of(scene.world.escrow.job_id_of(order))
    if job.signer == bytes(20):
        return "none"
    if job.open_seats:
        return "seated"
    if not job.free and not job.reserve:
        return "spent"
    return "over" if scene.now > order.deadline else "idle"


def seat_state(scene: Scene, held: Held) -> str:
    return state_of_lease(scene, held.lease)


def state_of_lease(scene: Scene, lease: Lease) -> str:
    seat = scene.world.escrow.seat_of(scene.world.escrow.seat_id_of(lease))
    ended = seat.state == SeatState.OPEN and scene.now >= seat.until
    return "ended" if ended else str(SeatState(seat.state).name.lower())


# ---- whom and what


def an_order(scene: Scene) -> Order | None:
    return scene.one(scene.orders[-8:]) if scene.orders else None


def new_order(scene: Scene, payer: bytes) -> Order:
    p, signer = scene.parameters, scene.key("signer")
    # the pay of a hundredth of a slot is what a newcomer may have unpaid in all
    price = scene.one(
        [1, 7, 1000, WEI_PER_TOKEN // 100, WEI_PER_TOKEN // 100, 10**20, p.slot_wei // 100, p.slot_wei // 300]
    )
    fee = scene.world.court.fee()
    wages = price * scene.one([0, 3, 10, 20, 40]) + scene.one([0, 0, 5]) + 30 * fee * scene.one([0, 1, 1, 1])
    strict = scene.quarrelsome and scene.chance(0.9)
    bonds = [fee, fee, 3 * fee, 20 * fee] if strict else [0, price, fee, 3 * fee]
    bond = scene.one(bonds)
    windows = sorted((p.claim_window_s, p.evidence_window_s))
    return Order(
        payer=payer, signer=signer.address, template=b"\x01" * 32, numeric_profile=b"\x02" * 32, cores=1,
        memory_mib=1024, disk_mib=1024, gpus=0, price_max=price, wages=wages,
        audit_reserve=price * scene.one([0, 1, 4, 9, 20]),
        # Of a lock of four fees the court gets less than a fee.
        lock_per_seat=scene.one([0, price, 4 * fee, p.slot_wei // 3, p.slot_wei]),
        claim_bond=bond,
        audit_rate_bp=scene.one([0, 400, 3000, 10_000, 10_000]), tally_units=scene.one([1, 2, 4, WIDE]),
        claim_window=scene.one([*windows, *windows, sum(windows) // 2]),
        evidence_window=scene.one([*windows, *windows, sum(windows) // 2]),
        auditors=0 if strict else scene.one([0, 0, 1, 2]), auditors_root=ZERO_WORD,
        signer_seat_max=scene.one([0, wages // 2, wages, 5 * price + bond, 2**96 - 1]),  # … just a seat of five units
        newcomers=scene.chance(0.5),
        deadline=scene.now + scene.one([500, 5_000] if strict else [0, 50, 500, 5_000]), salt=scene.salt(),
    )  # fmt: skip


def new_lease(scene: Scene, order: Order) -> Held:
    p, escrow = scene.parameters, scene.world.escrow
    job = escrow.job_id_of(order)
    free = escrow.job_of(job).free
    price = scene.one([order.price_max, order.price_max, max(1, order.price_max // 2), order.price_max + 1])
    work_ms = scene.one([1000, 1000, 2000, 1001])
    most = max(0, free - order.claim_bond) // price if price else 5
    positions = scene.one([1, 2, 3, 5, 8, max(1, most), max(1, most) + 1])
    if order.tally_units == WIDE and scene.chance(0.5):  # room for a claim of more units than can be sampled
        positions = max(1, min(most, scene.one([24, AUDITS_PER_WORD + 9])))
    if most and positions > most and scene.chance(0.8):
        positions = scene.rng.randint(1, min(most, scene.one([8, 8, 8, 40])))
    positions, price = min(positions, 2**40 - 1), min(price, 2**96 - 1)
    staked = [key for key in KEYS["worker"] if scene.world.registry.stake_of(key.address)[0] >= order.lock_per_seat]
    worker = scene.one(staked) if staked and scene.chance(0.9) else scene.key()
    if order.newcomers and scene.chance(0.4):  # several small seats of one that has no slot
        slotless = [key for keys in KEYS.values() for key in keys if not scene.world.registry.live_slots(key.address)]
        worker = slotless[0] if slotless else worker
        positions, price = 1, min(price, p.slot_wei // scene.one([100, 300, 400, 500]))
    lock = scene.one([order.lock_per_seat, order.lock_per_seat, order.lock_per_seat + 1, p.slot_wei]) & (2**96 - 1)
    terms = [100, 300, 1_000] if scene.quarrelsome else [1, 20, 100, p.lease_max_s, p.lease_max_s + 1]
    lease = Lease(
        job=job, worker=worker.address, positions=positions, price=price, work_ms=work_ms,
        numeric_class=b"\x0a" * 32, lock=lock,
        until=scene.now + scene.one(terms),
        seat_by=scene.now + scene.one([0, 10, 100, 1000]), secret_1=b"\x05" * 32, secret_2=b"\x06" * 32,
        nonce=scene.rng.getrandbits(64),
    )  # fmt: skip
    return held_of(scene, scene.bent(lease, often=0.08), order, worker)


def held_of(scene: Scene, lease: Lease, order: Order, worker: AccountKey) -> Held:
    signer = scene.keys.get(order.signer) or scene.key("signer")
    return Held(lease, order, scene.world.escrow.seat_id_of(lease), worker, signer)


def pick(scene: Scene, *states: str) -> Held | None:
    """A lease in one of the states if there is one; now and then any."""
    recent = scene.leases[-KEPT:]
    found = [held for held in recent if seat_state(scene, held) in states]
    if found and scene.chance(0.93):
        return scene.one(found)
    return scene.one(recent) if recent and scene.chance(0.3) else None


def several(scene: Scene, make: Callable[[], Held | None]) -> list[Held]:
    found = [make() for _ in range(scene.one([1, 1, 2, BATCH]))]
    return [held for held in found if held]


# ---- a job begins


def open_job(scene: Scene) -> Step:
    payer = scene.key("payer", "payer", "payer", "payer", "stranger", "worker")
    order = scene.bent(new_order(scene, payer.address), often=0.07)
    if scene.orders and scene.chance(0.05):
        order = scene.one(scene.orders)
    by = order.payer if order.payer in scene.keys and scene.chance(0.95) else scene.anyone()
    escrow, needed = scene.world.escrow.address, order.wages + order.audit_reserve
    if scene.world.token.allowance(by, escrow) < needed and scene.chance(0.8):
        return scene.step(by, "Token", "approve", escrow, 2**256 - 1)
    state = job_state(scene, order)
    scene.orders.append(order)
    scene.expect(order.deadline, lambda: seat(scene, order))
    scene.expect(order.deadline, lambda: refund(scene, order))
    seatings = seatings_of(scene, order, by, 0.5, budget=order.wages)
    if scene.chance(0.7):
        return scene.step(by, "JobEscrow", "open", order, seatings, state=state)
    value = order.wages + order.audit_reserve
    permit = permit_of(scene, by, scene.world.escrow.address, value)
    return scene.step(by, "JobEscrow", "openWithPermit", order, seatings, permit, state=state)


def seatings_of(scene: Scene, order: Order, by: bytes, often: float, *, budget: int = 0) -> list[Seating]:
    if not scene.chance(often):
        return []
    seatings = []
    for _ in range(scene.one([1, 1, 2, 3])):
        held = new_lease(scene, order)
        if budget and held.lease.price:  # before the job is open its free wages are not known yet
            most = max(1, (budget - order.claim_bond) // held.lease.price)
            lease = msgspec.structs.replace(held.lease, positions=scene.rng.randint(1, min(most, 8)))
            held = held_of(scene, lease, order, held.worker)
        if scene.leases and scene.chance(0.06):
            held = scene.one(scene.leases)
        seatings.append(seating(scene, held, by))
    return seatings


def seating(scene: Scene, held: Held, by: bytes) -> Seating:
    domain = scene.world.escrow.domain
    remember(scene, held)
    payer = scene.keys.get(held.order.payer)
    chosen = payer if payer and scene.chance(0.3) else held.signer
    signer = scene.sign(chosen, domain, held.lease)
    worker = scene.sign(held.worker, domain, held.lease)
    if scene.chance(0.5 if by in (held.order.payer, held.order.signer) else 0.02):
        signer = NONE
    if scene.chance(0.5 if by == held.lease.worker else 0.02):
        worker = NONE
    return Seating(held.lease, worker, signer)


def remember(scene: Scene, held: Held) -> None:
    lease, order, p = held.lease, held.order, scene.parameters
    scene.leases.append(held)
    scene.expect(lease.seat_by, lambda: seat_again(scene, held))
    scene.expect(lease.until, lambda: settle_of(scene, held))
    scene.expect(lease.until, lambda: seat_again(scene, held))
    scene.expect(lease.until - p.lease_max_s, lambda: seat_again(scene, held))
    scene.expect(lease.until + order.claim_window, lambda: expire_of(scene, order, [held]))
    scene.expect(lease.until + order.claim_window, lambda: finish_of(scene, order, [held]))


def seat(scene: Scene, order: Order | None = None) -> Step | None:
    order = order or an_order(scene)
    if order is None:
        return None
    by = scene.one([order.payer, order.signer, scene.anyone()])
    by = scene.key("worker").address if scene.chance(0.3) or by not in scene.keys else by
    return scene.step(
        by, "JobEscrow", "seat", order, seatings_of(scene, order, by, 0.98), state=job_state(scene, order)
    )


def seat_again(scene: Scene, held: Held) -> Step:
    by = scene.anyone()
    items = [seating(scene, held, by)]
    return scene.step(by, "JobEscrow", "seat", held.order, items, state=job_state(scene, held.order))


# ---- pay


def accept_of(scene: Scene, held: Held) -> Accept:
    seat = scene.world.escrow.seat_of(held.id)
    paid, units = seat.paid_units, held.lease.positions
    upto = scene.one([paid + 1, paid + 1, (paid + units) // 2 + 1, units, units + 1, paid, 0]) & (2**40 - 1)
    accept = Accept(
        seat=held.id, tally=scene.one([0, 1, 7]), units=upto, chain=scene.rng.randbytes(32), next_secret=ZERO_WORD
    )
    return scene.bent(accept, often=0.04)


def settlement_of(scene: Scene, held: Held, by: bytes) -> Settlement:
    accept = accept_of(scene, held)
    signature = scene.sign(held.signer, scene.world.escrow.domain, accept)
    if scene.chance(0.5 if by == held.order.signer else 0.03):
        signature = NONE
    return Settlement(held.lease, scene.bent(accept, often=0.03), signature)


def caller_for(scene: Scene, held: Held) -> bytes:
    by = scene.one([held.lease.worker, held.order.payer, held.order.signer, scene.anyone(), scene.anyone()])
    return by if by in scene.keys else scene.anyone()


def settle(scene: Scene) -> Step | None:
    held = pick(scene, "open", "ended")
    return settle_of(scene, held) if held else None


def settle_of(scene: Scene, held: Held) -> Step:
    by = caller_for(scene, held)
    more = several(scene, lambda: pick(scene, "open", "ended"))[1:]
    items = [settlement_of(scene, one, by) for one in [held, *more]]
    return scene.step(by, "JobEscrow", "settle", items, state=seat_state(scene, held))


def audit_of(scene: Scene, held: Held, by: bytes) -> Audit:
    domain = scene.world.escrow.domain
    auditor = scene.key("auditor", "auditor", "auditor", "worker", "payer")
    price = held.lease.price
    most = price * 11_000 // 10_000
    position = scene.rng.randrange(min(max(held.lease.positions, 1), 4))
    if held.lease.positions > AUDITS_PER_WORD and scene.chance(0.9):
        position = AUDITS_PER_WORD
    order = AuditOrder(
        seat=held.id, tally=1, position=position, unit_id=b"\x09" * 32,
        reason=0, draw=scene.one([0, 0, 1, 2, 3 if scene.chance(0.3) else 0]), attempt=scene.one([0, 0, 1]),
        auditor=auditor.address, fee=min(scene.one([most, most, most + 1, price, 0, 9]), 2**96 - 1),
        commit_by=scene.now,
    )  # fmt: skip
    order = scene.bent(order, often=0.06)
    verdict = Verdict(
        audit_order=digest(domain, order), result=scene.one([1, 1, 2, 3, 3] if scene.chance(0.93) else [0, 4]),
        end=b"\x0a" * 32, salt=b"\x0b" * 32, probe=b"\x0c" * 32,
    )  # fmt: skip
    verdict = scene.bent(verdict, often=0.03)
    ordered, said = scene.sign(held.signer, domain, order), scene.sign(auditor, domain, verdict)
    if scene.chance(0.5 if by in (held.order.signer, held.order.payer) else 0.03):
        ordered = NONE
    if scene.chance(0.5 if by == auditor.address else 0.03):
        said = NONE
    return Audit(order, ordered, verdict, said)


def pay_audits(scene: Scene) -> Step | None:
    some = [pick(scene, "open", "ended", "closed", "unlocked") for _ in range(3)]
    wide = [held for held in some if held and held.lease.positions > AUDITS_PER_WORD]
    held = wide[0] if wide else some[0]
    if held is None:
        return None
    by = scene.one([caller_for(scene, held), scene.key("auditor").address])
    audits = [audit_of(scene, held, by) for _ in range(3 if wide else scene.one([1, 1, 2, 3]))]
    earlier = scene.past.get("JobEscrow.payAudits", [])
    same = [old for lease, olds in earlier if lease == held.lease for old in olds]
    if same and scene.chance(0.3):
        audits.append(scene.one(same))
    return scene.step(by, "JobEscrow", "payAudits", held.lease, audits, state=seat_state(scene, held))


# ---- a seat and a job end


def closing_of(scene: Scene, held: Held, by: bytes) -> Closing:
    paid = scene.world.escrow.seat_of(held.id).paid_units
    release = Release(seat=held.id, units=scene.one([paid, paid, paid, max(0, paid - 1), min(paid + 1, 2**40 - 1)]))
    release = scene.bent(release, often=0.03)
    signature = scene.sign(held.worker, scene.world.escrow.domain, release)
    if scene.chance(0.5 if by == held.lease.worker else 0.03):
        signature = NONE
    return Closing(held.lease, release, signature)


def close(scene: Scene) -> Step | None:
    held = pick(scene, "open", "ended")
    if held is None:
        return None
    by = caller_for(scene, held)
    more = several(scene, lambda: pick(scene, "open", "ended"))[1:]
    closings = [closing_of(scene, one, by) for one in [held, *more]]
    scene.expect(scene.now + scene.parameters.lock_tail_s, lambda: unlock_of(scene, [held]))
    scene.expect(scene.now + held.order.evidence_window, lambda: refund(scene, held.order))
    return scene.step(by, "JobEscrow", "close", closings, state=seat_state(scene, held))


def expire(scene: Scene) -> Step | None:
    held = pick(scene, "ended")
    return expire_of(scene, held.order, [held]) if held else None


def expire_of(scene: Scene, order: Order, held: Sequence[Held]) -> Step:
    order = scene.bent(order, often=0.03)
    leases = [one.lease for one in [*held, *several(scene, lambda: pick(scene, "ended", "open"))[1:]]]
    scene.expect(scene.now + scene.parameters.lock_tail_s, lambda: unlock_of(scene, held))
    state = seat_state(scene, held[0])
    return scene.step(scene.anyone(), "JobEscrow", "expire", order, leases, state=state)


def unlock(scene: Scene) -> Step | None:
    held = pick(scene, "closed")
    return unlock_of(scene, [held]) if held else None


def unlock_of(scene: Scene, held: Sequence[Held]) -> Step:
    leases = [scene.bent(one.lease, often=0.05) for one in [*held, *several(scene, lambda: pick(scene, "closed"))[1:]]]
    return scene.step(scene.anyone(), "JobEscrow", "unlock", leases, state=seat_state(scene, held[0]))


def refund(scene: Scene, order: Order | None = None) -> Step | None:
    order = order or an_order(scene)
    if order is None:
        return None
    order = scene.bent(order, often=0.03)
    over = scene.now > order.deadline and job_state(scene, order) != "seated"
    by = scene.anyone() if over or scene.chance(0.1) else scene.one([order.payer, order.signer])
    by = by if by in scene.keys else scene.anyone()
    return scene.step(by, "JobEscrow", "refund", order, state=job_state(scene, order))


def finish(scene: Scene) -> Step | None:
    order = an_order(scene)
    if order is None:
        return None
    job = scene.world.escrow.job_id_of(order)
    mine = [held for held in scene.leases[-KEPT:] if held.lease.job == job]
    held = [scene.one(mine) for _ in range(scene.one([1, 1, 2]))] if mine else []
    if scene.leases and scene.chance(0.1):
        held.append(scene.one(scene.leases[-KEPT:]))
    return finish_of(scene, order, held)


def finish_of(scene: Scene, order: Order, held: Sequence[Held]) -> Step:
    by = scene.one([order.payer, order.payer, order.signer, scene.anyone()])
    by = by if by in scene.keys else scene.anyone()
    ends = [end_of(scene, one, by) for one in held]
    for one in held:
        scene.expect(scene.now + one.order.evidence_window, lambda: refund(scene, order))
        scene.expect(scene.now + scene.parameters.lock_tail_s, lambda one=one: unlock_of(scene, [one]))  # type: ignore[misc]
    order = scene.bent(order, often=0.02)
    return scene.step(by, "JobEscrow", "finish", order, ends, state=job_state(scene, order))


def end_of(scene: Scene, held: Held, by: bytes) -> SeatEnd:
    settlement = settlement_of(scene, held, by) if scene.chance(0.7) else Settlement(held.lease, NO_ACCEPT)
    if settlement.accept.units and by == held.order.payer and scene.chance(0.4):
        settlement = settlement._replace(signature=NONE)
    closing = closing_of(scene, held, by) if scene.chance(0.6) else Closing(held.lease, NO_RELEASE)
    if closing.release.seat != ZERO_WORD and settlement.accept.units and scene.chance(0.8):
        release = Release(seat=held.id, units=min(settlement.accept.units, held.lease.positions))
        closing = Closing(held.lease, release, scene.sign(held.worker, scene.world.escrow.domain, release))
    audits = tuple(audit_of(scene, held, by) for _ in range(scene.one([0, 0, 1, 2])))
    return SeatEnd(held.lease, settlement.accept, settlement.signature, closing.release, closing.signature, audits)
