"""Auditors that do not do their work, lie, copy, or are not there."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping

import msgspec
import pytest
import trio

from fakes.payer_scene import CLASS, PayerNode, Peer, Scene, caught, cheat, honest_result, paid_units, result_of
from tallymesh import units, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import AuditRequest
from tallymesh.ids import ZERO32, BlobId
from tallymesh.messages import Assign, AuditOrder, Result
from tallymesh.units import Unit
from tallymesh_ledger import keys
from tallymesh_ledger.audit import SILENT_MAX
from tallymesh_node.interfaces import Failure
from tallymesh_node.payer import auditing, records
from tallymesh_node.payer.records import Assigned


async def stamp(peer: Peer, request: AuditRequest) -> None:
    """Commits to nothing in particular, then says what the worker said."""
    opened = await peer.commit(request, b"\x01" * 32)
    await peer.judge(request, Result.MATCH, opened.end)


@pytest.mark.slow
async def test_a_rubber_stamp_is_struck_off_and_the_cheat_caught(scene: Scene, payer: PayerNode) -> None:
    cheater = scene.join(1)
    cheater.working.functions["m:f"] = cheat
    stamps = [scene.join(number, works=False, audit=stamp) for number in (2, 3)]
    for number in (4, 5, 6):
        scene.join(number)
    async with scene.running() as nursery:
        await payer.start(nursery)
        called = []
        for _ in range(2):
            before = {peer.peer_id: len(peer.audited) for peer in called}
            spec = payer.spec("map", items=12)
            job = await payer.submit(spec, max_price_wei="2000")
            view = await payer.wait(job)
            assert result_of(payer, spec, view) == honest_result(payer, spec)
            assert all(len(peer.audited) == before[peer.peer_id] for peer in called)
            called = [peer for peer in stamps if peer.audited]
        assert called
        assert all(peer.key.address in payer.service.trust.struck for peer in called)
        assert all(scene.chain.credits[peer.key.address] == 0 for peer in stamps)
        assert paid_units(scene, cheater) == 0


async def test_an_auditor_that_asks_twice_is_bound_to_its_first_word(scene: Scene, payer: PayerNode) -> None:
    refused: list[str] = []

    async def copy(peer: Peer, request: AuditRequest) -> None:
        opened = await peer.commit(request, b"\x01" * 32)
        try:
            await peer.commit(request, opened.end)
        except RemoteError as error:
            refused.append(error.code)
        try:
            await peer.judge(request, Result.MATCH, opened.end)
        except RemoteError as error:
            refused.append(error.code)

    for number in range(1, 5):
        scene.join(number, audit=copy if number == 4 else None, works=number != 4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=12), max_price_wei="2000")
        await payer.wait(job)
        assert refused == ["two_commits", "bad_verdict"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "peers", "audit_s"), [("map", 5, 1.0), ("federated", 8, 1.0), ("federated", 16, 5.0)])
async def test_no_auditor_sees_the_result_before_it_is_bound(
    scene: Scene, payer: PayerNode, kind: str, peers: int, audit_s: float
) -> None:
    """Every plaintext frame that a peer receives is tapped: neither end nor salt of a unit that it audits is in one
    before its commitment went out, nor the end of a unit that was made from it. In rounds the ends of units are inputs
    of others, which it may be given to run or to audit while it has not committed: slow auditors have time for both."""
    for peer in scene.crowd(peers):
        peer.auditing.seconds[""] = audit_s
    frames: dict[str, list[bytes]] = {}
    sent_commit: dict[tuple[str, bytes], int] = {}  # (auditor's peer, AuditOrder) -> frames received by then

    def tap(sender: str, receiver: str, frame: bytes) -> None:
        frames.setdefault(receiver, []).append(frame)
        if receiver == "payer" and b"commit" in frame[:16]:
            sent_commit[sender, bytes(frame)] = len(frames.get(sender, []))

    scene.network.tap = tap
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec(kind, items=14, rounds=5)
        job = await payer.submit(spec, verify="integrity", max_price_wei="2000", workers_max=5)
        view = await payer.wait(job)
        honest = honest_result(payer, spec)
        assert result_of(payer, spec, view) == (honest if kind == "map" else honest[-1:])
    book = payer.service._driver(job).book
    made_from = outputs_by_input(payer, job)
    looked = 0
    for calling in book.calls.values():
        if calling.commit is None:
            continue
        peer = next(p for p in scene.peers if p.key.address == calling.call.auditor)
        bound = next(
            count for (who, frame), count in sent_commit.items() if who == peer.peer_id and calling.commit.body in frame
        )
        opening = calling.held.seat.openings[calling.order.message.position]
        for frame in frames[peer.peer_id][:bound]:
            assert opening.end not in frame
            assert opening.salt not in frame
            assert not [made for made in made_from[opening.end] if made in frame]
        assert any(opening.salt in frame for frame in frames[peer.peer_id][bound:])
        looked += 1
    assert looked >= 3


@pytest.mark.slow
async def test_a_unit_goes_to_no_account_that_was_called_to_recompute_its_input(scene: Scene, payer: PayerNode) -> None:
    waiting = scene.crowd(4)[0].key.address
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=6, rounds=3)
        job = await payer.submit(spec)
        book = payer.service._driver(job).book
        book.given.called(b"order", waiting, spec.initial)  # as if a unit had made the first state
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)[-1:]
    taken = [(book.held(assign.seat).account, inputs) for assign, inputs in assigned(payer, job)]
    assert not [account for account, inputs in taken if account == waiting and spec.initial in inputs]
    assert [account for account, inputs in taken if account == waiting], "what comes later it is given"


def assigned(payer: PayerNode, job: str) -> Iterator[tuple[Assign, set[bytes]]]:
    """Every Assign in the payer's journal, with the unit's inputs."""
    for entry in payer.journal.read(payer.service._driver(job).scope):
        if entry.kind == Assigned.__name__:
            record = records.read(entry.kind, entry.body)
            assert isinstance(record, Assigned)
            inputs = {item.blob for item in units.decode_unit(record.unit).inputs}
            yield wire.decode(record.assign, Assign).message, inputs


def outputs_by_input(payer: PayerNode, job: str) -> dict[bytes, set[bytes]]:
    """Blob -> ends of the job's units that took it."""
    book = payer.service._driver(job).book
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for assign, inputs in assigned(payer, job):
        opening = book.held(assign.seat).seat.openings.get(assign.position)
        for blob in inputs:
            found[blob] |= {opening.end} if opening else set()
    return found


