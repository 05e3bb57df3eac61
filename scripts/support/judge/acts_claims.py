"""Random calls of Claims and Accusations. A worker's units are made up from their positions, so that everybody can say
what an honest auditor finds; a `twist` is another story about the same unit."""

from __future__ import annotations

import msgspec

from judge.acts_escrow import caller_for, pick, seat_state
from judge.scene import Held, Scene
from judge.sides import Step
from tallymesh import exchange
from tallymesh.messages import Assign, Tally
from tallymesh_ledger import merkle
from tallymesh_ledger.eip712 import keccak, word
from tallymesh_ledger.model.claims import RANKS
from tallymesh_ledger.model.draws import Parties
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD
from tallymesh_ledger.model.quarrels import Finding, Heard, Opening, State
from tallymesh_ledger.model.rulings import CLAIM_TALLY
from tallymesh_ledger.model.signatures import NONE
from tallymesh_ledger.model.terms import SeatState

STATES_OF_CLAIM = tuple(state.name.lower() for state in State)
LIVE = (State.PENDING, State.SAMPLING, State.REVEALING, State.CHALLENGEABLE)


class Claimed(msgspec.Struct, frozen=True):
    """A claim that somebody made, or tried to."""

    id: bytes
    held: Held
    tally: Tally


def unit(seat: bytes, position: int, twist: int = 0) -> exchange.Opening:
    def part(name: bytes) -> bytes:
        return keccak(name + seat + word(position))

    end = keccak(b"end" + seat + word(position) + word(twist))
    return exchange.Opening(unit_id=part(b"id"), start=part(b"start"), end=end, salt=part(b"salt"), aux=part(b"aux"))


def leaves(seat: bytes, start: int, count: int, twist: int = 0) -> list[bytes]:
    return [merkle.leaf(seat, start + i, unit(seat, start + i, twist)) for i in range(count)]


def witnesses(scene: Scene, parties: Parties) -> list[int]:
    """Slots of admissible accounts in ascending order of the accounts; now and then not quite."""
    registry, draws = scene.world.registry, scene.world.court._draws
    slots = {}
    for slot in range(registry.slot_count()):
        account = draws.admissible(parties, slot, scene.block)
        if account != ZERO_ADDRESS:
            slots[account] = slot
    found = [slots[account] for account in sorted(slots)]
    if scene.chance(0.05):
        return scene.one([found[:1], found[::-1], [*found, 10**9], [0, 0, 0, 0]])
    return found


def judged(scene: Scene, parties: Parties) -> bool:
    """Whether somebody could decide a quarrel of theirs; now and then it is begun without."""
    return len(witnesses(scene, parties)) >= scene.world.court.terms.quorum or scene.chance(0.05)


def claim_state(scene: Scene, id_: bytes) -> str:
    return State(scene.world.claims.claim_of(id_).state).name.lower()


# ---- claims


def claim(scene: Scene) -> Step | None:
    fit = [held for held in (pick(scene, "open", "ended") for _ in range(6)) if held and claimable(scene, held)]
    worth = [held for held in fit if held.order.auditors == 0 and held.order.claim_bond >= scene.world.court.fee()]
    held = scene.one(worth) if worth and scene.chance(0.97) else scene.one(fit) if fit and scene.chance(0.1) else None
    if held is None:
        return None
    if scene.chance(0.2):  # in the last second, or the first that is too late
        last = scene.world.escrow.seat_of(held.id).until + held.order.claim_window
        scene.expect(last, lambda: claim_of(scene, held) if unpaid(scene, held) else None)
        return None
    return claim_of(scene, held)


def claim_of(scene: Scene, held: Held) -> Step | None:
    seat = scene.world.escrow.seat_of(held.id)
    claimed_to = scene.world.claims.quarrels_of(held.id).claimed_to
    paid = seat.paid_units
    start = paid + scene.chance(0.02) if scene.chance(0.6) else scene.rng.randint(min(claimed_to, paid), paid)
    most = max(1, min(2 * held.order.tally_units, max(seat.units, held.lease.positions) - start, scene.one([8, 40])))
    count = most + 1 if scene.chance(0.03) else scene.one([most, scene.rng.randint(1, most)])
    tally = Tally(
        seat=held.id, number=CLAIM_TALLY, previous=scene.one([ZERO_WORD, b"\x07" * 32]), start=start, count=count,
        root=merkle.root(leaves(held.id, start, count)), block_number=1, block_hash=ZERO_WORD,
    )  # fmt: skip
    tally = scene.bent(tally, often=0.05)
    by = scene.one([held.lease.worker, caller_for(scene, held)])
    signature = scene.sign(held.worker, scene.world.escrow.domain, tally)
    if by == held.lease.worker and scene.chance(0.5):
        signature = NONE
    parties = Parties(held.lease.worker, ZERO_ADDRESS, held.order.payer, held.order.signer, held.lease.numeric_class)
    if not judged(scene, parties):
        return None
    id_ = keccak(b"".join(map(word, (keccak(b"tallymesh.claim.1"), held.id, tally.root, tally.start, tally.count))))
    scene.claims.append(Claimed(id_, held, tally))
    arguments = (held.order, held.lease, tally, signature, witnesses(scene, parties))
    return scene.step(by, "Claims", "claim", *arguments, state=seat_state(scene, held))


