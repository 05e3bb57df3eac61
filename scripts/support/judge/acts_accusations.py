"""Random calls of Accusations: a worker's words are shown against it, before the Court or against each other."""

from __future__ import annotations

from msgspec.structs import replace

from judge.acts_claims import judged, leaves, unit, witnesses
from judge.acts_escrow import pick, seat_state
from judge.scene import Held, Scene
from judge.sides import Step
from tallymesh.messages import Assign, Receipt, Tally
from tallymesh_ledger import merkle
from tallymesh_ledger.eip712 import keccak, word
from tallymesh_ledger.model.draws import Parties
from tallymesh_ledger.model.machine import ZERO_WORD
from tallymesh_ledger.model.quarrels import Charge, Statement, Word
from tallymesh_ledger.model.signatures import NONE
from tallymesh_ledger.model.terms import SeatState

NO_TALLY = Tally(
    seat=ZERO_WORD, number=0, previous=ZERO_WORD, start=0, count=0, root=ZERO_WORD, block_number=0, block_hash=ZERO_WORD
)


def statement(scene: Scene, held: Held, position: int, twist: int) -> Statement:
    """How the worker said so: in a Receipt, in a Tally, in a claim."""
    domain = scene.world.escrow.domain
    value = merkle.leaf(held.id, position, unit(held.id, position, twist))
    mine = [one for one in scene.claims if one.held.id == held.id and scene.world.claims.claim_of(one.id).count]
    how = scene.one([Word.RECEIPT, Word.RECEIPT, Word.TALLY, Word.CLAIM if mine else Word.TALLY])
    if how == Word.RECEIPT:
        receipt = Receipt(seat=held.id, position=position, leaf=value)
        return Statement(how, value, scene.sign(held.worker, domain, receipt, honest=0.97), NO_TALLY, ZERO_WORD, [])
    if how == Word.TALLY:
        start = max(0, position - scene.one([0, 1, 2]))
        all_ = leaves(held.id, start, position - start + scene.one([1, 2, 3]), twist)
        tally = Tally(
            seat=held.id, number=3, previous=ZERO_WORD, start=start, count=len(all_), root=merkle.root(all_),
            block_number=9, block_hash=ZERO_WORD,
        )  # fmt: skip
        path = merkle.path(all_, position - start)
        if scene.chance(0.1):
            tally, path = taller(tally, value, position - start, path)
        tally = scene.bent(tally, often=0.02)
        signature = scene.sign(held.worker, domain, tally, honest=0.97)
        return Statement(how, value, signature, tally, ZERO_WORD, path)
    chosen = scene.one(mine)
    claim = scene.world.claims.claim_of(chosen.id)
    at = min(max(0, position - claim.from_), claim.count - 1)
    path = merkle.path(leaves(held.id, claim.from_, claim.count), at)
    return Statement(how, value, NONE, NO_TALLY, chosen.id, path)


def taller(tally: Tally, value: bytes, index: int, path: list[bytes]) -> tuple[Tally, list[bytes]]:
    """A tree of one level more than its count has, which the worker signed all the same: no path in it counts."""
    beside = b"\x0c" * 32
    for level, sibling in enumerate(path):
        value = keccak(sibling + value if index >> level & 1 else value + sibling)
    return replace(tally, root=keccak(word(tally.count) + keccak(value + beside))), [*path, beside]


def accused(scene: Scene) -> Held | None:
    found = [pick(scene, "open", "ended", "closed") for _ in range(5)]
    worth = [held for held in found if held and held.order.auditors == 0 and holdable(scene, held)]
    return scene.one(worth) if worth else found[0] if scene.chance(0.05) else None


def holdable(scene: Scene, held: Held) -> bool:
    seat = scene.world.escrow.seat_of(held.id)
    tail = scene.now < seat.until + scene.parameters.lock_tail_s
    return seat.state == SeatState.OPEN or (seat.state == SeatState.CLOSED and tail) or scene.chance(0.02)


def accuse(scene: Scene) -> Step | None:
    held = accused(scene)
    if held is None:
        return None
    seat = scene.world.escrow.seat_of(held.id)
    if seat.state == SeatState.CLOSED:  # in the last second of its lock's tail, or the first without
        scene.expect(seat.until + scene.parameters.lock_tail_s, lambda: accuse_of(scene, held))
    return accuse_of(scene, held)


def accuse_of(scene: Scene, held: Held) -> Step | None:
    position = scene.rng.randrange(max(1, min(held.lease.positions, 6)))
    twist = scene.one([0, 0, 1])
    said = statement(scene, held, position, twist)
    if said.word == Word.CLAIM:
        twist = 0
    u = unit(held.id, position, twist)
    domain = scene.world.escrow.domain
    assign = Assign(seat=held.id, position=position, unit_id=u.unit_id)
    by = scene.key("payer", "auditor", "stranger", "worker").address
    own_end = u.end if scene.chance(0.03) else keccak(b"own" + by)
    own_start = u.start if scene.chance(0.85) else keccak(b"own start")
    steps = scene.one([0, 1, 2, 3, 6, 8, 2**20, 2**20 + 1 if scene.chance(0.2) else 5])
    charge = Charge(
        position, said, u.unit_id, scene.sign(held.signer, domain, assign, honest=0.97), u.start, u.end, u.salt, u.aux,
        own_start, own_end, steps,
    )  # fmt: skip
    parties = Parties(held.lease.worker, by, held.order.payer, held.order.signer, held.lease.numeric_class)
    if not judged(scene, parties):
        return None
    id_ = keccak(keccak(b"tallymesh.accusation.1") + held.id + word(position) + said.leaf + word(by))
    scene.accusations.append((id_, held))
    scene.cases.append(id_)
    arguments = (held.order, held.lease, charge, witnesses(scene, parties))
    return scene.step(by, "Accusations", "accuse", *arguments, state=seat_state(scene, held))


def acquit_or_convict(scene: Scene) -> Step | None:
    court = scene.world.court
    ready = [(id_, held) for id_, held in scene.accusations[-20:] if court.case_of(id_).state == 6]
    ready = [one for one in ready if not scene.world.accusations.accusation_of(one[0]).ended]
    if not ready and not (scene.accusations and scene.chance(0.05)):
        return None
    id_, held = scene.one(ready) if ready and scene.chance(0.95) else scene.one(scene.accusations)
    lease = scene.bent(held.lease, often=0.02)
    state = seat_state(scene, held)
    return scene.step(scene.anyone(), "Accusations", "acquitOrConvict", lease, id_, state=state)


def fraud(scene: Scene) -> Step | None:
    held = accused(scene)
    if held is None:
        return None
    claimed = scene.world.claims.quarrels_of(held.id).claim != ZERO_WORD  # such a root can be refuted without a lock
    if scene.world.escrow.lock_left(held.lease) == 0 and not scene.chance(0.3 if claimed else 0.06):
        return None
    position = scene.rng.randrange(max(1, min(held.lease.positions, 6)))
    a, b = statement(scene, held, position, 0), statement(scene, held, position, 0 if scene.chance(0.03) else 1)
    arguments = (held.order, held.lease, position, a, b)
    return scene.step(scene.anyone(), "Accusations", "fraud", *arguments, state=seat_state(scene, held))
