"""Every (state, call, role) of a seat, and of a job: what each call does where, as one table.

A letter an outcome: `+` takes effect, a number is the escrow's reason for leaving the item out, a word the error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fakes.contract_world import NOBODY, Job, Reverted
from fakes.quarrel import BOND, CLAIM_TALLY, PRICE, Quarrel, refused
from tallymesh.messages import Accept, Release
from tallymesh_ledger.chain.contract import Refusal, compact

OK = "+"
NOT_OPEN, DISPUTED, TOO_EARLY = Refusal.NOT_OPEN, Refusal.DISPUTED, Refusal.TOO_EARLY


def never(scene: Quarrel) -> None:
    """The job is open, the lease was never seated."""


def opened(scene: Quarrel) -> None:
    seat(scene)
    scene.settle(10)


def held(scene: Quarrel) -> None:
    opened(scene)
    scene.hold()


def full_and_held(scene: Quarrel) -> None:
    held(scene)
    scene.settle(100)


def accused(scene: Quarrel) -> None:
    opened(scene)
    scene.hold(by=scene.accusations)


def over(scene: Quarrel) -> None:
    opened(scene)
    scene.after_claim_window()


def over_and_held(scene: Quarrel) -> None:
    held(scene)
    scene.after_claim_window()


def over_and_accused(scene: Quarrel) -> None:
    accused(scene)
    scene.after_claim_window()


def closed(scene: Quarrel) -> None:
    opened(scene)
    scene.close(10)


def closed_and_held(scene: Quarrel) -> None:
    closed(scene)
    scene.hold()


def forfeited(scene: Quarrel) -> None:
    held(scene)
    scene.forfeit()


def tail_over(scene: Quarrel) -> None:
    closed(scene)
    scene.world.wait(scene.world.parameters.lock_tail_s)


def tail_over_and_held(scene: Quarrel) -> None:
    closed_and_held(scene)
    scene.world.wait(scene.world.parameters.lock_tail_s)


def unlocked(scene: Quarrel) -> None:
    tail_over(scene)
    scene.unlock()


def seat(scene: Quarrel) -> None:
    scene.call("seat", scene.job.order, [scene.job.seating(0)], by=scene.job.payer)
    assert scene.seat()["state"] == 1


STATES: tuple[Callable[[Quarrel], None], ...] = (
    never, opened, held, full_and_held, over, over_and_held, closed, closed_and_held, forfeited, tail_over,
    tail_over_and_held, unlocked, accused, over_and_accused,
)  # fmt: skip

# What each call does in each state, in the order of STATES, by whoever may do it. (`settle` is of 50 units, `close` of
# 10, which are paid.)
NEW, PAID = Refusal.NOTHING_NEW, Refusal.ALREADY_SEATED
N, D, E = NOT_OPEN, DISPUTED, TOO_EARLY
H = "not_held"
TABLE: dict[str, tuple[Any, ...]] = {
    #            never  open  held  full  over  over+h closed clos+h forf  tail  tail+h unlocked accused over+a
    "seat":     (OK,    PAID, PAID, PAID, Refusal.TOO_LATE, Refusal.TOO_LATE, PAID, PAID, PAID, Refusal.TOO_LATE,
                 Refusal.TOO_LATE, Refusal.TOO_LATE, PAID, Refusal.TOO_LATE),
    "settle":   (N,     OK,   OK,   NEW,  OK,   OK,    N,     N,     N,    N,    N,     N,    OK,   OK),
    "close":    (N,     OK,   D,    D,    OK,   D,     N,     N,     N,    N,    N,     N,    OK,   OK),
    "expire":   (N,     E,    E,    E,    OK,   D,     N,     N,     N,    N,    N,     N,    E,    OK),
    "unlock":   (N,     N,    N,    N,    N,    N,     E,     E,     E,    OK,   D,     N,    N,    N),
    "payAudits": (N,    OK,   OK,   OK,   OK,   OK,    OK,    OK,    OK,   OK,   OK,    OK,   OK,   OK),
    "hold":     (H,     OK,   OK,   OK,   OK,   OK,    OK,    OK,    OK,   H,    H,     H,    OK,   OK),
    "letGo":    (H,     H,    OK,   OK,   H,    OK,    H,     OK,    OK,   H,    OK,    H,    OK,   OK),
    "payClaim": (0,     OK,   OK,   0,    OK,   OK,    0,     0,     0,    0,    0,     0,    OK,   OK),
    "takeBond": (H,     H,    OK,   OK,   H,    OK,    H,     0,     OK,   H,    0,     H,    OK,   OK),
    "forfeit":  (H,     H,    OK,   OK,   H,    OK,    H,     OK,    OK,   H,    OK,    H,    OK,   OK),
    "slash":    (H,     H,    OK,   OK,   H,    OK,    H,     OK,    OK,   H,    OK,    H,    OK,   OK),
}  # fmt: skip
ROLES = ("payer", "signer", "worker", "stranger", "claims", "accusations")
TRUSTED = {"hold", "letGo", "payClaim", "takeBond", "forfeit", "slash"}


def attempt(scene: Quarrel, call: str, by: Any) -> Any:
    """The outcome as the table writes it. Messages carry all signatures, so the role alone decides."""
    job = scene.job
    auditor = scene.world.account()
    arguments: dict[str, tuple[Any, ...]] = {
        "seat": (job.order, [job.seating(0, by_signer=True)]),
        "settle": ([job.settlement(0, 50)],),
        "close": ([job.closing(0, 10)],),
        "expire": (job.order, [scene.lease]),
        "unlock": ([scene.lease],),
        "payAudits": (scene.lease, [job.audit(0, auditor, 5)]),
        "hold": (job.order, scene.lease),
        "letGo": (scene.lease,),
        "payClaim": (scene.lease, CLAIM_TALLY, 50, bytes(32)),
        "takeBond": (scene.lease, [auditor.address], [3]),
        "forfeit": (scene.lease,),
        "slash": (scene.lease, 5, job.payer.address, auditor.address, True),
    }
    try:
        done = scene.call(call, *arguments[call], by=by)
    except Reverted as error:
        return error.code
    why = refused(done)
    if why:
        return why[0]
    return 0 if call in ("payClaim", "takeBond") and done.value == 0 else OK


def caller(scene: Quarrel, role: str) -> Any:
    job = scene.job
    return {"payer": job.payer, "signer": job.signer, "worker": scene.worker, "stranger": scene.stranger,
            "claims": scene.claims, "accusations": scene.accusations}[role]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_call_of_every_role_in_this_state(state: Callable[[Quarrel], None]) -> None:
    column = STATES.index(state)
    wrong = []
    scene = Quarrel(seated=False, spare=200 * PRICE)  # enough to seat it again, were that allowed
    scene.call("open", scene.job.order, [], by=scene.job.payer)
    state(scene)
    before = snapshot(scene)
    for call, row in TABLE.items():
        for role in ROLES:
            expected = row[column] if role in ("claims", "accusations") or call not in TRUSTED else "not_claims"
            with scene.undone():
                found = attempt(scene, call, caller(scene, role))
                if found != OK and snapshot(scene) != before:
                    wrong.append((call, role, "changed something", found))
            if found != expected:
                wrong.append((call, role, expected, found))
    assert snapshot(scene) == before, "each call found the state that it is about"
    assert wrong == []


def snapshot(scene: Quarrel) -> tuple[Any, ...]:
    """Everything that a call about this seat may change."""
    accounts = (scene.job.payer, scene.worker, scene.stranger)
    return (
        scene.seat(), scene.held(), [scene.credit(each.address) for each in accounts], scene.lock_left(),
        scene.stake(scene.worker.address), scene.balance("JobEscrow"), scene.balance("Registry"),
        scene.world.read("JobEscrow", "feesToBurn"),
    )  # fmt: skip


# ---- the job


def job_opened(scene: Quarrel) -> None:
    scene.call("open", scene.job.order, [], by=scene.job.payer)


def job_at_work(scene: Quarrel) -> None:
    job_opened(scene)
    seat(scene)


def job_past_deadline(scene: Quarrel) -> None:
    job_at_work(scene)
    scene.world.wait(scene.job.order.deadline + 1 - scene.world.now)


def job_over(scene: Quarrel) -> None:
    job_past_deadline(scene)
    scene.after_claim_window()
    scene.expire()


JOB_STATES: tuple[Callable[[Quarrel], None], ...] = (
    lambda scene: None, job_opened, job_at_work, job_past_deadline, job_over,
)  # fmt: skip
NO, EXISTS, LATE, MUST_WAIT = "no_such_job", "job_exists", "deadline_passed", "not_refundable"
JOB_TABLE: dict[tuple[str, str], tuple[str, ...]] = {
    #                      none  opened     at work    deadline   over
    ("open", "payer"):     (OK, EXISTS, EXISTS, LATE, LATE),
    ("open", "signer"):    ("not_payer",) * 5,
    ("open", "worker"):    ("not_payer",) * 5,
    ("open", "stranger"):  ("not_payer",) * 5,
    ("refund", "payer"):   (NO, OK, OK, OK, OK),
    ("refund", "signer"):  (NO, OK, OK, OK, OK),
    ("refund", "worker"):  (NO, MUST_WAIT, MUST_WAIT, MUST_WAIT, OK),
    ("refund", "stranger"): (NO, MUST_WAIT, MUST_WAIT, MUST_WAIT, OK),
    ("finish", "payer"):   (NO, OK, OK, OK, OK),
    ("finish", "signer"):  (NO, OK, OK, OK, OK),
    ("finish", "worker"):  (NO, OK, OK, OK, OK),
    ("finish", "stranger"): (NO, OK, OK, OK, OK),
    ("expire", "stranger"): (NO, OK, OK, OK, OK),
    ("seat", "stranger"):  (NO, OK, OK, OK, OK),
}  # fmt: skip


@pytest.mark.parametrize(("call", "role"), JOB_TABLE)
@pytest.mark.parametrize("column", range(5), ids=["none", "opened", "at work", "past its deadline", "over"])
def test_every_call_about_a_job_in_every_state(call: str, role: str, column: int) -> None:
    scene = Quarrel(seated=False)
    JOB_STATES[column](scene)
    arguments: tuple[Any, ...] = () if call == "refund" else ([],)
    try:
        scene.call(call, scene.job.order, *arguments, by=caller(scene, role))
        found = OK
    except Reverted as error:
        found = error.code
    assert found == JOB_TABLE[call, role][column]


# ---- the same word somewhere else, or again


def other_job(scene: Quarrel) -> Job:
    """A second job of the same people, with its own seat of the same worker."""
    job = scene.job
    scene.world.call("Token", "transfer", job.payer.address, 10 * job.order.wages, by=scene.world.bank)
    scene.registry("buySlots", scene.worker.address, 1, by=scene.world.funded(scene.world.parameters.slot_wei))
    twin = object.__new__(Job)
    twin.__dict__.update(job.__dict__)
    twin.order = msgspec.structs.replace(job.order, salt=b"\x99" * 32)
    scene.job = twin
    scene.renew()
    scene.call("open", twin.order, [twin.seating(0)], by=twin.payer)
    assert scene.seat()["state"] == 1
    scene.job = job
    return twin


@pytest.mark.parametrize("message", ["accept", "release", "audit", "lease"])
@pytest.mark.parametrize(
    "where", ["another job", "another chain", "another contract", "another signer", "twice", "after close"]
)
def test_a_signed_word_counts_in_one_place_once(message: str, where: str) -> None:
    """The replay matrix: money moves only for the word, the seat and the moment that it was signed for."""
    scene = Quarrel(spare=200 * PRICE)
    job, world = scene.job, scene.world
    auditor = world.account()
    twin = other_job(scene)
    target = twin if where == "another job" else job
    domains = world.domains
    if where == "another chain":
        domains = msgspec.structs.replace(domains, escrow=msgspec.structs.replace(domains.escrow, chain_id=1))
    if where == "another contract":
        domains = msgspec.structs.replace(domains, escrow=domains.registry)
    keys = {"signer": job.signer, "worker": scene.worker, "auditor": auditor}
    if where == "another signer":
        keys = dict.fromkeys(keys, world.account())

    def sign(who: str, word: Any) -> tuple[bytes, bytes]:
        return compact(keys[who].sign(domains, word).signature)

    lease = target.leases[0]
    accept = Accept(seat=job.seats[0], tally=1, units=10, chain=bytes(32), next_secret=bytes(32))
    release = Release(seat=job.seats[0], units=0)
    order, _, verdict, _ = job.audit(0, auditor, 3)
    fresh = msgspec.structs.replace(job.leases[0], nonce=77)
    calls: dict[str, tuple[Any, ...]] = {
        "accept": ("settle", [(lease, accept, sign("signer", accept))]),
        "release": ("close", [(lease, release, sign("worker", release))]),
        "audit": ("payAudits", lease, [(order, sign("signer", order), verdict, sign("auditor", verdict))]),
        "lease": ("seat", target.order, [(fresh, sign("worker", fresh), sign("signer", fresh))]),
    }
    first, *rest = calls[message]
    if message == "lease" and where in ("twice", "after close"):
        first, *rest = "seat", job.order, [job.seating(0, by_signer=True)]  # it was seated by `open`
    elif where == "twice":
        assert scene.call(first, *rest, by=scene.stranger).value == 1
    if where == "after close":
        scene.close(0)
    before = snapshot(scene)
    found = scene.call(first, *rest, by=scene.stranger)
    late_audit = message == "audit" and where == "after close"  # auditors are paid after the seat closed, too
    assert found.value == (1 if late_audit else 0)
    assert late_audit or (len(refused(found)) == 1 and snapshot(scene) == before)


def test_what_the_table_leaves_out_is_nothing() -> None:
    assert all(len(row) == len(STATES) for row in TABLE.values())
    assert BOND > 3 * PRICE
    assert (bytes(32), bytes(32)) == NOBODY