@pytest.mark.slow
async def test_a_lying_auditor_is_outvoted_and_struck_off(scene: Scene, payer: PayerNode) -> None:
    peers = [scene.join(1, slots=6, works=False), *(scene.join(number) for number in range(2, 7))]
    peers[0].auditing.functions["m:f"] = cheat
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=18)
        job = await payer.submit(spec, max_price_wei="2000", workers_max=5)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert caught(payer, job) == []
        assert view.redone == 0
        lies = [audit for audit in payer.service.audits(job) if audit.result == "mismatch"]
        assert lies
        for lie in lies:
            same = [a for a in payer.service.audits(job) if (a.seat, a.position) == (lie.seat, lie.position)]
            assert sorted(audit.result for audit in same) == ["match", "match", "mismatch"]
        assert peers[0].key.address in payer.service.trust.struck
        assert scene.chain.credits[peers[0].key.address] == 0, "the payer does not pay for a lie"
        await payer.wait_empty(job)
        # What it was called for it can take from the reserve itself, as every auditor can: never more.
        answered = sum(audit.auditor == keys.checksum(peers[0].key.address) for audit in payer.service.audits(job))
        assert scene.chain.credits[peers[0].key.address] <= answered * 1100
        assert sum(paid_units(scene, peer) for peer in peers) == 18


