"""Whole jobs with honest peers: what comes out, what is paid, what is left in the escrow."""

from __future__ import annotations

import msgspec
import pytest
import trio

from fakes.payer_scene import PRICE, TOKEN, PayerNode, Scene, honest_result
from tallymesh import amounts
from tallymesh.errors import CallerError
from tallymesh.ids import BlobId
from tallymesh_node.payer.book import Book


async def test_map_gives_every_output_and_pays_every_unit(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=12)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        result = msgspec.msgpack.decode(payer.blobs.get(BlobId(bytes.fromhex(view.result))))
        assert result == honest_result(payer, spec)
        assert (view.units, view.units_done, view.redone) == (12, 12, 0)
        assert 0 < view.audits <= 8
        view = await payer.wait_empty(job)
        assert view.escrow_wei == "0"
        paid = sum(seat.paid_units * seat.price for seat in scene.chain.seats.values())
        assert paid == 12 * PRICE
        spent = 100 * TOKEN - scene.chain.balances[payer.key.address] - scene.chain.credits[payer.key.address]
        assert str(spent) == view.cost_wei
        for peer in peers:
            assert scene.chain.credits[peer.key.address] > 0
        assert {what for what, _ in scene.chain.transactions} == {"open", "finish", "refund"}
        assert [what for what, _ in scene.chain.transactions].count("open") == 1


async def test_an_offer_that_was_not_needed_is_never_what_a_job_waits_for(scene: Scene, payer: PayerNode) -> None:
    """The one worker that was has done its unit, and the job waits for its audit: others would change nothing."""
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=1))
        told, statuses = set(), set()
        while payer.service.job(job).status not in ("done", "failed", "cancelled"):
            told |= {problem.sentence for problem in payer.service.why(job)}
            statuses.add(payer.service.job(job).status)
            await trio.sleep(0.05)
        assert payer.service.job(job).status == "done"
        assert "running" in statuses
        assert [sentence for sentence in told if "not_needed" in sentence] == []


@pytest.mark.slow
async def test_federated_model_is_the_one_of_a_plain_loop(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=6, rounds=4)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        assert (view.rounds_done, view.units_done, view.redone) == (4, 4 * 7, 0)
        assert view.metrics == {"loss": 1.0, "accuracy": 0.9}
        assert view.audits < view.units
        rounds = [event.data["round"] for event in payer.service.events(job, 0) if event.kind == "round"]
        assert rounds == [1, 2, 3, 4]
        await payer.wait_empty(job)


async def test_sequential_training_chains_its_segments(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("sequential", rounds=7)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        assert len(view.peers) == 1
        await payer.wait_empty(job)


async def test_integrity_recomputes_every_unit(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=8), verify="integrity")
        view = await payer.wait(job)
        assert view.audits >= 8
        audited = {(audit.seat, audit.position) for audit in payer.service.audits(job) if audit.result == "match"}
        assert len(audited) == 8


async def test_one_worker_and_one_auditing_payer_are_a_network(scene: Scene, payer: PayerNode) -> None:
    scene.parameters = payer.scene.parameters = msgspec.structs.replace(scene.parameters, class_accounts_min=0)
    scene.chain.parameters = scene.parameters
    scene.crowd(1)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=1))
        view = await payer.wait(job)
        audits = payer.service.audits(job)
        assert [(audit.auditor, audit.result) for audit in audits] == [("payer", "match")]
        assert view.cost_wei == str(PRICE)


async def test_workers_cores_are_kept_busy_and_never_exceeded(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(3, cores=2, seconds=4.0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        began = trio.current_time()
        job = await payer.submit(payer.spec("map", items=36))
        await payer.wait(job)
        assert all(peer.working.running_max == 2 for peer in peers)
        assert sorted(len(peer.working.ran) for peer in peers) == [12, 12, 12]
        # 36 units of 4 s on 6 cores take 24 s; audits share the cores
        assert trio.current_time() - began < 24 + 16


async def test_reasons_are_given_while_nobody_fits(scene: Scene, payer: PayerNode) -> None:
    scene.join(1, slots=0)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=2), deadline_s=100)
        await trio.sleep(5)
        assert payer.service.job(job).status == "matching"
        [problem] = payer.service.why(job)
        assert problem.code == "no_offers"
        assert "unstaked" in problem.sentence
        view = await payer.wait(job, "failed")
        assert view.problem is not None
        assert view.problem.code == "deadline"
        await payer.wait_empty(job)
        assert scene.chain.transactions == []


