"""Workers, payers, networks and chains that fail in the middle of a job."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import msgspec
import pytest
import trio

from fakes import payer_scene
from fakes.chain import DOMAINS
from fakes.payer_scene import (
    PARAMETERS,
    PRICE,
    PayerNode,
    Puppet,
    Scene,
    cheat,
    honest_result,
    paid_units,
    result_of,
)
from tallymesh import api
from tallymesh.errors import LocalError
from tallymesh.messages import Order
from tallymesh.plan import Plan
from tallymesh_ledger import waits
from tallymesh_ledger.waits import Step
from tallymesh_node.interfaces import Entry, Failure
from tallymesh_scheduler.leases import LeaseState


@pytest.mark.slow
async def test_a_worker_that_dies_is_replaced_and_paid_for_what_it_proved(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=40)
        job = await payer.submit(spec)
        await trio.sleep(9.5)
        proven = payer.service._driver(job).book
        received = {h.account: len(h.seat.leaves) for h in proven.all()}
        peers[0].kill()
        died = trio.current_time()
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        lost = next(peer for peer in view.peers if peer.peer_id == "peer-1")
        assert lost.problem is not None
        assert lost.problem.code in ("silent", "unreachable")
        given_up = next(e.at for e in payer.service.events(job, 0) if e.kind == "warning" and e.data.get("code"))
        assert given_up - died - 1_800_000_000 <= 6
        assert trio.current_time() - died < 60
        await payer.wait_empty(job)
        assert paid_units(scene, peers[0]) == received[peers[0].key.address] > 0
        assert sum(paid_units(scene, peer) for peer in peers) == 40


@pytest.mark.slow
async def test_a_worker_that_falls_silent_but_is_reachable_is_given_up(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5, seconds=2.0)
    mute = {"peer-2"}
    scene.network.lose = lambda sender, receiver, name: sender in mute and receiver == "payer" and bool(hung)
    hung: list[bool] = []
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=20)
        job = await payer.submit(spec)
        await trio.sleep(5)
        hung.append(True)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == 20


@pytest.mark.slow
async def test_units_do_not_overtake_the_accept_without_which_they_are_refused(scene: Scene, payer: PayerNode) -> None:
    """One that is slow to arrive, on a loaded machine, made the payer give up a worker that it then replaced."""
    scene.parameters = scene.chain.parameters = msgspec.structs.replace(scene.parameters, tally_units=3)
    peers = scene.crowd(3)
    scene.network.lose = lambda sender, receiver, name: name == "accept" and trio.current_time() - began < 20
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=30)
        began = trio.current_time()
        view = await payer.wait(await payer.submit(spec))
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert [peer.problem for peer in view.peers] == [None] * len(peers)


@pytest.mark.slow
async def test_a_worker_that_is_too_slow_is_given_up(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(4)
    scene.join(9, seconds=10_000)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=15)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        slow = next(peer for peer in view.peers if peer.peer_id == "peer-9")
        assert slow.problem is not None
        assert slow.problem.code == "too_slow"


@pytest.mark.slow
async def test_a_cheap_worker_that_is_late_each_time_does_not_keep_a_chain_to_itself(
    scene: Scene, payer: PayerNode
) -> None:
    """Each unit within its limit, thirty times what is declared: ten minutes for twenty seconds of work, if its next
    leases were its own again because it is the cheapest."""
    late, honest = scene.join(9, ask=PRICE // 10, seconds=30.0), scene.join(1)
    for number in (2, 3):
        scene.join(number, works=False)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("sequential", rounds=20)
        job = await payer.submit(spec)
        view = await payer.wait(job, timeout_s=150)
        assert result_of(payer, spec, view) == honest_result(payer, spec)[-1:]
        await payer.wait_empty(job)
        assert paid_units(scene, late) + paid_units(scene, honest) == 20  # what it did is paid like anybody's
        assert paid_units(scene, late) <= 3
        assert "late" in {e.data.get("code") for e in payer.service.events(job, 0) if e.kind == "warning"}


@pytest.mark.slow
async def test_workers_that_take_seats_and_never_start_cost_one_deadline_each(scene: Scene, payer: PayerNode) -> None:
    puppets = [Puppet(scene, number) for number in (7, 8, 9)]
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("sequential", rounds=20)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)[-1:]
    asked = [peer.peer_id for peer in view.peers if peer.received == 0]
    assert sorted(asked) == sorted(puppet.peer.peer_id for puppet in puppets)


async def test_a_unit_that_runs_out_of_its_limit_is_the_programs_fault_and_no_slow_worker_s(
    scene: Scene, payer: PayerNode
) -> None:
    """The worker ends it at the limit and says so. Its clock starts later than the payer's, which must hear it out."""
    peers = scene.crowd(3)
    limit = waits.seconds(Step.UNIT, PARAMETERS, work_ms=1000)
    assert payer.executor is not None
    for executor in (payer.executor, *(peer.working for peer in peers)):
        executor.seconds["m:f"] = limit + 1
        executor.fail["m:f"] = Failure("limits", f"It took more than {limit} s.")
    async with scene.running() as nursery:
        await payer.start(nursery)
        view = await payer.wait(await payer.submit(payer.spec("map", items=6)), "failed", timeout_s=300)
        assert view.problem is not None
        assert view.problem.code == "limits"
        assert not {peer.problem.code for peer in view.peers if peer.problem} & {"too_slow"}
        assert payer.service.trust.resting("worker") == {}


