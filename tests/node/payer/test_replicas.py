"""verify="replicate": each unit by two workers; what contradicts is recomputed, what is alone waits."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from fakes.executor import Run, honest
from fakes.payer_scene import (
    PRICE,
    PayerNode,
    Peer,
    Scene,
    caught,
    cheat,
    honest_result,
    paid_units,
    result_of,
)
from fakes.seldom import seldom
from tallymesh import api
from tallymesh.errors import CallerError
from tallymesh.ids import BlobId, UnitId
from tallymesh.messages import AuditReason
from tallymesh.units import Unit
from tallymesh_ledger.audit import Audit, Outcome, Subject
from tallymesh_ledger.keys import checksum
from tallymesh_node.payer import judging
from tallymesh_node.payer.book import Book
from tallymesh_node.payer.records import Recomputed
from tallymesh_node.payer.replicas import ALONE, DISPUTED, backed, covered, may_run, open_units


def bad_only(item: bytes) -> Run:
    """One unit of the job is not done, all others are."""

    def run(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        return cheat(unit, inputs) if unit.input("item") == item else honest(unit, inputs)

    return run


def runners(payer: PayerNode, job: str) -> dict[bytes, set[bytes]]:
    """Unit -> accounts with an accepted run of it."""
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for held in payer.service._driver(job).book.all():
        for unit in held.seat.assigned[: held.seat.accepted_units]:
            found[unit].add(held.account)
    return found


def heard_twice(payer: PayerNode, job: str) -> list[tuple[str, str]]:
    """(unit, account) of accounts whose word on a unit was asked for as a worker's and as an auditor's."""
    ran = {
        (unit.hex(), checksum(each))
        for unit, accounts in payer.service._driver(job).book.ran.items()
        for each in accounts
    }
    return [(audit.unit, audit.auditor) for audit in payer.service.audits(job) if (audit.unit, audit.auditor) in ran]


def unseconded(payer: PayerNode, job: str) -> list[str]:
    """Units that count with neither a second worker's word nor a recomputation's."""
    audited = {audit.unit for audit in payer.service.audits(job) if audit.result == "match"}
    return [
        unit.hex() for unit, accounts in runners(payer, job).items() if len(accounts) < 2 and unit.hex() not in audited
    ]


@pytest.mark.parametrize(("kind", "more"), seldom([("map", {"items": 12}), ("federated", {"items": 3, "rounds": 2})]))
async def test_each_unit_is_run_and_paid_twice_from_two_seats(
    scene: Scene, payer: PayerNode, kind: str, more: dict[str, int]
) -> None:
    peers = scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec(kind, **more)
        job = await payer.submit(spec, verify="replicate")
        view = await payer.wait(job)
        honest_ones = honest_result(payer, spec)
        assert result_of(payer, spec, view) == (honest_ones if kind == "map" else honest_ones[-1:])
        ran = runners(payer, job)
        assert len(ran) == view.units
        assert {len(accounts) for accounts in ran.values()} <= {1, 2}
        assert unseconded(payer, job) == []
        assert view.units - len(view.peers) <= view.replicated <= view.units  # but for first units, which are audited
        assert view.redone == 0
        assert heard_twice(payer, job) == []
        assert {audit.reason for audit in payer.service.audits(job)} <= {"first", "drawn"}  # what is in order waits
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == sum(len(accounts) for accounts in ran.values())
        outputs = [event for event in payer.service.events(job, 0) if event.kind == "unit"]
        assert len(outputs) == view.units  # shown once, when they count


async def test_two_workers_are_leased_at_once_though_one_would_be_wide_enough(scene: Scene, payer: PayerNode) -> None:
    """And neither for more than it can be given: each lease holds wages that the other needs."""
    scene.crowd(4, cores=4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("sequential", rounds=3)
        job = await payer.submit(spec, verify="replicate")
        view = await payer.wait(job)
        assert view.result == honest_result(payer, spec)[-1].hex()
        seats = [event for event in payer.service.events(job, 0) if event.kind == "seat"]
        assert [(seat.at, seat.data["positions"]) for seat in seats] == [(seats[0].at, 3)] * 2


@pytest.mark.slow
async def test_one_bad_unit_is_caught_for_certain(scene: Scene, payer: PayerNode) -> None:
    """Whichever it is, and though no draw is near it: a sample finds it one time in twenty-five."""
    peers = scene.crowd(5)
    spec = payer.spec("map", items=12)
    peers[0].ask = PRICE // 2
    peers[0].working.functions["m:f"] = bad_only(spec.inputs[7])
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(spec, verify="replicate")
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        [(peer, check)] = caught(payer, job)
        said = {event.data.get("sentence", "") for event in payer.service.events(job, 0) if event.kind == "warning"}
        assert peer == "peer-1"
        # Unless a draw met it before the other run of it was there.
        assert check.split(":")[1] in ("first", "drawn") or any(DISPUTED in sentence for sentence in said)
        assert unseconded(payer, job) == []
        await payer.wait_empty(job)
        # Nobody who told the truth lost anything: each unit of the others that was received was paid.
        lost = [r for r in payer.service.receipts(job) if r.void and r.account != view_account(view, peers[0])]
        assert lost == []


def view_account(view: api.JobView, peer: Peer) -> str:
    return next(each.account for each in view.peers if each.peer_id == peer.peer_id)


@pytest.mark.slow
async def test_a_run_that_is_lost_is_done_by_another(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5, seconds=2.0)
    for peer in peers[:2]:
        peer.ask = PRICE // 2
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=10)
        job = await payer.submit(spec, verify="replicate")
        await payer.wait(job, "running")
        while not peers[0].working.ran:  # noqa: ASYNC110
            await trio.sleep(0.2)
        peers[0].kill()
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert unseconded(payer, job) == []


@pytest.mark.slow
async def test_two_accounts_of_one_owner_are_one_opinion(scene: Scene, payer: PayerNode) -> None:
    """Both lie alike and are cheaper than all others: a job that took one as the second run would believe it."""
    peers = scene.crowd(6)
    for peer in peers[:2]:
        peer.ask = PRICE // 2
    spec = payer.spec("map", items=10)
    for peer in peers[:2]:
        peer.working.functions["m:f"] = bad_only(spec.inputs[4])
    one = peers[0].key.address
    candidates = scene.candidates

    def owned(now: int) -> list[object]:
        mine = {peer.key.address for peer in peers[:2]}
        return [msgspec.structs.replace(c, owner=one) if c.offer.account in mine else c for c in candidates(now)]

    scene.candidates = owned  # type: ignore[assignment, method-assign]
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(spec, verify="replicate")
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert not any({p.key.address for p in peers[:2]} <= accounts for accounts in runners(payer, job).values())
        before = itertools.takewhile(lambda event: event.kind != "caught", payer.service.events(job, 0))
        seated = {event.data["peer"] for event in before if event.kind == "seat"}
        assert len(seated & {"peer-1", "peer-2"}) == 1, "nor does it cost a seat"


def test_an_auditor_of_one_run_is_not_given_the_other() -> None:
    """It was handed what the first worker found."""
    unit: Any = UnitId(b"u" * 32)
    seat = SimpleNamespace(owner=b"A")
    book: Any = SimpleNamespace(
        copies=2, placed={unit: ((b"a", 3),)}, helds={b"a": seat}, orders={(b"a", 3, b"C"): b"digest"}
    )
    task: Any = SimpleNamespace(unit_id=unit)
    for account, may in ((b"A", False), (b"C", False), (b"D", True)):
        held: Any = SimpleNamespace(id=account, owner=account, account=account, width=1)
        assert may_run(book, held, task, {}, {}) == may


@pytest.mark.slow
async def test_with_one_worker_a_job_waits_and_says_for_whom(scene: Scene, payer: PayerNode) -> None:
    alone = scene.join(1)
    for number in range(2, 6):
        scene.join(number, works=False)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=10)
        job = await payer.submit(spec, verify="replicate")
        await payer.wait(job, "running")
        await trio.sleep(40)
        assert "no_worker" in {problem.code for problem in payer.service.why(job)}
        assert payer.service.job(job).units_done <= 1  # its first unit, which an auditor computed again
        assert len(alone.working.ran) <= 6  # it is not sent ahead of what nobody seconds
        late = scene.join(9)
        await nursery.start(late.run)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert unseconded(payer, job) == []


@pytest.mark.slow
async def test_a_unit_that_nobody_seconds_in_time_is_audited_and_paid(scene: Scene, payer: PayerNode) -> None:
    """An output that was made superfluous, or whose second workers all vanish, does not hold up its worker's pay."""
    scene.join(1)
    scene.join(2).working.seconds = {"": 100_000.0}
    for number in range(3, 7):
        scene.join(number, works=False)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=4)
        job = await payer.submit(spec, verify="replicate")
        view = await payer.wait(job, "done")
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert payer.service.audits(job)
        assert view.replicated == 0
        events = payer.service.events(job, 0)
        warned = [event.at for event in events if event.kind == "warning" and ALONE in event.data["sentence"]]
        assert min(warned) - events[0].at > 80, "two workers, one after the other, had a unit's time each"


