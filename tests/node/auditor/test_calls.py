"""Calls that an auditor refuses: each is an honest call with one thing changed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from fakes.audit_scene import FEE, Auditor, AuditPayer, refused
from fakes.chain import DOMAINS
from fakes.worker_scene import Scene, key_of
from tallymesh import units
from tallymesh.errors import RemoteError
from tallymesh.exchange import AuditRequest
from tallymesh.messages import Assign, Auditors, AuditReason
from tallymesh.units import Stage
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.auditor import service

STRANGER = key_of(99)


def by(key: AccountKey, message: Any) -> bytes:
    return key.sign(DOMAINS, message).body


async def test_an_honest_call_is_taken_once_however_often_it_comes(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run() as served:
        await payer.open_job()
        request = payer.request()
        assert await payer.ask(request) == await payer.ask(request)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(payer.ask, request)
        assert served.counters["audits_taken"] == 1
    async with auditor.run():
        await payer.ask(request)
    assert len(auditor.journal.scopes("auditor/")) == 1


async def test_each_part_must_bear_its_own_signature(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        request = payer.request()
        forged = {
            "order": by(STRANGER, payer.order),
            "lease": by(STRANGER, payer.lease),
            "tally": by(STRANGER, payer.tally(2)),
            "assign": by(STRANGER, Assign(seat=payer.seat, position=payer.drawn(payer.tally(2))[0], unit_id=b"u" * 32)),
        }
        for name, body in forged.items():
            changed = msgspec.structs.replace(request, **{name: body})
            assert await refused(payer.ask(changed)) == "bad_signature", name
        assert await refused(payer.ask(payer.request(signed_by=STRANGER))) == "bad_signature"
        assert auditor.executor.ran == []


async def test_the_signer_may_sign_the_tally_in_the_workers_place(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        request = payer.request()
        await payer.ask(msgspec.structs.replace(request, tally=by(payer.signer, payer.tally(2))))


async def test_parts_of_different_calls_do_not_pass_as_one(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        tally = payer.tally(2)
        position = payer.drawn(tally)[0]
        other = 1 + position % 8
        request = payer.request()
        other_lease = msgspec.structs.replace(payer.lease, nonce=2)
        other_job = msgspec.structs.replace(payer.lease, job=b"j" * 32)
        other_tally = msgspec.structs.replace(tally, number=3)
        other_assign = Assign(seat=payer.seat, position=other, unit_id=payer.tasks[other].unit_id)
        cases: list[tuple[str, AuditRequest]] = [
            ("wrong_seat", msgspec.structs.replace(request, lease=by(payer.worker, other_lease))),
            ("wrong_job", msgspec.structs.replace(request, lease=by(payer.worker, other_job))),
            ("wrong_tally", msgspec.structs.replace(request, tally=by(payer.worker, other_tally))),
            ("wrong_assign", msgspec.structs.replace(request, assign=by(payer.signer, other_assign))),
            ("wrong_unit", msgspec.structs.replace(request, unit=units.encode(payer.tasks[other].unit))),
            ("wrong_unit", payer.request(unit_id=payer.tasks[other].unit_id)),
            ("wrong_position", payer.request(position=12, attempt=0)),
            ("bad_secret", msgspec.structs.replace(request, secret=b"s" * 32)),
            ("bad_secret", msgspec.structs.replace(request, secret=b"")),
            ("wrong_auditor", payer.request(auditor=STRANGER.address)),
        ]
        for expected, changed in cases:
            assert await refused(payer.ask(changed)) == expected
        assert auditor.executor.ran == []


async def test_a_unit_that_was_not_drawn_is_refused_unless_a_reason_calls_for_it(
    auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run():
        await payer.open_job()
        tally = payer.tally(2)
        drawn = payer.drawn(tally)
        assert len(drawn) == 2  # a quarter of eight
        idle = next(p for p in range(1, 9) if p not in drawn)
        assert await refused(payer.ask(payer.request(position=idle))) == "not_drawn"
        assert await refused(payer.ask(payer.request(position=idle, reason=AuditReason.FIRST))) == "not_drawn"
        assert await refused(payer.ask(payer.request(reason=77))) == "bad_message"  # type: ignore[arg-type]
        for position in drawn:
            await payer.ask(payer.request(position=position))
        await payer.ask(payer.request(position=idle, reason=AuditReason.FORCED))


async def test_draws_belong_to_reasons(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        for draw, reason in ((1, AuditReason.DRAWN), (1, AuditReason.FORCED), (0, AuditReason.CONFIRM)):
            assert await refused(payer.ask(payer.request(draw=draw, reason=reason))) == "not_drawn"
        assert await refused(payer.ask(payer.request(draw=3, reason=AuditReason.CONFIRM))) == "not_drawn"
        await payer.ask(payer.request(draw=2, reason=AuditReason.CONFIRM))


async def test_an_attempt_that_does_not_hit_a_slot_of_ours_is_refused(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        tally = payer.tally(2)
        missed = payer.attempt(tally, payer.drawn(tally)[0], mine=False)
        assert await refused(payer.ask(payer.request(attempt=missed))) == "not_drawn"
        assert await refused(payer.ask(payer.request(attempt=60_000))) == "not_drawn"


@pytest.mark.parametrize("fee", [0, FEE - 1, FEE + 1])
async def test_a_wrong_fee_is_refused(auditor: Auditor, payer: AuditPayer, fee: int) -> None:
    async with auditor.run():
        await payer.open_job()
        assert await refused(payer.ask(payer.request(fee=fee))) == "wrong_fee"


async def test_a_unit_that_is_not_the_templates_is_refused(auditor: Auditor, payer: AuditPayer) -> None:
    """Also where signer and worker agree on it: auditors do not run what the order does not name."""
    async with auditor.run():
        await payer.open_job()
        position = payer.drawn(payer.tally(2))[0]
        task = payer.tasks[position]
        unit = msgspec.structs.replace(task.unit, entry="m:other")
        payer.tasks[position] = task._replace(unit=unit, unit_id=units.unit_id(unit))
        tally = payer.tally(2)
        request = payer.request(tally=tally, position=position, reason=AuditReason.FORCED)
        assert await refused(payer.ask(request)) == "foreign_unit"


async def test_a_unit_with_another_seed_or_input_is_not_the_templates(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        position = payer.drawn(payer.tally(2))[0]
        task = payer.tasks[position]
        for change in ({"seed": 1}, {"inputs": (units.Input("item", payer.blobs.put(b"another item")),)}):
            unit = msgspec.structs.replace(task.unit, **change)  # type: ignore[arg-type]
            payer.tasks[position] = task._replace(unit=unit, unit_id=units.unit_id(unit))
            request = payer.request(tally=payer.tally(2), position=position, reason=AuditReason.FORCED)
            assert await refused(payer.ask(request)) == "foreign_unit"


async def test_tallies_of_an_impossible_shape_are_refused(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        shapes = [
            (1, 1, 1, "bad_tally"),  # (number, start, count)
            (1, 0, 2, "bad_tally"),
            (2, 0, 8, "bad_tally"),
            (2, 1, 0, "bad_tally"),
            (2, 1, 20, "wrong_tally"),  # positions 1 … 20 of 0 … 19
        ]
        for number, start, count, expected in shapes:
            tally = msgspec.structs.replace(payer.tally(number), start=start, count=count)
            request = payer.request(number=number, tally=tally, position=max(1, start), attempt=0)
            assert await refused(payer.ask(request)) == expected, (number, start, count)


async def test_a_template_that_is_not_the_orders_is_refused(auditor: Auditor, payer: AuditPayer) -> None:
    other = msgspec.structs.replace(payer.spec, stages=(Stage("map", "m:f", b"{}", 2000),))
    async with auditor.run():
        await payer.open_job()
        request = msgspec.structs.replace(payer.request(), spec=units.encode(other))
        assert await refused(payer.ask(request)) == "wrong_spec"


async def test_a_template_that_did_not_come_along_is_fetched_by_the_audit_order(
    auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run():
        await payer.open_job()
        request = msgspec.structs.replace(payer.request(), spec=b"")
        await payer.ask(request)
        assert (payer.order.template, payer.peer_id, request.audit_order) in auditor.blobs.fetched


async def test_parties_and_their_owners_do_not_audit_themselves(scene: Scene, auditor: Auditor) -> None:
    friends = AuditPayer(scene, auditor)
    scene.chain.own(auditor.key.address, b"o" * 20)
    scene.chain.own(friends.worker.address, b"o" * 20)
    async with auditor.run():
        await friends.open_job()
        assert await refused(friends.ask(friends.request())) == "not_admissible"
        scene.chain.own(friends.worker.address, friends.worker.address)
        await friends.ask(friends.request())


async def test_another_numeric_class_is_not_comparable(scene: Scene, auditor: Auditor, payer: AuditPayer) -> None:
    scene.chain.compute_in(auditor.key.address, b"\x0d" * 32)
    async with auditor.run():
        await payer.open_job()
        assert await refused(payer.ask(payer.request())) == "not_admissible"


async def test_jobs_that_keep_audits_to_the_payer_call_nobody(scene: Scene, auditor: Auditor) -> None:
    payer = AuditPayer(scene, auditor, auditors=int(Auditors.PAYER))
    async with auditor.run():
        await payer.open_job()
        assert await refused(payer.ask(payer.request())) == "not_drawn"


async def test_calls_that_come_too_late_are_refused(scene: Scene, auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        now = scene.chain.now()
        assert await refused(payer.ask(payer.request(commit_by=now))) == "too_late"
        assert await refused(payer.ask(payer.request(commit_by=now - 1))) == "too_late"


async def test_the_tallys_block_is_of_this_chain_final_and_not_old(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run():
        await payer.open_job()
        forked = msgspec.structs.replace(payer.tally(2), block_hash=b"f" * 32)
        assert await refused(payer.ask(payer.request(tally=forked))) == "wrong_block"
        number = scene.chain.now() - 1_800_000_000 + 100
        ahead = msgspec.structs.replace(payer.tally(2), block_number=number, block_hash=scene.chain.block_hash(number))
        assert await refused(payer.ask(payer.request(tally=ahead))) == "wrong_block"
        await trio.sleep(2 * scene.parameters.block_age_max_s + 100)
        old = payer.tally(2, ago=2 * scene.parameters.block_age_max_s + 10)
        assert await refused(payer.ask(payer.request(tally=old))) == "old_block"


async def test_a_block_that_is_final_to_the_payer_a_moment_earlier_is_waited_for(
    scene: Scene, auditor: Auditor, payer: AuditPayer
) -> None:
    async with auditor.run():
        await payer.open_job()
        await payer.ask(payer.request(tally=payer.tally(2, ago=1)))  # final in a second


async def test_a_job_that_cannot_pay_is_refused(scene: Scene, auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await trio.sleep(20)
        assert await refused(payer.ask(payer.request())) == "unfunded"
        await payer.open_job()
        job = scene.chain.jobs[payer.lease.job]
        job.reserve_left = FEE - 1
        assert await refused(payer.ask(payer.request())) == "unfunded"
        job.reserve_left = FEE
        await payer.ask(payer.request())


async def test_a_node_with_too_many_audits_says_busy(
    auditor: Auditor, payer: AuditPayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_AUDITS", 1)
    async with auditor.run():
        await payer.open_job()
        first, second = payer.drawn(payer.tally(2))
        await payer.call(position=first)
        assert await refused(payer.ask(payer.request(position=second))) == "busy"
        await payer.wait(lambda: payer.verdicts)
        await payer.ask(payer.request(position=second))


async def test_calls_that_come_together_do_not_share_the_last_place(
    auditor: Auditor, payer: AuditPayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_AUDITS", 1)
    codes: list[str] = []

    async def call(position: int) -> None:
        try:
            await payer.ask(payer.request(position=position))
            codes.append("taken")
        except RemoteError as error:
            codes.append(error.code)

    async with auditor.run():
        await payer.open_job()
        async with trio.open_nursery() as nursery:
            for position in payer.drawn(payer.tally(2)):
                nursery.start_soon(call, position)
    assert sorted(codes) == ["busy", "taken"]


async def test_a_call_that_would_wait_too_long_for_a_core_is_refused(auditor: Auditor, payer: AuditPayer) -> None:
    auditor.executor.seconds[""] = 30.0
    async with auditor.run():
        await payer.open_job()
        first, second = payer.drawn(payer.tally(2))
        await payer.call(position=first)
        late = payer.request(position=second, commit_by=payer.scene.chain.now() + 1)
        assert await refused(payer.ask(late)) == "busy"


async def test_nobody_is_called_twice_for_one_unit(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        await payer.call()
        again = payer.request(draw=1, reason=AuditReason.CONFIRM)
        assert await refused(payer.ask(again)) == "called_twice"


async def test_a_call_that_the_disk_refuses_is_not_taken(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        await payer.open_job()
        auditor.journal.broken = True
        assert await refused(payer.ask(payer.request())) == "disk"
        auditor.journal.broken = False
        await payer.ask(payer.request())


async def test_any_bytes_get_a_refusal(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run():
        for body in (b"", b"\x90", b"\xc1", b"\x99" + 9 * b"\xc4\x00", bytes(3000)):
            asked = payer.network.request(auditor.source, "audit", body, timeout_s=1)
            assert await refused(asked) == "bad_message"


async def test_an_auditor_serves_nobody_what_it_fetched(auditor: Auditor, payer: AuditPayer) -> None:
    async with auditor.run() as served:
        await payer.open_job()
        await payer.call()
        await payer.wait(lambda: payer.verdicts)
        assert auditor.blobs.has(payer.spec.program)  # type: ignore[arg-type]
        assert not served.may_fetch(payer.peer_id, payer.spec.program, b"")  # type: ignore[arg-type]