async def test_a_program_that_raises_fails_the_job_with_its_traceback(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    spec = payer.spec("map", items=12)
    error = Failure("program", "ValueError: 7.", "Traceback …\n  File mine.py, line 3\nValueError: 7")
    bad = list(Plan(spec).ready())[7].unit_id
    assert payer.executor is not None
    for executor in [payer.executor, *(peer.working for peer in peers), *(peer.auditing for peer in peers)]:
        executor.fail[bad] = error
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(spec)
        view = await payer.wait(job, "failed")
        assert view.problem is not None
        assert (view.problem.code, view.problem.traceback) == ("program", error.traceback)
        assert view.problem.sentence == "ValueError: 7. It was input 7."
        assert payer.service.trust.resting("worker") == {}, "the next job gets its workers at once"
        last = payer.service.events(job, 0)[-1]
        assert last.kind == "done" or any(e.kind == "done" for e in payer.service.events(job, 0))
        await payer.wait_empty(job)
        accepted = sum(held.seat.accepted_units for held in payer.service._driver(job).book.all())
        assert sum(paid_units(scene, peer) for peer in peers) == accepted


@pytest.mark.parametrize(("code", "shown"), [("program", "not_deterministic"), ("limits", "limits")])
async def test_a_program_that_fails_on_worker_after_worker_is_to_blame_though_it_runs_here(
    scene: Scene, payer: PayerNode, code: str, shown: str
) -> None:
    """It raises now and then. Else the job would wait in vain, and so would the next: its workers were left alone."""
    peers = scene.crowd(3)
    for peer in peers:
        peer.working.fail["m:f"] = Failure(code, "RuntimeError: bad luck")
    async with scene.running() as nursery:
        await payer.start(nursery)
        view = await payer.wait(await payer.submit(payer.spec("map", items=12)), "failed", timeout_s=300)
        assert view.problem is not None
        assert view.problem.code == shown
        assert "failed on 3 workers" in view.problem.sentence
        assert "bad luck" in view.problem.sentence
        assert view.problem.remedy
        assert payer.service.trust.resting("worker") == {}
        for peer in peers:
            peer.working.fail.clear()
        spec = payer.spec("map", items=6)
        view = await payer.wait(await payer.submit(spec))
        assert result_of(payer, spec, view) == honest_result(payer, spec)


async def test_two_workers_that_blame_the_program_cannot_end_the_job(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    for peer in peers[:2]:
        peer.working.fail["m:f"] = Failure("program", "ValueError: made up")
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=12)
        view = await payer.wait(await payer.submit(spec))
        assert result_of(payer, spec, view) == honest_result(payer, spec)


@pytest.mark.parametrize(("items", "which"), [(1, 0), (2, 0), (2, 1), (3, 2)])
async def test_a_unit_that_raises_on_a_seat_that_ends_fails_the_job_too(
    scene: Scene, payer: PayerNode, items: int, which: int
) -> None:
    """A small job's seats end as soon as everything is assigned: its failures come after that."""
    peers = scene.crowd(3)
    spec = payer.spec("map", items=items)
    error = Failure("program", "ValueError: 7", "Traceback …\nValueError: 7")
    bad = list(Plan(spec).ready())[which].unit_id
    assert payer.executor is not None
    for executor in [payer.executor, *(peer.working for peer in peers), *(peer.auditing for peer in peers)]:
        executor.fail[bad] = error
    async with scene.running() as nursery:
        await payer.start(nursery)
        view = await payer.wait(await payer.submit(spec), "failed")
        assert view.problem is not None
        assert (view.problem.code, view.problem.traceback) == ("program", error.traceback)
        assert payer.service.trust.resting("worker") == {}


async def test_a_lease_that_is_not_seated_yet_when_the_job_ends_is_called_off(scene: Scene, payer: PayerNode) -> None:
    """Else the worker's core waits for the seat of a job that is over while the payer's next job waits for the core."""
    worker = scene.join(1)
    scene.join(2)
    mute = ["peer-2"]  # while it is asked, the other's lease is agreed and not on chain
    scene.network.lose = lambda sender, receiver, name: receiver in mute and name == "lease"
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=40))
        await trio.sleep(0.1)
        (agreed,) = [h for h in payer.service._driver(job).book.all() if h.state is LeaseState.AGREED]
        assert agreed.account == worker.key.address
        await payer.service.cancel(job)
        await payer.wait_empty(job)
        assert agreed.problem == ("ended", "The job ended before its seat was taken.")
        mute.clear()
        scene.peers[1].offers = False
        began = trio.current_time()
        following = await payer.submit(payer.spec("map", items=4))
        await payer.wait(following)
        assert trio.current_time() - began < 30


