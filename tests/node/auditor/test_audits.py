"""An audit from the call to the verdict: blind, durable before it speaks, and the same bytes after any crash."""

from __future__ import annotations

import pytest
import trio

from fakes.audit_scene import Auditor, AuditPayer
from fakes.chain import DOMAINS
from fakes.worker_scene import Scene, refuse
from tallymesh import exchange, wire
from tallymesh.exchange import CommitRequest, VerdictRequest
from tallymesh.ids import ZERO32
from tallymesh.messages import AuditCommit, AuditReason, Result, Verdict
from tallymesh_ledger import sampling
from tallymesh_node.auditor.record import AuditRecord, Line
from tallymesh_node.interfaces import Failure


async def test_honest_work_is_a_match_and_the_verdict_opens_the_commitment(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run() as served:
        await payer.open_job()
        called = await payer.call()
        await payer.wait(lambda: payer.verdicts)
        (commit,), (verdict,) = payer.commits, payer.verdicts
        me = auditor.key.address
        assert verdict.result == Result.MATCH
        assert verdict.end == payer.opening(called.position).end
        assert sampling.commitment(verdict.end, verdict.salt, me, verdict.probe) == commit.commitment
        assert verdict.audit_order == commit.audit_order == DOMAINS.digest(called)
        await trio.sleep(1)
        assert served.counters["audits_done"] == 1
        assert served.counters["audits_open"] == 0


async def test_the_probe_is_keyed_by_seed_place_and_auditor(auditor: Auditor, payer: AuditPayer) -> None:
    """The fake executor's probe is the keyed hash of the whole output, so it can be redone here."""
    from blake3 import blake3

    async with auditor.run():
        await payer.open_job()
        called = await payer.call()
        tally = payer.tally(2)
        await payer.wait(lambda: payer.verdicts)
    index = called.position - tally.start
    key = sampling.probe_key(payer.seed(tally), index, called.draw, auditor.key.address)
    output = auditor.blobs.get(payer.verdicts[0].end)  # type: ignore[arg-type]
    # The tally's block differs by then, its root and secret do not: the seed is the same.
    assert payer.verdicts[0].probe == blake3(output, key=key).digest()


async def test_a_false_claim_is_a_mismatch(auditor: Auditor, payer: AuditPayer) -> None:
    payer.ends = dict.fromkeys(range(1, 9), b"e" * 32)
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: payer.verdicts)
    assert payer.verdicts[0].result == Result.MISMATCH
    assert payer.verdicts[0].end != b"e" * 32


async def test_the_commitment_is_durable_before_anything_of_the_output_is_received(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    """Every plaintext frame that reaches the auditor and every line of its journal, in the order in which they come."""
    events: list[tuple[str, bytes]] = []

    def tap(sender: str, receiver: str, frame: bytes) -> None:
        if receiver == auditor.peer_id:
            events.append(("received", frame))

    scene.network.tap = tap
    auditor.journal.on_append = lambda scope, kind, body: events.append((kind, body))
    async with auditor.run():
        await payer.open_job()
        called = await payer.call()
        opening = payer.opening(called.position)
        await payer.wait(lambda: payer.verdicts)
    committed = next(i for i, (kind, _) in enumerate(events) if kind == Line.COMMIT)
    before = b"".join(body for kind, body in events[:committed] if kind == "received")
    after = b"".join(body for kind, body in events[committed:] if kind == "received")
    for secret in (opening.end, opening.salt):
        assert secret not in before
        assert secret in after  # the tap sees what it is there to see
    assert payer.spec.inputs[called.position] in before


async def test_a_disk_that_refuses_the_commitment_holds_back_the_request(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        auditor.journal.broken = True
        await trio.sleep(10)
        assert payer.received("commit") == []
        auditor.journal.broken = False
        await payer.wait(lambda: payer.verdicts)


async def test_an_opening_for_something_else_gets_no_verdict(auditor: Auditor, payer: AuditPayer) -> None:
    for number, changes in enumerate(({"audit_order": b"o" * 32}, {"commit": b"c" * 32}), 1):
        payer.open_changes = dict(changes)
        async with auditor.run() as served:
            if number == 1:
                await payer.open_job()
            await payer.call(position=payer.drawn(payer.tally(2))[number - 1])
            await payer.wait(lambda: served.counters.get("audits_bad_open"))
    assert payer.verdicts == []


async def test_where_the_tally_is_one_unit_the_opening_must_be_the_workers(auditor: Auditor, payer: AuditPayer) -> None:
    """A payer that shows another end would get a MISMATCH out of an honest auditor."""
    payer.open_changes = {"end": b"e" * 32}
    async with auditor.run() as served:
        await payer.open_job()
        await payer.call(number=1, position=0)
        await payer.wait(lambda: served.counters.get("audits_bad_open"))
    assert payer.verdicts == []


async def test_the_first_unit_of_a_seat_is_audited(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        called = await payer.call(number=1, position=0)
        assert called.reason == AuditReason.FIRST
        await payer.wait(lambda: payer.verdicts)
    assert payer.verdicts[0].result == Result.MATCH


async def test_inputs_that_cannot_be_had_are_unavailable_without_a_commitment(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run():
        await payer.open_job()
        payer.called = wire.decode((request := payer.request()).audit_order, wire.messages.AuditOrder).message
        scene.swarm.down.add(payer.peer_id)
        await payer.ask(request)
        await payer.wait(lambda: payer.verdicts)
    assert payer.commits == []
    verdict = payer.verdicts[0]
    assert (verdict.result, verdict.end, verdict.salt, verdict.probe) == (Result.UNAVAILABLE, ZERO32, ZERO32, ZERO32)


@pytest.mark.parametrize("code", ["limits", "sandbox", "inputs"])
async def test_what_this_machine_cannot_run_is_unavailable(auditor: Auditor, payer: AuditPayer, code: str) -> None:
    auditor.executor.fail["m:f"] = Failure(code, "Not here.")
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: payer.verdicts)
    assert payer.verdicts[0].result == Result.UNAVAILABLE


async def test_a_program_that_gives_no_output_makes_any_output_a_mismatch(auditor: Auditor, payer: AuditPayer) -> None:
    auditor.executor.fail["m:f"] = Failure("program", "ValueError")
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: payer.verdicts)
    assert len(payer.commits) == 1
    assert (payer.verdicts[0].result, payer.verdicts[0].end) == (Result.MISMATCH, ZERO32)


async def test_a_unit_that_takes_too_long_is_dropped_without_a_word(auditor: Auditor, payer: AuditPayer) -> None:
    auditor.executor.seconds[""] = 100.0
    async with auditor.run() as served:
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: served.counters.get("audits_late"))
        assert auditor.executor.running == 0
    assert payer.got == []


async def test_a_payer_that_opens_nothing_is_asked_for_a_while_and_then_left(
    auditor: Auditor, payer: AuditPayer
) -> None:
    payer.answers["commit"] = refuse("busy")
    async with auditor.run() as served:
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: served.counters.get("audits_silence"), timeout_s=100)
    assert len(payer.got) > 3
    assert len(payer.received("commit")) == 1
    assert payer.verdicts == []