@pytest.mark.slow
async def test_silent_auditors_cost_time_and_nothing_else(scene: Scene, payer: PayerNode) -> None:
    async def sleep(peer: Peer, request: AuditRequest) -> None:
        await trio.sleep_forever()

    silent = [scene.join(number, works=False, audit=sleep) for number in (1, 2)]
    for number in range(3, 7):
        scene.join(number)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=12)
        job = await payer.submit(spec, max_price_wei="2000")
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        called = [peer for peer in silent if peer.audited]
        assert called
        assert all(len(peer.audited) <= 2 for peer in called)  # left alone after its first silence
        assert any(audit.state == "silent" for audit in payer.service.audits(job))
        assert not payer.service.trust.struck
        await payer.wait_empty(job)
        assert all(scene.chain.credits[peer.key.address] == 0 for peer in silent)


@pytest.mark.slow
async def test_an_auditor_that_commits_and_then_keeps_silent(scene: Scene, payer: PayerNode) -> None:
    async def half(peer: Peer, request: AuditRequest) -> None:
        await peer.commit(request, b"\x01" * 32)

    half_way = scene.join(1, works=False, audit=half)
    for number in range(2, 6):
        scene.join(number)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=12)
        view = await payer.wait(await payer.submit(spec, max_price_wei="2000"))
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert half_way.audited


async def test_unavailable_inputs_earn_a_tenth_and_the_next_is_called(scene: Scene, payer: PayerNode) -> None:
    async def unavailable(peer: Peer, request: AuditRequest) -> None:
        await peer.judge(request, Result.UNAVAILABLE, ZERO32)

    for number in (1, 2):
        scene.join(number, works=False, audit=unavailable)
    for number in range(3, 7):
        scene.join(number)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=12), max_price_wei="2000")
        await payer.wait_empty(job)
        audits = [audit for audit in payer.service.audits(job) if audit.result == "unavailable"]
        assert audits
        fee = 1100
        for peer in scene.peers[:2]:
            called = len(peer.audited)
            credit = called * (fee // 10)
            assert scene.chain.credits[peer.key.address] == credit


async def test_a_verdict_that_contradicts_its_end_counts_as_silence(scene: Scene, payer: PayerNode) -> None:
    async def contradict(peer: Peer, request: AuditRequest) -> None:
        await peer.commit(request, b"\x01" * 32)
        with pytest.raises(RemoteError, match="does not open"):
            await peer.judge(request, Result.MATCH, b"\x01" * 32)

    bad = scene.join(1, works=False, audit=contradict)
    for number in range(2, 6):
        scene.join(number)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=12)
        view = await payer.wait(await payer.submit(spec, max_price_wei="2000"))
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert bad.audited
        assert bad.key.address in payer.service.trust.struck


@pytest.mark.slow
async def test_a_program_that_is_not_deterministic_fails_and_is_paid_for(scene: Scene, payer: PayerNode) -> None:
    numbers = random.Random(7)

    def dice(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        return numbers.randbytes(40), {}

    peers = scene.crowd(5)
    for peer in peers:
        peer.working.functions["m:f"] = peer.auditing.functions["m:f"] = dice
    assert payer.executor is not None
    payer.executor.functions["m:f"] = dice
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=10))
        view = await payer.wait(job, "failed")
        assert view.problem is not None
        assert view.problem.code == "not_deterministic"
        assert caught(payer, job) == []
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in peers) >= 1


async def test_a_payer_alone_convicts_nobody_for_a_program_that_is_not_deterministic(
    scene: Scene, payer: PayerNode
) -> None:
    """No auditor can be drawn: its own node's word would be the only one, and it contradicts itself."""
    numbers = random.Random(7)

    def dice(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        return numbers.randbytes(40), {}

    for peer in scene.crowd(2):
        peer.working.functions["m:f"] = dice
    assert payer.executor is not None
    payer.executor.functions["m:f"] = dice
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=10))
        view = await payer.wait(job, "failed")
        assert view.problem is not None
        assert view.problem.code == "not_deterministic"
        assert caught(payer, job) == []
        assert not payer.service.trust.convicted, "the next job finds its workers again"
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in scene.peers) >= 1
        payer.crash()
        await payer.start(nursery)
        assert not payer.service.trust.convicted
        for executor in (payer.executor, *(peer.working for peer in scene.peers)):
            del executor.functions["m:f"]
        spec = payer.spec("map", items=4)
        view = await payer.wait(await payer.submit(spec))
        assert result_of(payer, spec, view) == honest_result(payer, spec)