async def test_a_budget_that_is_too_small_names_the_number_needed(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(4, ask=PRICE * 10**9)
    async with scene.running() as nursery:
        await payer.start(nursery)
        with pytest.raises(CallerError, match="cannot pay"):
            await payer.submit(payer.spec("map", items=8), budget=5)
        job = await payer.submit(payer.spec("map", items=8), budget=1500 * 10**9)
        await trio.sleep(3)
        [problem] = payer.service.why(job)
        assert problem.code == "budget_too_small"
        assert "wei" not in problem.sentence + problem.remedy
        assert problem.remedy.endswith("or stop the job and order it with that."), "a budget cannot be changed later"
        needed = amounts.parse(problem.remedy.removeprefix("A budget of ").partition(" would")[0])
        assert needed < 20_000 * 10**9
        await payer.service.cancel(job)
        job = await payer.submit(payer.spec("map", items=8), budget=needed)
        await payer.wait(job)


async def test_terms_that_nobody_can_meet_are_refused(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(1)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=2)
        for terms in ({"verify": "never"}, {"max_price_wei": "x"}, {"deadline_s": 0}):
            with pytest.raises(CallerError):
                await payer.submit(spec, **terms)
        with pytest.raises(CallerError):
            payer.service.job("00" * 32)


async def test_prices_above_the_ceiling_are_rejected(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(2)
    dear = scene.join(3, ask=50 * PRICE)
    scene.join(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=9), max_price_wei=str(2 * PRICE))
        view = await payer.wait(job)
        assert dear.peer_id not in {peer.peer_id for peer in view.peers}
        assert int(view.cost_wei) < 20 * PRICE


async def test_a_budget_over_the_balance_is_refused_with_what_is_missing(scene: Scene) -> None:
    payer = PayerNode(scene, funds=TOKEN // 4)
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        with pytest.raises(CallerError) as refused:
            await payer.submit(payer.spec("map", items=4))
        assert refused.value.code == "too_few_tokens"
        assert "1 MESH and the account has 0.25 MESH: 0.75 MESH are missing" in refused.value.sentence
        assert payer.service.jobs() == [], "a job that cannot begin was not taken on"
        await payer.wait(await payer.submit(payer.spec("map", items=4), budget=TOKEN // 4))


async def test_a_job_can_be_ordered_while_the_chain_is_away(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        scene.chain.down = True
        job = await payer.submit(payer.spec("map", items=4))
        (problem,) = payer.service.why(job)
        assert problem.code == "chain_unavailable", "said before any call of the job has failed"
        await trio.sleep(30)
        assert [each.code for each in payer.service.why(job)].count("chain_unavailable") == 1
        scene.chain.down = False
        await payer.wait(job)


async def test_a_job_whose_budget_was_spent_elsewhere_says_so_and_goes_on_with_it(scene: Scene) -> None:
    payer = PayerNode(scene, funds=TOKEN)
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=4))
        token = scene.chain.contracts.token
        scene.chain.run(lambda: token.transfer(payer.key.address, bytes(19) + b"x", TOKEN - 10))
        await trio.sleep(5)
        (problem,) = payer.service.why(job)
        assert problem.code == "erc20_insufficient_balance"
        assert "MESH" in problem.sentence, "amounts are for people"
        assert "smaller budget" in problem.remedy
        scene.chain.mint(payer.key.address, TOKEN)
        await payer.wait(job)


async def test_live_lines_and_metrics_become_events(scene: Scene, payer: PayerNode) -> None:
    for peer in scene.crowd(4):
        peer.working.lines = ("hello",)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=4))
        seen = await payer.service.wait_events(job, 0)
        assert seen
        await payer.wait(job)
        kinds = {event.kind for event in payer.service.events(job, 0)}
        assert {"log", "metric", "unit", "seat", "audit", "accept", "settle", "done"} <= kinds
        units = {event.data["index"] for event in payer.service.events(job, 0) if event.kind == "unit"}
        assert units == {0, 1, 2, 3}


@pytest.mark.slow
async def test_more_workers_join_a_running_job(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(3, works=False)
    alone = scene.join(10)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=40), max_price_wei=str(2 * PRICE))
        await trio.sleep(3)
        late = scene.join(11)
        await nursery.start(late.run)
        await payer.wait(job)
        assert len(late.working.ran) > 5
        assert len(alone.working.ran) < 35