@pytest.mark.parametrize(
    "code", ["program", *(pytest.param(code, marks=pytest.mark.slow) for code in ("limits", "inputs", "sandbox"))]
)
async def test_a_failure_of_one_worker_alone_is_its_own(scene: Scene, payer: PayerNode, code: str) -> None:
    peers = scene.crowd(5)
    peers[4].working.fail["m:f"] = Failure(code, "It did not work here.")
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=15)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        problems = {peer.peer_id: peer.problem.code for peer in view.peers if peer.problem is not None}
        assert problems["peer-5"] in (f"unit_{code}", "left")
        await payer.wait_empty(job)
        assert paid_units(scene, peers[4]) == 0


async def test_cancel_pays_what_was_verified_and_returns_the_rest(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5, seconds=2.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=100))
        await trio.sleep(11)
        await payer.service.cancel(job)
        await payer.service.cancel(job)
        assert payer.service.job(job).status == "cancelled"
        began = trio.current_time()
        view = await payer.wait_empty(job)
        assert trio.current_time() - began < 120
        book = payer.service._driver(job).book
        received = sum(len(held.seat.leaves) for held in book.all())
        assert 10 < received < 100
        assert sum(paid_units(scene, peer) for peer in peers) == received
        assert view.status == "cancelled"
        spent = 100 * 10**18 - scene.chain.balances[payer.key.address] - scene.chain.credits[payer.key.address]
        assert str(spent) == view.cost_wei


async def test_a_job_that_ends_before_its_first_result_gets_its_budget_back_at_once(
    scene: Scene, payer: PayerNode
) -> None:
    """Seats without a unit are released in answer to their end, instead of waiting for their leases to run out."""
    scene.crowd(3, seconds=30.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=40, work_ms=30_000))
        await payer.wait(job, "running")
        await trio.sleep(2)
        book = payer.service._driver(job).book
        assert all(held.state is LeaseState.SEATED for held in book.all())
        await payer.service.cancel(job)
        await payer.wait_empty(job)
        latest = max(held.lease.until for held in book.all())
        assert scene.chain.now() < latest - 60
        assert payer.service.job(job).cost_wei == "0"