def claimable(scene: Scene, held: Held) -> bool:
    """Open, without a live claim, and in time; now and then not."""
    seat = scene.world.escrow.seat_of(held.id)
    if seat.bond < held.order.claim_bond and scene.chance(0.95):
        return False
    late = scene.now > seat.until + held.order.claim_window
    return (unpaid(scene, held) and not late) or scene.chance(0.01)


def unpaid(scene: Scene, held: Held) -> bool:
    """Open, without a live claim, and something is left to claim."""
    seat, quarrels = scene.world.escrow.seat_of(held.id), scene.world.claims.quarrels_of(held.id)
    rest = quarrels.claimed_to <= seat.paid_units < seat.units
    return seat.state == SeatState.OPEN and rest and quarrels.claim == ZERO_WORD


def on_claim(scene: Scene) -> Step | None:
    """Whatever comes next in the life of a claim."""
    recent = [one for one in scene.claims[-16:] if scene.world.claims.claim_of(one.id).count or scene.chance(0.01)]
    live = [one for one in recent if scene.world.claims.claim_of(one.id).state in LIVE]
    if not live:
        return conclude(scene, scene.one(recent)) if recent and scene.chance(0.005) else None
    one = scene.one(live)
    state = scene.world.claims.claim_of(one.id).state
    if state == State.PENDING:
        return capture(scene, one)
    if state == State.SAMPLING:
        return sampling(scene, one)
    if state == State.REVEALING:
        return revealing(scene, one)
    return conclude(scene, one)


def capture(scene: Scene, one: Claimed) -> Step | None:
    claim = scene.world.claims.claim_of(one.id)
    if scene.block > claim.block_number + 260 and scene.chance(0.9):
        return conclude(scene, one)
    blocks = 300 if scene.chance(0.08) else scene.one([4, 5, 5, 5, 6, 260 if scene.chance(0.2) else 5])
    scene.block = max(scene.block, claim.block_number + blocks)
    scene.model.at(scene.now, scene.block)
    if blocks == 300 and scene.chance(0.8):
        return conclude(scene, one)
    return scene.step(scene.anyone(), "Claims", "capture", one.id, state=claim_state(scene, one.id))


def sampling(scene: Scene, one: Claimed) -> Step | None:
    claims, terms = scene.world.claims, scene.quarrelling.claims
    claim = claims.claim_of(one.id)
    if scene.now > claim.deadline and scene.chance(0.95):
        return conclude(scene, one)
    free = uncommitted(scene, one)
    begins = claim.sampled_at + 3 * terms.commit_window
    scene.expect(claim.deadline, lambda: conclude_live(scene, one))
    scene.expect(begins, lambda: opening_live(scene, one))
    scene.expect(begins, lambda: commit_live(scene, one))
    if free and not claim.opened and scene.now < begins and scene.chance(0.9):
        return commit(scene, one, scene.one(free))
    if scene.chance(0.08):
        return conclude(scene, one)
    if claim.committed < claim.k and scene.chance(0.9):
        scene.now = max(scene.now, begins)
    return opening(scene, one)


def commit(scene: Scene, one: Claimed, sample: int) -> Step:
    claims, terms = scene.world.claims, scene.quarrelling.claims
    claim = claims.claim_of(one.id)
    rank = scene.one([0, 0, 0, 1, 2])
    account, attempt = claims.auditor_at(one.id, sample, rank)
    if account == ZERO_ADDRESS:
        rank = 0
        account, attempt = claims.auditor_at(one.id, sample, rank)
    if scene.chance(0.95):
        scene.now = max(scene.now, claim.sampled_at + rank * terms.commit_window)
    if scene.chance(0.03):  # whom the draw names for the rank after the last, which nobody may take
        rank = RANKS
        account, attempt = claims.auditor_at(one.id, sample, rank)
    by = account if account in scene.keys and scene.chance(0.96) else scene.anyone()
    if scene.chance(0.04):
        rank, attempt = scene.one([(rank + 1, attempt), (RANKS, attempt), (rank, attempt + 1), (rank, 128)])
    position = claim.from_ + claims.units_of(one.id)[sample]
    honest = unit(claim.seat, position)
    end = scene.one([honest.end, honest.end, honest.end, honest.end, ZERO_WORD, keccak(b"other")])
    start = honest.start if scene.chance(0.9) else keccak(b"other start")
    finding = Finding(
        honest.start, honest.end, start, end, scene.rng.randbytes(32), ZERO_WORD, scene.one([0, 1, 1, 2, 4, 7])
    )
    scene.findings[one.id, sample] = finding
    scene.cases.append(case_of(one.id, sample))
    commitment = keccak(b"".join(map(word, (finding.end, finding.salt, by, finding.probe))))
    arguments = (one.id, sample if scene.chance(0.97) else claim.k, rank, attempt, commitment)
    return scene.step(by, "Claims", "commit", *arguments, state=claim_state(scene, one.id))