async def test_the_budget_pays_for_two_runs_or_says_what_is_needed(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=40)
        enough = 40 * PRICE * 12 // 10  # for one run of each unit, and the audits of a sample
        job = await payer.submit(spec, budget=enough, verify="replicate")
        with trio.fail_after(300):
            while not (short := [p for p in payer.service.why(job) if p.code == "budget_too_small"]):  # noqa: ASYNC110
                await trio.sleep(1)
        [problem] = short
        assert "A budget of" in problem.remedy
        await payer.service.cancel(job)
        await payer.wait(job, "cancelled")
        with pytest.raises(CallerError) as caught_error:
            await payer.submit(spec, budget=79, verify="replicate")
        assert caught_error.value.code == "budget_too_small"
        assert "2 times" in caught_error.value.sentence


@pytest.mark.slow
async def test_after_a_crash_the_book_says_the_same(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    spec = payer.spec("map", items=10)
    peers[2].working.functions["m:f"] = bad_only(spec.inputs[3])
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(spec, verify="replicate")
        for _ in range(3):
            await trio.sleep(4)
            before = payer.service._driver(job).book
            payer.crash()
            await payer.start(nursery)
            after = payer.service._driver(job).book
            assert before.placed == after.placed
            assert before.produced == after.produced
            assert before.working == after.working
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)