async def test_cancel_before_anybody_was_found(scene: Scene, payer: PayerNode) -> None:
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=3))
        await payer.service.cancel(job)
        view = await payer.wait_empty(job)
        assert (view.status, view.cost_wei) == ("cancelled", "0")


async def test_a_worker_that_refuses_leases_is_passed_over_with_its_reason(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(4)
    scene.join(9, ask=PRICE // 2)
    scene.network.lose = lambda sender, receiver, name: receiver == "peer-9" and name == "lease"
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=8)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert "peer-9" not in {peer.peer_id for peer in view.peers}
        refused = [e.data for e in payer.service.events(job, 0) if e.kind == "lease" and e.data["state"] == "refused"]
        assert {(each["peer"], each["code"]) for each in refused} == {("peer-9", "timeout")}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 8))
async def test_lost_requests_cost_time_only(scene: Scene, payer: PayerNode, seed: int) -> None:
    scene.crowd(5)
    dice = random.Random(seed)
    scene.network.lose = lambda sender, receiver, name: name != "progress" and dice.random() < 0.1
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=4, rounds=2)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        await payer.wait_empty(job)


@pytest.mark.slow
async def test_a_chain_that_is_away_for_a_minute_delays_and_harms_nobody(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=20)
        job = await payer.submit(spec)
        await trio.sleep(2.5)
        scene.chain.down = True
        await trio.sleep(60)
        scene.chain.down = False
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == 20


async def test_a_full_disk_pauses_the_job_and_loses_nothing(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=20)
        job = await payer.submit(spec)
        await trio.sleep(2.5)
        payer.journal.broken = True
        await trio.sleep(2)
        assert "disk" in {problem.code for problem in payer.service.why(job)}
        payer.journal.broken = False
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == 20


@pytest.mark.slow
async def test_a_disk_that_cannot_even_be_read_pauses_one_job(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=20)
        job = await payer.submit(spec)
        await trio.sleep(2.5)
        payer.journal.broken = True

        def unreadable(scope: str, after: int = 0) -> Sequence[Entry]:
            raise LocalError("disk", "The disk answers no read.")

        with monkeypatch.context() as patch:
            patch.setattr(payer.journal, "read", unreadable)
            await trio.sleep(20)
        assert "The disk answers no read." in {problem.sentence for problem in payer.service.why(job)}
        payer.journal.broken = False
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_a_payer_that_restarts_anywhere_goes_on_from_its_journal(
    scene: Scene, payer: PayerNode, seed: int
) -> None:
    """Crashes at random lines of the journal: the same model, each unit paid once, nothing left behind."""
    peers = scene.crowd(5)
    peers[1].working.functions["tallymesh:client"] = cheat
    dice = random.Random(seed)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=5, rounds=3)
        job = await payer.submit(spec)
        for _ in range(4):
            lines, target = 0, dice.randrange(3, 60)

            def count(scope: str, kind: str, body: bytes) -> None:
                nonlocal lines
                lines += 1

            payer.journal.on_append = count
            with trio.move_on_after(60):
                while lines < target:  # noqa: ASYNC110
                    await trio.sleep(dice.random())
            payer.crash()
            await trio.sleep(dice.random() * 2)
            await payer.start(nursery)
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        await payer.wait_empty(job)
        book = payer.service._driver(job).book
        assert sum(paid_units(scene, peer) for peer in peers) == sum(h.seat.accepted_units for h in book.all())
        assert paid_units(scene, peers[1]) == 0
        opened = [what for what, _ in scene.chain.transactions if what == "open"]
        assert opened == ["open"]


