"""What a worker or auditor may say to the payer, and what is refused: a puppet says every wrong word."""

from __future__ import annotations

import math
from collections.abc import Awaitable

import msgspec
import pytest
import trio

from fakes.chain import DOMAINS
from fakes.executor import honest
from fakes.payer_scene import PRICE, PayerNode, Puppet, Scene, key_of
from tallymesh import exchange, units, wire
from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import (
    CommitRequest,
    FailureRequest,
    LeaveRequest,
    ProgressRequest,
    ReceiptRequest,
    Report,
    TallyAnswer,
    TallyRequest,
    VerdictRequest,
)
from tallymesh.ids import BlobId, blob_id
from tallymesh.messages import AuditCommit, Leave, Receipt, Result, Tally, Verdict
from tallymesh_ledger import keys, merkle, sampling
from tallymesh_node.payer import receiving
from tallymesh_node.payer.held import Held
from tallymesh_node.payer.records import GivenUp
from tallymesh_scheduler.leases import LeaseState


async def refused(code: str, asking: Awaitable[object]) -> None:
    with pytest.raises(RemoteError) as caught:
        await asking
    assert caught.value.code == code


@pytest.fixture
def puppet(scene: Scene) -> Puppet:
    scene.crowd(3, works=False)
    return Puppet(scene, 9)


async def begin(payer: PayerNode, puppet: Puppet, nursery: trio.Nursery, *, items: int = 10) -> Held:
    """A job on the puppet's seat alone, with its first unit assigned."""
    await payer.start(nursery)
    job = await payer.submit(payer.spec("map", items=items), workers_max=1, max_price_wei=str(PRICE))
    await puppet.wait(2)
    return payer.service._driver(job).book.held(puppet.seat)