async def test_a_unit_that_ends_in_no_time_on_the_payers_node_convicts_nobody(scene: Scene, payer: PayerNode) -> None:
    """What its own machine cannot do says nothing about a worker's result."""
    scene.crowd(2)
    assert payer.executor is not None
    payer.executor.fail["m:f"] = Failure("limits", "It took more than 30 s.")
    async with scene.running() as nursery:
        await payer.start(nursery)
        view = await payer.wait(job := await payer.submit(payer.spec("map", items=4)), "failed")
        assert view.problem is not None
        assert view.problem.code == "limits"
        assert "30 s" in view.problem.sentence
        assert "work=" in view.problem.remedy
        assert caught(payer, job) == []
        await payer.wait_empty(job)
        assert sum(paid_units(scene, peer) for peer in scene.peers) >= 1


@pytest.mark.slow
async def test_without_auditors_and_without_own_executor_the_job_waits(scene: Scene) -> None:
    payer = PayerNode(scene, own=False)
    scene.crowd(2)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=6)
        job = await payer.submit(spec, deadline_s=300)
        await trio.sleep(30)
        assert payer.service.job(job).status == "running"
        assert "no_auditors" in {problem.code for problem in payer.service.why(job)}
        for number in (3, 4):
            # Too late for the tallies that are closed: their block names the slots of that time. Those stay with …
            scene.chain.stake(scene.join(number).key.address, 1, CLASS)
            await nursery.start(scene.peers[-1].run)
        await trio.sleep(30)
        assert payer.service.job(job).status == "running"
        await payer.wait(job)  # … their seats: what these leave undone goes to new ones, which can be audited


@pytest.mark.slow
async def test_where_nobody_can_ever_audit_the_job_ends_and_says_why(scene: Scene) -> None:
    """Nobody who joins later can help, so it must not take seats for nothing until its deadline, a day later."""
    payer = PayerNode(scene, own=False)
    scene.crowd(2)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=6))
        view = await payer.wait(job, "failed", timeout_s=2 * auditing.STUCK_S)
        assert view.problem is not None
        assert view.problem.code == "no_auditors"
        await payer.wait_empty(job)


@pytest.mark.slow
@pytest.mark.parametrize(("peers", "clients"), [(5, 5), (8, 5), (4, 4)])
async def test_a_federated_job_whose_payer_cannot_recompute_is_audited_and_paid_though_all_want_to_work(
    scene: Scene, peers: int, clients: int
) -> None:
    """Everybody who takes part is given each aggregate: without anybody kept free, or with only those that were given
    nothing made from an output, audits of older rounds would find nobody."""
    payer = PayerNode(scene, own=False)
    scene.crowd(peers)
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("federated", items=clients, rounds=12)
        job = await payer.submit(spec)
        view = await payer.wait(job, timeout_s=auditing.STUCK_S)
        assert result_of(payer, spec, view) == honest_result(payer, spec)[-1:]
        assert all(peer.accepted == peer.received for peer in view.peers)
        assert len({peer.account for peer in view.peers}) <= max(1, peers - scene.parameters.auditors_min)


async def test_auditors_that_were_out_of_reach_for_a_moment_do_not_stop_a_payer_that_cannot_recompute(
    scene: Scene,
) -> None:
    """Four silences end a draw where the payer's node can step in. Where it cannot, the fifth auditor is called."""
    payer = PayerNode(scene, own=False)
    scene.crowd(12)
    scene.network.lose = lambda sender, receiver, name: name == "audit" and trio.current_time() < SILENT_MAX * 10
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=3), workers_max=1)
        await payer.wait(job, timeout_s=auditing.STUCK_S)
        assert len(scene.chain.seats) == 1  # none that ran out unpaid
        assert sum(audit.state == "silent" and audit.position == 0 for audit in payer.service.audits(job)) == SILENT_MAX


@pytest.mark.slow
async def test_without_own_executor_drawn_auditors_are_enough(scene: Scene) -> None:
    payer = PayerNode(scene, own=False)
    peers = scene.crowd(6)
    peers[0].working.functions["m:f"] = cheat
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=12)
        job = await payer.submit(spec)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert [peer for peer, _ in caught(payer, job)] == ["peer-1"]