@pytest.mark.slow
async def test_a_job_of_another_network_is_not_driven_and_blames_nobody(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network file was replaced: nothing that was signed before holds under the new contracts. With the old file
    it goes on."""
    scene.crowd(3)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=20)
        job = await payer.submit(spec)
        await trio.sleep(3)
        payer.crash()
        other = msgspec.structs.replace(DOMAINS, escrow=msgspec.structs.replace(DOMAINS.escrow, contract=b"\x33" * 20))
        with monkeypatch.context() as patch:
            patch.setattr(payer_scene, "DOMAINS", other)
            await payer.start(nursery)
            await trio.sleep(10)
            (problem,) = payer.service.why(job)
            assert (problem.code, bool(problem.remedy)) == ("other_network", True)
            assert [view.id for view in payer.service.jobs()] == [job]
            assert payer.service.job(job).status == "failed"
            assert payer.service.trust.resting("worker") == {}
            assert not payer.service._drivers
            payer.crash()
        await payer.start(nursery)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)


async def test_the_book_is_the_same_after_a_restart(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("federated", items=4, rounds=3))
        await trio.sleep(12)
        driver = payer.service._driver(job)
        before = driver.book
        receipts, audits = payer.service.receipts(job), payer.service.audits(job)
        driver.load()
        after = driver.book
        assert after is not before
        assert receipts == payer.service.receipts(job)
        assert audits == payer.service.audits(job)
        assert before.produced == after.produced
        assert before.placed == after.placed
        assert before.plan.rounds_done == after.plan.rounds_done
        assert [h.seat.accepted_units for h in before.all()] == [h.seat.accepted_units for h in after.all()]
        assert before.free_wages == after.free_wages


async def test_nothing_signed_leaves_before_it_is_on_disk(scene: Scene, payer: PayerNode) -> None:
    """With a slow disk: whenever a frame leaves the payer, all Assigns, Accepts, AuditOrders … in it are journaled."""
    peers = scene.crowd(5)
    peers[0].working.functions["m:f"] = cheat
    journal, append = payer.journal, payer.journal.append
    durable: list[bytes] = []
    checked: set[str] = set()

    async def slow(scope: str, *lines: tuple[str, bytes]) -> int:
        await trio.sleep(0.3)
        durable.extend(body for _, body in lines)
        return await append(scope, *lines)

    def signed() -> Iterator[tuple[str, bytes]]:
        for driver in payer.service._drivers.values():
            for held in driver.book.all():
                yield "lease", held.offered.body
                yield from (("assign", body) for body in held.assigns.values())
                yield from (("accept", accept.body) for accept in held.accepts)
                yield from (("close", body) for body in (held.close, held.cancel) if body)
            for calling in driver.book.calls.values():
                yield "audit", calling.order.body
                if calling.open is not None:
                    yield "open", calling.open.body

    def tap(sender: str, receiver: str, frame: bytes) -> None:
        if sender == "payer":
            for name, body in signed():
                if body in frame:
                    checked.add(name)
                    assert any(body in line for line in durable), f"a {name} left before it was on disk"

    journal.append = slow  # type: ignore[method-assign]
    scene.network.tap = tap
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=20))
        await payer.wait(job)
    assert checked == {"lease", "assign", "accept", "close", "audit", "open"}


@pytest.mark.slow
async def test_leases_that_end_are_followed_by_new_ones(scene: Scene, payer: PayerNode) -> None:
    parameters = msgspec.structs.replace(PARAMETERS, lease_max_s=45, unit_grace_s=4.0, unit_work_factor=3)
    scene.parameters = scene.chain.parameters = parameters
    peers = scene.crowd(5, seconds=1.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("sequential", rounds=80)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        assert len(view.peers) >= 2
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) == 80


async def test_an_order_says_what_was_asked_for(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        require = api.Require(cores=1, memory_gib=2.0, disk_gib=1.0)
        job = await payer.submit(payer.spec("map", items=4), require=require, max_price_wei="5000")
        order: Order = payer.service._driver(job).book.order
        assert (order.cores, order.memory_mib, order.disk_mib, order.price_max) == (1, 2048, 1024, 5000)
        assert order.wages + order.audit_reserve == 10**18
        assert order.signer != order.payer
        await payer.wait(job)