async def test_what_is_seen_of_a_job_that_is_over(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=5))
        await payer.wait_empty(job)
        before = payer.service.job(job), len(payer.service.receipts(job)), len(payer.service.audits(job))
        payer.crash()
        await payer.start(nursery)
        assert before == (payer.service.job(job), len(payer.service.receipts(job)), len(payer.service.audits(job)))
        assert [view.id for view in payer.service.jobs()] == [job]
        assert payer.service.events(job, 0)[-1].kind == "refund"
        assert not payer.service._drivers


async def test_strangers_get_no_blob_and_workers_only_their_own(scene: Scene, payer: PayerNode) -> None:
    peers = scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=8))
        await payer.wait(job)
        driver = payer.service._driver(job)
        held = next(held for held in driver.book.all() if held.seat.accepted_units)
        mine = next(iter(held.blobs))
        ticket = held.offered.body
        assert payer.service.may_fetch(held.peer.peer_id, BlobId(mine), ticket)
        assert payer.service.may_fetch(held.peer.peer_id, BlobId(driver.book.order.template), ticket)
        other = next(peer for peer in peers if peer.peer_id != held.peer.peer_id)
        assert not payer.service.may_fetch(other.peer_id, BlobId(mine), ticket)
        assert not payer.service.may_fetch(held.peer.peer_id, BlobId(held.seat.openings[0].end), ticket)
        assert not payer.service.may_fetch(held.peer.peer_id, BlobId(mine), b"")


async def test_a_job_is_not_complete_before_every_unit_is_accepted(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two guards, each enough by itself here: nothing received is open, and the result stands on accepted units."""
    for peer in scene.crowd(4):
        peer.auditing.seconds[""] = 20.0
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=6))
        book = payer.service._driver(job).book
        with trio.fail_after(300):
            while sum(len(held.seat.leaves) for held in book.all()) < 6:  # noqa: ASYNC110
                await trio.sleep(0.5)
        finished = type(book.plan).finished
        monkeypatch.setattr(type(book.plan), "finished", True)
        with monkeypatch.context() as patch:
            patch.setattr(Book, "at_work", lambda self: [])
            patch.setattr(type(book.plan), "history", lambda self: iter(book.placed))
            assert not book.complete
        with monkeypatch.context() as patch:
            patch.setattr(Book, "proven", lambda self, unit: True)
            assert not book.complete
        monkeypatch.setattr(type(book.plan), "finished", finished)
        await payer.wait(job)
        assert all(book.proven(unit) for unit in book.plan.history())


@pytest.mark.slow
async def test_leases_together_never_promise_more_than_the_wages(scene: Scene, payer: PayerNode) -> None:
    """A budget with little room, two stages, a worker that dies: the scene checks the free wages at every line."""
    peers = scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=4, rounds=6)
        heavy = msgspec.structs.replace(spec.stages[1], work_ms=8000)
        spec = msgspec.structs.replace(spec, stages=(spec.stages[0], heavy))
        job = await payer.submit(spec, budget=107_000)
        await trio.sleep(8)
        assert payer.service._driver(job).book.free_wages < 10_000
        peers[0].kill()
        view = await payer.wait(job)
        assert bytes.fromhex(view.result) == honest_result(payer, spec)[-1]
        await payer.wait_empty(job)