async def test_a_payer_that_refuses_the_commitment_is_left_at_once(auditor: Auditor, payer: AuditPayer) -> None:
    payer.answers["commit"] = refuse("out_of_order")
    async with auditor.run() as served:
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: served.counters.get("audits_refused"))
    assert len(payer.got) == 1


async def test_a_verdict_is_sent_until_the_payer_has_it(scene: Scene, auditor: Auditor, payer: AuditPayer) -> None:
    payer.answers["verdict"] = refuse("busy")
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        await trio.sleep(100)
        del payer.answers["verdict"]
        await payer.wait(lambda: payer.verdicts)
    assert len(payer.received("verdict")) == 1


async def test_after_a_restart_at_any_line_the_same_bytes_are_sent(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: payer.verdicts)
        await trio.sleep(1)
    said = {name: payer.received(name) for name in ("commit", "verdict")}
    (scope,) = auditor.journal.scopes("auditor/")
    lines = auditor.journal.read(scope)
    assert [line.kind for line in lines] == ["call", "commit", "open", "verdict", "over"]
    whole = auditor.journal
    for cut in range(1, len(lines) + 1):
        payer.got.clear()
        auditor.journal = whole.copy(cut)
        async with auditor.run():
            await trio.sleep(10)
        assert [line.kind for line in auditor.journal.read(scope)] == [line.kind for line in lines], cut
        for name in ("commit", "verdict"):
            assert set(payer.received(name)) <= set(said[name]), cut
        assert ("verdict" in {name for name, _ in payer.got}) is (cut < 5)
        assert ("commit" in {name for name, _ in payer.got}) is (cut < 3)
    assert len(payer.verdicts) == 1


async def test_an_interrupted_audit_runs_again_or_is_dropped_when_its_time_is_over(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    auditor.executor.seconds[""] = 5.0
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        await trio.sleep(2)
    async with auditor.run():
        await payer.wait(lambda: payer.verdicts)
    assert len(auditor.executor.ran) == 2
    second = payer.drawn(payer.tally(2))[1]
    async with auditor.run():
        await payer.call(position=second)
        await trio.sleep(2)
    await trio.sleep(60)
    async with auditor.run() as served:
        await payer.wait(lambda: served.counters.get("audits_late"))
    assert len(payer.verdicts) == 1


async def test_audits_take_the_next_free_core_before_units_do(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    order: list[str] = []

    async def unit(name: str) -> None:
        async with auditor.cores.one():
            order.append(name)
            await trio.sleep(3)

    async with auditor.run(), trio.open_nursery() as nursery:
        await payer.open_job()
        for name in ("first", "second"):
            nursery.start_soon(unit, name)
            await trio.sleep(0.1)
        auditor.executor.functions["m:f"] = lambda task, inputs: (order.append("audit") or b"out", {})  # type: ignore[func-returns-value]
        await payer.call()
        await payer.wait(lambda: payer.verdicts)
        await trio.sleep(5)
    assert order == ["first", "audit", "second"]


async def test_a_record_refuses_to_open_before_it_committed(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: payer.verdicts)
        await trio.sleep(1)
    (scope,) = auditor.journal.scopes("auditor/")
    call, commit, opened, *_ = auditor.journal.read(scope)
    with pytest.raises(AssertionError):
        AuditRecord.replay(DOMAINS, [call, opened])
    record = AuditRecord.replay(DOMAINS, [call, commit, opened])
    assert record.state == "opened"


@pytest.mark.slow
async def test_old_audits_are_forgotten(scene: Scene, auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: payer.verdicts)
        await trio.sleep(26 * 3600)
        assert not auditor.journal.scopes("auditor/")
        assert auditor.executor.closed  # and its sandbox


def test_what_is_signed_is_named_as_the_protocol_names_it() -> None:
    assert (CommitRequest.NAME, VerdictRequest.NAME) == ("commit", "verdict")
    assert exchange.AuditRequest.NAME == "audit"
    assert (AuditCommit.TYPE, Verdict.TYPE) == (9, 11)