async def test_receipts_are_believed_only_with_signature_unit_leaf_start_and_metrics(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        good = puppet.receipt(0)
        other = key_of(77).sign(DOMAINS, Receipt(seat=puppet.seat, position=0, leaf=bytes(32)))
        await refused("bad_signature", puppet.say(msgspec.structs.replace(good, receipt=other.body)))
        await refused("bad_message", puppet.say(msgspec.structs.replace(good, receipt=b"\x90")))
        leaf = puppet.key.sign(DOMAINS, Receipt(seat=puppet.seat, position=0, leaf=bytes(32)))
        await refused("bad_leaf", puppet.say(msgspec.structs.replace(good, receipt=leaf.body)))
        await refused("bad_start", puppet.say(puppet.receipt(0, start=bytes(32))))
        await refused("wrong_unit", puppet.say(puppet.receipt(0, unit_id=puppet.opening(1).unit_id)))
        await refused("bad_opening", puppet.say(msgspec.structs.replace(good, opening=bad_opening(puppet))))
        await refused("bad_metrics", puppet.say(msgspec.structs.replace(good, report=Report(metrics=b'{"a":1}'))))
        unknown = puppet.key.sign(DOMAINS, Receipt(seat=bytes(32), position=0, leaf=bytes(32)))
        await refused("unknown_seat", puppet.say(msgspec.structs.replace(good, receipt=unknown.body)))
        far = far_receipt(puppet)
        await refused("not_assigned", puppet.say(far))
        assert held.seat.leaves == {}
        await puppet.say(good)
        await puppet.say(good)
        assert list(held.seat.leaves) == [0]


def bad_opening(puppet: Puppet) -> exchange.Opening:
    return msgspec.structs.replace(puppet.opening(0), end=b"short")


def far_receipt(puppet: Puppet) -> ReceiptRequest:
    opening = puppet.opening(0)
    message = Receipt(seat=puppet.seat, position=8, leaf=merkle.leaf(puppet.seat, 8, opening))
    return ReceiptRequest(puppet.key.sign(DOMAINS, message).body, opening)


async def test_a_receipt_counts_only_with_its_output(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        without = msgspec.structs.replace(puppet.receipt(0, b"far away"), inline={})
        await refused("busy", puppet.say(without))
        wrong = msgspec.structs.replace(without, inline={blob_id(b"far away"): b"something else"})
        await refused("bad_inline", puppet.say(wrong))
        assert held.seat.leaves == {}
        puppet.peer.blobs.put(b"far away")
        await trio.sleep(2)
        await puppet.say(without)
        assert payer.blobs.has(blob_id(b"far away"))
        assert list(held.seat.leaves) == [0]
        assert payer.blobs.fetched[-1][2] == held.offered.body  # the lease is the ticket


async def test_two_outputs_for_one_position_end_the_seat(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        await puppet.say(puppet.receipt(0))
        await refused("two_leaves", puppet.say(puppet.receipt(0, b"another")))
        assert held.state is LeaseState.LOST
        assert held.problem is not None
        assert held.problem[0] == "two_leaves"
        await refused("too_late", puppet.say(puppet.receipt(1)))


async def test_a_tally_needs_its_worker_its_root_and_a_final_recent_block(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    scene.parameters = scene.chain.parameters = msgspec.structs.replace(scene.parameters, block_age_max_s=20)
    async with scene.running() as nursery:
        await trio.sleep(60)
        held = await begin(payer, puppet, nursery)
        await puppet.say(puppet.receipt(0))
        good = puppet.tally(held.seat, 1)
        number = scene.chain.now() - 1_800_000_000
        forged = puppet.tally(held.seat, 1, root=bytes(32))
        await refused("bad_root", puppet.say(forged))
        await refused("busy", puppet.say(puppet.tally(held.seat, 1, block_number=number + 9)))
        await refused("wrong_block", puppet.say(puppet.tally(held.seat, 1, block_hash=bytes(32))))
        old = puppet.tally(held.seat, 1, block_number=3, block_hash=scene.chain.block_hash(3))
        await refused("old_block", puppet.say(old))
        stranger = msgspec.structs.replace(good, tally=key_of(77).sign(DOMAINS, message_of(good)).body)
        await refused("bad_signature", puppet.say(stranger))
        assert held.seat.tallies == []
        secret = exchange.decode(await puppet.say(good), TallyAnswer).secret
        assert sampling.secret_hash(secret) == puppet.lease.secret_1
        assert exchange.decode(await puppet.say(good), TallyAnswer).secret == secret
        another = msgspec.structs.replace(message_of(good), block_number=1, block_hash=scene.chain.block_hash(1))
        await refused("two_tallies", puppet.say(TallyRequest(puppet.key.sign(DOMAINS, another).body)))


def message_of(request: TallyRequest) -> Tally:
    return wire.decode(request.tally, Tally).message  # type: ignore[no-any-return]


async def test_a_small_tally_that_nobody_asked_for_ends_the_seat(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        await puppet.say(puppet.receipt(0))
        await puppet.say(puppet.tally(held.seat, 1))
        await puppet.wait(3)
        await puppet.say(puppet.receipt(1))
        assert held.takes_work
        await puppet.say(puppet.tally(held.seat, 1))
        await trio.sleep(1)
        assert not held.takes_work
        assert held.seat.tallies[1].secret


async def test_unsigned_words_count_only_from_the_worker_s_own_peer(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        stranger = scene.network.join("stranger")
        await refused("not_worker", puppet.say(ProgressRequest(puppet.seat, 99), peer=stranger))
        failure = FailureRequest(puppet.seat, 0, "program", "boom")
        await refused("not_worker", puppet.say(failure, peer=stranger))
        assert held.failures == {}
        await refused("not_assigned", puppet.say(FailureRequest(puppet.seat, 400, "program", "boom")))
        forged = key_of(77).sign(DOMAINS, Leave(seat=puppet.seat, code="bored")).body
        await refused("bad_signature", puppet.say(LeaveRequest(forged)))
        assert held.takes_work


async def test_a_worker_may_leave_and_is_paid_for_what_it_did(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        await puppet.say(puppet.receipt(0, honest_output(payer, puppet, 0)))
        await puppet.say(puppet.tally(held.seat, 1))
        leave = LeaveRequest(puppet.key.sign(DOMAINS, Leave(seat=puppet.seat, code="unit_failed")).body)
        await puppet.say(leave)
        await puppet.say(leave)
        assert not held.takes_work
        assert held.problem == ("left", "The worker left: unit_failed.")
        assigned = len(held.seat.assigned)
        await trio.sleep(60)
        assert [accept.units for accept in puppet.accepts[:1]] == [1]
        assert len(held.seat.assigned) == assigned  # no further unit


def honest_output(payer: PayerNode, puppet: Puppet, position: int) -> bytes:
    unit = units.decode_unit(puppet.assigned[position].unit)
    names = {BlobId(unit.program), *(BlobId(item.blob) for item in unit.inputs)}
    return honest(unit, {name: payer.blobs.get(name) for name in names})[0]


async def test_a_worker_that_only_gives_signs_of_life_is_given_up(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        await trio.sleep(70)
        assert held.state is LeaseState.LOST
        assert held.problem is not None
        assert held.problem[0] == "too_slow"
        assert puppet.closes[-1].cancel


@pytest.mark.slow
async def test_a_worker_that_never_sends_its_tally_gets_it_signed_in_its_place(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        for position in range(2):
            await puppet.say(puppet.receipt(position, honest_output(payer, puppet, position)))
        await puppet.wait(4)
        for position in (2, 3):
            await puppet.say(puppet.receipt(position, honest_output(payer, puppet, position)))
        began = trio.current_time()
        while held.state is not LeaseState.LOST:
            for position in list(puppet.assigned):
                await puppet.say(puppet.receipt(position, honest_output(payer, puppet, position)))
            await trio.sleep(1)
        assert held.problem is not None
        assert held.problem[0] == "no_tally"
        assert 59 <= trio.current_time() - began <= 64
        await trio.sleep(20)
        assert held.seat.accepted_units == held.seat.tallied == len(held.seat.leaves)


async def test_commits_and_verdicts_count_only_from_the_called_auditor(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=10))
        with trio.fail_after(30):
            while not payer.service._driver(job).book.calls:  # noqa: ASYNC110
                await trio.sleep(0.01)
        driver = payer.service._driver(job)
        digest, calling = next(iter(driver.book.calls.items()))
        stranger, key = scene.network.join("stranger"), key_of(77)
        source = payer.network.source

        async def say(request: CommitRequest | VerdictRequest) -> bytes:
            return await stranger.request(source, request.NAME, exchange.encode(request), timeout_s=5)

        commit = AuditCommit(audit_order=digest, commitment=bytes(32))
        await refused("bad_signature", say(CommitRequest(key.sign(DOMAINS, commit).body)))
        verdict = Verdict(audit_order=digest, result=Result.MATCH, end=bytes(32), salt=bytes(32), probe=bytes(32))
        await refused("bad_signature", say(VerdictRequest(key.sign(DOMAINS, verdict).body)))
        nobody = msgspec.structs.replace(commit, audit_order=bytes(32))
        await refused("unknown_audit", say(CommitRequest(key.sign(DOMAINS, nobody).body)))
        auditor = next(peer for peer in scene.peers if peer.key.address == calling.call.auditor)
        strange = msgspec.structs.replace(verdict, result=9)
        await refused("bad_verdict", say(VerdictRequest(auditor.key.sign(DOMAINS, strange).body)))
        await payer.wait(job)
        assert not payer.service.trust.struck


async def test_a_machines_series_are_events_at_a_bounded_pace_and_without_nonsense(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        puppet.alive = False  # its signs of life come from here
        job = held.lease.job.hex()

        def shown() -> list[dict[str, float]]:
            events = [event for event in payer.service.events(job, 0) if event.kind == "system"]
            assert all(event.data["account"] == keys.checksum(puppet.key.address) for event in events)
            return [event.data["series"] for event in events]

        system = {"cpu_percent": 50.0, "memory_mib": math.nan, "x" * 1000: math.inf}
        await puppet.say(ProgressRequest(puppet.seat, 100, system=system))
        assert shown() == [{"cpu_percent": 50.0}]
        for sequence in range(101, 121):  # twenty in one second
            await puppet.say(ProgressRequest(puppet.seat, sequence, system={"cpu_percent": float(sequence)}))
            await trio.sleep(0.05)
        assert len(shown()) == 1
        await trio.sleep(5)
        flood = {f"{number:03}" + "x" * 1000: 1.0 for number in range(50)}
        await puppet.say(ProgressRequest(puppet.seat, 200, system=flood))
        assert len(shown()) == 2
        assert len(shown()[1]) == receiving.MAX_SERIES
        assert max(map(len, shown()[1])) == receiving.MAX_NAME


async def test_a_worker_that_prints_without_end_is_cut_short(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    """Else a hostile one filled the payer's disk, and pushed everything that happened out of the events."""
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        puppet.alive = False
        job = held.lease.job.hex()

        def shown(kind: str) -> int:
            return sum(event.kind == kind for event in payer.service.events(job, 0))

        lines = tuple((0, "x" * 100) for _ in range(exchange.MAX_LINES))
        metrics = tuple((0, "loss", 1.0) for _ in range(exchange.MAX_LINES))
        for sequence in range(100, 200):  # a hundred full reports at once
            await puppet.say(ProgressRequest(puppet.seat, sequence, lines=lines, metrics=metrics))
        assert shown("log") + shown("metric") == receiving.SAID_MAX
        await trio.sleep(2.0)
        await puppet.say(ProgressRequest(puppet.seat, 200, lines=lines))
        assert shown("log") + shown("metric") == receiving.SAID_MAX + exchange.MAX_LINES, "time gives it some more"


async def test_what_a_worker_says_cannot_write_to_a_terminal(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202eright\nJob done. \x9b"
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        puppet.alive = False
        job = held.lease.job.hex()
        progress = ProgressRequest(puppet.seat, 100, lines=((0, evil),), metrics=((0, evil, 1.0),), system={evil: 1.0})
        await puppet.say(progress)
        await puppet.say(FailureRequest(puppet.seat, 0, evil, evil))
        await puppet.say(LeaveRequest(puppet.key.sign(DOMAINS, Leave(seat=puppet.seat, code=evil)).body))
        await trio.sleep(1.0)
        told = [str(event.data) for event in payer.service.events(job, 0)]
        told += [str(peer) for peer in payer.service.job(job).peers]
        told += [str(problem) for problem in payer.service.why(job)]
        told += list(payer.service.trust.resting("worker").values())
        assert any("right Job done." in text for text in told), "it is shown"
        for code in "\x1b\x07\u202e\x9b":
            assert not any(code in text or repr(code)[1:-1] in text for text in told)


async def test_any_bytes_are_refused_and_harm_nobody(scene: Scene, payer: PayerNode, puppet: Puppet) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        for name in ("receipt", "failure", "tally", "leave", "progress", "commit", "verdict"):
            for body in (b"", b"\x90", b"\xc1", b"\x93\x01\x02\x03", b"x" * 1000):
                with pytest.raises(RemoteError):
                    await puppet.peer.network.request(payer.network.source, name, body, timeout_s=5)
        assert held.takes_work


async def test_a_repeat_is_answered_no_sooner_than_the_first_is_on_disk(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        await puppet.say(puppet.receipt(0))
        append, request = payer.journal.append, puppet.tally(held.seat, 1)
        answered: list[float] = []

        async def slow(scope: str, *lines: tuple[str, bytes]) -> int:
            await trio.sleep(5)
            return await append(scope, *lines)

        async def tell() -> None:
            await puppet.say(request)
            answered.append(trio.current_time())

        payer.journal.append = slow  # type: ignore[method-assign]
        began = trio.current_time()
        async with trio.open_nursery() as telling:
            telling.start_soon(tell)
            await trio.sleep(1)
            telling.start_soon(tell)
        assert all(at >= began + 5 for at in answered)


async def test_a_book_that_is_ahead_of_the_disk_takes_nothing_more(
    scene: Scene, payer: PayerNode, puppet: Puppet
) -> None:
    async with scene.running() as nursery:
        held = await begin(payer, puppet, nursery)
        driver = next(iter(payer.service._drivers.values()))
        driver.disk_problem = "full"
        with pytest.raises(LocalError):
            await driver.commit(GivenUp(held.id, "silent", "…"))
        assert held.state is not LeaseState.LOST
        await refused("disk", puppet.say(puppet.receipt(0)))
        assert held.seat.leaves == {}