async def test_what_was_done_of_a_cancelled_job_is_paid_without_a_second_run(scene: Scene, payer: PayerNode) -> None:
    """Nothing of it is used: its sample is enough, and nobody is asked to run it once more."""
    alone = scene.join(1)
    for number in range(2, 6):
        scene.join(number, works=False)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=12), verify="replicate")
        await payer.wait(job, "running")
        await trio.sleep(20)
        await payer.service.cancel(job)
        await payer.wait(job, "cancelled")
        await payer.wait_empty(job)
        assert paid_units(scene, alone) == len(alone.working.ran) > 2
        assert {audit.reason for audit in payer.service.audits(job)} <= {"first", "drawn"}


# The rules alone.

U, V = UnitId(b"u" * 32), UnitId(b"v" * 32)


def book(**facts: Any) -> Any:
    return SimpleNamespace(copies=2, training=False, produced={}, orders={}, **facts)


def test_an_account_takes_of_the_units_that_are_left_those_that_it_has_not() -> None:
    mine, other = (SimpleNamespace(owner=name, stage=0, positions_left=10) for name in (b"A", b"B"))
    found = book(
        helds={b"a": mine, b"b": other}, placed={U: ((b"a", 0),), V: ((b"b", 0),)}, working={0: {U, V}},
        units_left=lambda stage: 5,
    )  # fmt: skip
    held: Any = mine
    assert covered(found, held) == 4


def test_a_unit_of_a_round_that_is_done_again_gets_no_second_run() -> None:
    plan = SimpleNamespace(ready=lambda: [SimpleNamespace(unit_id=V, node=SimpleNamespace(stage=0))])
    found = book(placed={U: ((b"a", 0),), V: ((b"a", 1),)}, working={0: {U, V}}, plan=plan)
    found.training = True
    assert open_units(found, 0) == [V]


@pytest.mark.parametrize(("own", "agrees"), [(b"right", True), (b"other", False)])
def test_a_run_of_the_payers_own_node_is_a_second_word(own: bytes, agrees: bool) -> None:
    seat = SimpleNamespace(assigned=[U], openings={0: SimpleNamespace(end=b"right")})
    held: Any = SimpleNamespace(id=b"a", audits={}, seat=seat)
    found = book(helds={b"a": held}, placed={U: ((b"a", 0),)}, plan=SimpleNamespace(output=lambda unit: own))
    assert not backed(found, held, 0), "its own word is none"
    found.produced[U] = None
    assert backed(found, held, 0) == agrees


def test_a_run_that_the_payers_own_node_confirmed_counts_at_once_and_not_only_when_it_is_paid() -> None:
    """Its Accept comes with the last verdict of its tally, and a round may wait for this one output."""
    audit = Audit(
        Subject(seed=b"s" * 32, index=0, end=b"right", reason=AuditReason.FORCED), auditors_min=3, answers_max=3
    )
    seat = SimpleNamespace(assigned=[U], openings={0: SimpleNamespace(unit_id=U, end=b"right")}, accepted_units=0)
    held = SimpleNamespace(
        id=b"a", audits={0: audit}, seat=seat, stage=0, unchecked=set(), convicted=False, gated=lambda *_, **__: False
    )
    outputs: dict[bytes, bytes] = {}
    found = book(
        helds={b"a": held}, held=lambda seat: held, placed={U: ((b"a", 0),)}, working={0: {U}}, counted=[],
        plan=SimpleNamespace(record=outputs.__setitem__, output=outputs.get), _unlist=lambda unit: None,
        recomputations=0, struck=set(),
    )  # fmt: skip
    found.use = partial(Book.use, found)
    found.use(held, 0)
    assert outputs == {}, "one word is none"
    judging.recomputed(found, Recomputed(b"a", 0, b"right", (0,)))
    assert audit.outcome is Outcome.SOUND
    assert (outputs, found.counted) == ({U: b"right"}, [U])


def test_two_results_make_both_runs_doubtful_but_one_that_is_paid() -> None:
    def run(seat: bytes, end: bytes, accepted: int) -> Any:
        facts = SimpleNamespace(openings={0: SimpleNamespace(end=end)}, accepted_units=accepted)
        return SimpleNamespace(id=seat, seat=facts, bad={}, pending_tallies=list)

    for accepted, doubtful in ((0, True), (1, False)):
        first, second = run(b"a", b"one", accepted), run(b"b", b"two", 0)
        judging.dispute(book(helds={b"a": first, b"b": second}, placed={U: ((b"a", 0), (b"b", 0))}), U)
        assert (0 in first.bad, 0 in second.bad) == (doubtful, True)
    same = run(b"b", b"one", 0)
    judging.dispute(book(helds={b"a": first, b"b": same}, placed={U: ((b"a", 0), (b"b", 0))}), U)
    assert same.bad == {}