def commit_live(scene: Scene, one: Claimed) -> Step | None:
    free = uncommitted(scene, one)
    sampled = scene.world.claims.claim_of(one.id).state == State.SAMPLING
    return commit(scene, one, scene.one(free)) if sampled and free else None


def uncommitted(scene: Scene, one: Claimed) -> list[int]:
    claims = scene.world.claims
    return [n for n in range(claims.claim_of(one.id).k) if claims.sample_of(one.id, n).heard == Heard.NONE]


def opening_live(scene: Scene, one: Claimed) -> Step | None:
    return opening(scene, one) if scene.world.claims.claim_of(one.id).state == State.SAMPLING else None


def opening(scene: Scene, one: Claimed) -> Step:
    claims = scene.world.claims
    claim = claims.claim_of(one.id)
    drawn = claims.units_of(one.id) if claim.count else []
    chosen = [n for n in range(claim.k) if scene.chance(0.9)] if drawn else []
    openings = []
    for n in chosen:
        position = claim.from_ + drawn[n]
        u = unit(claim.seat, position, 1 if scene.chance(0.02) else 0)
        assign = Assign(seat=claim.seat, position=position, unit_id=u.unit_id)
        signature = scene.sign(one.held.signer, scene.world.escrow.domain, assign, honest=0.98)
        path = merkle.path(leaves(claim.seat, claim.from_, claim.count), drawn[n])
        if scene.chance(0.02):
            path = scene.one([path[:-1], [*path, ZERO_WORD], path[::-1]])
        number = claim.k if scene.chance(0.01) else n
        openings.append(Opening(number, u.unit_id, u.start, u.end, u.salt, u.aux, signature, path))
    scene.expect(scene.now + scene.quarrelling.claims.reveal_window, lambda: conclude_live(scene, one))
    return scene.step(scene.anyone(), "Claims", "open", one.id, openings, state=claim_state(scene, one.id))


def revealing(scene: Scene, one: Claimed) -> Step | None:
    claims = scene.world.claims
    claim = claims.claim_of(one.id)
    said = {n: claims.sample_of(one.id, n) for n in range(claim.k)}
    silent = [n for n, sample in said.items() if sample.heard == Heard.COMMITTED]
    disputed = [n for n, sample in said.items() if sample.heard == Heard.DISPUTED]
    if silent and scene.now <= claim.deadline and scene.chance(0.9):
        n = scene.one(silent)
        finding = scene.findings.get((one.id, n)) or Finding(*[ZERO_WORD] * 6, 0)
        if scene.chance(0.04):
            finding = finding._replace(**{scene.one(["opened_start", "opened_end", "end", "salt"]): b"\x09" * 32})
        by = said[n].auditor if scene.chance(0.96) else scene.anyone()
        arguments = (one.id, n if scene.chance(0.98) else claim.k, finding)
        return scene.step(by, "Claims", "reveal", *arguments, state=claim_state(scene, one.id))
    ruled = [n for n in disputed if scene.world.court.case_of(case_of(one.id, n)).state == 6]
    if ruled or (disputed and scene.chance(0.02)):
        n = scene.one(ruled or disputed)
        lease = scene.bent(one.held.lease, often=0.02)
        return scene.step(scene.anyone(), "Claims", "rule", lease, one.id, n, state=claim_state(scene, one.id))
    if disputed and scene.chance(0.98):
        return None  # until the Court has ruled
    return conclude(scene, one)


def case_of(claim: bytes, sample: int) -> bytes:
    return keccak(keccak(b"tallymesh.case.1") + claim + word(sample))


def conclude(scene: Scene, one: Claimed) -> Step | None:
    claim = scene.world.claims.claim_of(one.id)
    if claim.state in (State.SAMPLING, State.REVEALING) and scene.chance(0.8):
        scene.now = max(scene.now, claim.deadline + scene.one([0, 1, 1, 1, 1, 1]))
    if claim.state == State.CHALLENGEABLE and scene.world.accusations.blocking(claim.seat) and scene.chance(0.98):
        return None  # until the accusation has ended
    if claim.state == State.CHALLENGEABLE and scene.chance(0.8):
        scene.now = max(scene.now, claim.deadline + scene.one([0, 1, 1, 1, 1, 1]))
    lease = scene.bent(one.held.lease, often=0.02)
    if claim.state == State.REVEALING:
        at = scene.now + scene.quarrelling.claims.challenge_window
        scene.expect(at, lambda: conclude_live(scene, one))
    return scene.step(scene.anyone(), "Claims", "conclude", lease, one.id, state=claim_state(scene, one.id))


def conclude_live(scene: Scene, one: Claimed) -> Step | None:
    return conclude(scene, one) if scene.world.claims.claim_of(one.id).state in LIVE else None
