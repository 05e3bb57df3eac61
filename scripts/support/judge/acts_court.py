"""Random calls of Court: a case is led through its states, or left to its deadlines."""

from __future__ import annotations

import random

from judge.scene import Scene
from judge.sides import Step
from tallymesh_ledger.eip712 import keccak, word
from tallymesh_ledger.model.draws import SEED_DELAY
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD
from tallymesh_ledger.model.trials import Case, State, Vote

STATES_OF_CASE = tuple(state.name.lower() for state in State)


def case_state(scene: Scene, id_: bytes) -> str:
    return State(scene.world.court.case_of(id_).state).name.lower()


def on_case(scene: Scene) -> Step | None:
    """Whatever comes next in a case."""
    court = scene.world.court
    recent = [id_ for id_ in scene.cases[-60:] if court.case_of(id_).state != State.NONE]
    live = [id_ for id_ in recent if court.case_of(id_).state != State.RULED]
    if not live:
        return advance(scene, scene.one(recent)) if recent and scene.chance(0.003) else None
    id_ = scene.one(live[:4])
    case = court.case_of(id_)
    if scene.chance(0.01):
        return advance(scene, id_)
    if case.state in (State.POSTING, State.ANSWERING):
        return move(scene, id_, case)
    if case.state == State.DRAWING:
        blocks = 300 if scene.chance(0.05) else scene.one([SEED_DELAY, 5, 5, 5, 5, 5, 5, 7])
        scene.block = max(scene.block, case.drawn_block + blocks)
        return advance(scene, id_)
    if case.state == State.VOTING:
        return voting(scene, id_, case)
    scene.expect(case.deadline, lambda: appeal_live(scene, id_))
    if scene.chance(0.3) and scene.now <= case.deadline:
        return appeal(scene, id_)
    if scene.chance(0.8):
        scene.now = max(scene.now, case.deadline + scene.one([0, 1, 1, 1, 1, 1]))
    return advance(scene, id_)


def advance(scene: Scene, id_: bytes) -> Step:
    scene.model.at(scene.now, scene.block)
    return scene.step(scene.anyone(), "Court", "advance", id_, state=case_state(scene, id_))


def move(scene: Scene, id_: bytes, case: Case) -> Step:
    if scene.chance(0.06) or (scene.now > case.deadline and scene.chance(0.9)):
        scene.now = max(scene.now, case.deadline + scene.one([0, 1, 1, 1, 1, 1]))
        return advance(scene, id_)
    parties = scene.world.court.parties_of(id_)
    scene.expect(case.deadline, lambda: move_again(scene, id_))
    posting = case.state == State.POSTING
    function, by = ("post", parties.accused) if posting else ("answer", parties.accuser)
    value = keccak(b"step" + word((case.lo + case.hi) // 2)) if posting else case.posted
    if scene.chance(0.4):
        value = scene.rng.randbytes(32)
    if scene.chance(0.05):
        function, by = scene.one([("post", parties.accused), ("answer", parties.accuser), (function, scene.anyone())])
    by = by if by in scene.keys else scene.anyone()
    return scene.step(by, "Court", function, id_, value, state=case_state(scene, id_))


def move_again(scene: Scene, id_: bytes) -> Step | None:
    case = scene.world.court.case_of(id_)
    return move(scene, id_, case) if case.state in (State.POSTING, State.ANSWERING) else None


def appeal_live(scene: Scene, id_: bytes) -> Step | None:
    return appeal(scene, id_) if scene.world.court.case_of(id_).state == State.APPEALABLE else None


def appeal(scene: Scene, id_: bytes) -> Step:
    parties = scene.world.court.parties_of(id_)
    by = scene.one([parties.accused, parties.accuser]) if scene.chance(0.93) else scene.anyone()
    by = by if by in scene.keys else scene.anyone()
    return scene.step(by, "Court", "appeal", id_, state=case_state(scene, id_))


def voting(scene: Scene, id_: bytes, case: Case) -> Step:
    court = scene.world.court
    size = court.terms.appeal_panel if case.appealed else court.terms.panel
    ballots = {member: court.ballot_of(id_, case.round, member) for member in range(size)}
    missing = [member for member, ballot in ballots.items() if ballot.member == ZERO_ADDRESS]
    sealed = [m for m, ballot in ballots.items() if ballot.member != ZERO_ADDRESS and ballot.vote == Vote.NONE]
    scene.expect(case.deadline, lambda: voting_again(scene, id_))
    scene.expect(case.reveal_until, lambda: voting_again(scene, id_))
    if len(missing) == size and scene.chance(0.04):  # nobody has come: in the last second in which somebody could
        scene.now = max(scene.now, case.deadline)
        return advance(scene, id_)
    if missing and scene.now <= case.deadline and scene.chance(0.93):
        return commit(scene, id_, case, scene.one(missing), size)
    if sealed and scene.now <= case.reveal_until and scene.chance(0.93):
        if missing and scene.chance(0.9):
            scene.now = max(scene.now, case.deadline + 1)
        return reveal(scene, id_, case, scene.one(sealed))
    if scene.chance(0.85):
        scene.now = max(scene.now, case.reveal_until + scene.one([0, 1, 1, 1, 1, 1]))
    return advance(scene, id_)


def voting_again(scene: Scene, id_: bytes) -> Step | None:
    case = scene.world.court.case_of(id_)
    return voting(scene, id_, case) if case.state == State.VOTING else None


def commit(scene: Scene, id_: bytes, case: Case, member: int, size: int) -> Step:
    account, attempt = scene.world.court.member_at(id_, member)
    by = account if account in scene.keys and scene.chance(0.97) else scene.anyone()
    # most of a panel are of one mind, which one depends on the case and the round
    mood = random.Random(id_ + bytes([case.round]))
    leaning = mood.choice([case.accused_value, case.accuser_value, case.accuser_value, ZERO_WORD, b"\x0e" * 32])
    result = leaning if scene.chance(0.8) else scene.one([case.accused_value, case.accuser_value, ZERO_WORD])
    salt = scene.rng.randbytes(32)
    scene.votes[id_, case.round, member] = (result, salt)
    commitment = keccak(b"".join(word(part) for part in (result, salt, by)))
    if scene.chance(0.03):
        beyond, there = scene.world.court.member_at(id_, size)  # a member too many
        by = beyond if beyond in scene.keys else by
        member, attempt = scene.one([(size, there), (size, there), (member, attempt + 1), (member, 128)])
    return scene.step(by, "Court", "commit", id_, member, attempt, commitment, state=case_state(scene, id_))


def reveal(scene: Scene, id_: bytes, case: Case, member: int) -> Step:
    ballot = scene.world.court.ballot_of(id_, case.round, member)
    result, salt = scene.votes.get((id_, case.round, member), (ZERO_WORD, ZERO_WORD))
    if scene.chance(0.03):
        salt = scene.rng.randbytes(32)
    by = ballot.member if scene.chance(0.97) else scene.anyone()
    return scene.step(by, "Court", "reveal", id_, member, result, salt, state=case_state(scene, id_))