@pytest.mark.slow
async def test_one_silent_auditor_with_half_of_the_slots_delays_a_payer_without_an_executor_once(scene: Scene) -> None:
    """Each silence takes a unit's whole deadline: drawn again for every unit, it would hold the job up for ever."""
    scene.parameters = scene.chain.parameters = msgspec.structs.replace(
        scene.parameters, audit_rate_bp=10_000, tally_units=3
    )

    async def sleep(peer: Peer, request: AuditRequest) -> None:
        await trio.sleep_forever()

    payer = PayerNode(scene, own=False)
    silent = scene.join(1, slots=8, works=False, audit=sleep)
    for number in range(2, 9):
        scene.join(number, works=number == 2)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=31))
        await payer.wait(job)
        # Its first call, and those that were under way when that one's time was over.
        assert 1 <= len(silent.audited) <= 2 * scene.parameters.tally_units


@pytest.mark.slow
async def test_no_auditor_gets_adjacent_units_or_what_it_was_given(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(7)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("federated", items=4, rounds=3), verify="integrity")
        await payer.wait(job)
    book = payer.service._driver(job).book
    by_seat: dict[tuple[bytes, bytes], set[int]] = {}
    for calling in book.calls.values():
        order: AuditOrder = wire.decode(calling.order.body, AuditOrder).message
        by_seat.setdefault((order.seat, order.auditor), set()).add(order.position)
        assert order.auditor != calling.held.account
    for positions in by_seat.values():
        assert not any(position + 1 in positions for position in positions)
    audits = payer.service.audits(job)
    assert any(audit.auditor == "payer" for audit in audits)
    assert any(audit.auditor != "payer" for audit in audits)


async def test_what_this_node_recomputes_already_is_asked_of_nobody_else(scene: Scene, payer: PayerNode) -> None:
    """An auditor may be had again a moment after the payer's node began: two verdicts would be paid for one."""
    worker = scene.join(1)
    auditors = [scene.join(number, works=False) for number in range(2, 7)]
    assert payer.executor is not None
    payer.executor.seconds[""] = 20.0
    async with scene.running() as nursery:
        await payer.start(nursery)
        for auditor in auditors:
            payer.service.trust.rest("auditor", auditor.key.address, "It kept silent.", 10.0)
        job = await payer.submit(payer.spec("map", items=1))
        await payer.wait(job)
        assert [audit.auditor for audit in payer.service.audits(job)] == ["payer"]
        assert paid_units(scene, worker) == 1


async def test_an_auditor_is_asked_nothing_when_all_was_decided_while_its_order_went_to_the_disk(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would be sent is forgotten with the Accept: a payer that sent it all the same ended with a KeyError."""
    scene.parameters = scene.chain.parameters = msgspec.structs.replace(scene.parameters, auditors_min=2)
    numbers = random.Random(7)

    def dice(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        return numbers.randbytes(40), {}

    async def lie(peer: Peer, request: AuditRequest) -> None:
        end = b"\x02" * 32
        await peer.commit(request, end)
        await peer.judge(request, Result.MISMATCH, end)

    scene.join(1)
    auditors = [scene.join(number, works=False, audit=lie) for number in (2, 3)]
    assert payer.executor is not None
    payer.executor.functions["m:f"] = dice
    append, orders = payer.journal.append, 0

    async def slow(scope: str, *lines: tuple[str, bytes]) -> int:
        nonlocal orders
        orders += sum(kind == "Called" for kind, _ in lines)
        if orders == 2 and any(kind == "Called" for kind, _ in lines):
            (driver,) = payer.service._drivers.values()
            with trio.fail_after(1000):
                while not any(held.accepts for held in driver.book.all()):  # noqa: ASYNC110
                    await trio.sleep(1)
        return await append(scope, *lines)

    monkeypatch.setattr(payer.journal, "append", slow)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=1))
        await payer.wait(job, "failed")
        assert orders == 2
        assert sum(len(auditor.audited) for auditor in auditors) == 1
        await payer.wait_empty(job)
