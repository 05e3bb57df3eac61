"""What a worker refuses, what it answers twice alike, and what it takes from whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from fakes.chain import DOMAINS
from fakes.worker_scene import Node, Payer, Scene, key_of, refusal, refuse
from tallymesh import exchange, units
from tallymesh.errors import RemoteError
from tallymesh.exchange import (
    AcceptRequest,
    AssignRequest,
    CloseRequest,
    ForfeitRequest,
    LeaseAnswer,
    SeatedRequest,
    Source,
)
from tallymesh.ids import ZERO32, BlobId
from tallymesh.messages import Assign, Cancel, Close
from tallymesh.plan import Plan
from tallymesh.units import Stage
from tallymesh.wheels import Wheel, inputs
from tallymesh_node.worker import doors

STRANGER = key_of(99)


async def code(awaitable: Any) -> str:
    return (await refusal(awaitable)).code


# Leases.


async def test_a_lease_that_no_signature_covers_is_refused(node: Node, payer: Payer) -> None:
    async with node.run():
        lease = payer.make_lease()
        request = payer.lease_request(lease)
        by_stranger = {
            "order": STRANGER.sign(DOMAINS, payer.order).body,
            "lease": STRANGER.sign(DOMAINS, lease).body,
        }
        for name, body in by_stranger.items():
            changed = msgspec.structs.replace(request, **{name: body})
            assert await code(payer.ask(changed)) == "bad_signature", name
        assert node.service.counters["leases_open"] == 0


async def test_a_node_whose_owner_allows_the_base_set_only_refuses_a_job_with_packages(scene: Scene) -> None:
    node = Node(scene, 1)
    payer = Payer(scene, node, shared=inputs([Wheel("plot-1.0-py3-none-any.whl", BlobId(bytes(32)), 10)]))
    plain = Payer(scene, node, number=70)
    node.base_only = True
    async with node.run():
        assert await code(payer.ask(payer.lease_request(payer.make_lease()))) == "base_only"
        await plain.ask(plain.lease_request(plain.make_lease()))
        assert node.service.counters["leases_open"] == 1


async def test_a_lease_for_another_network_is_refused(node: Node, payer: Payer) -> None:
    elsewhere = msgspec.structs.replace(DOMAINS, escrow=msgspec.structs.replace(DOMAINS.escrow, chain_id=7))
    async with node.run():
        lease = payer.signer.sign(elsewhere, payer.make_lease()).body
        request = msgspec.structs.replace(payer.lease_request(payer.make_lease()), lease=lease)
        assert await code(payer.ask(request)) == "bad_signature"


async def test_a_lease_of_another_job_or_worker_is_refused(node: Node, payer: Payer) -> None:
    async with node.run():
        for expected, changes in (("wrong_job", {"job": b"j" * 32}), ("wrong_worker", {"worker": b"w" * 20})):
            lease = payer.make_lease(**changes)
            assert await code(payer.ask(payer.lease_request(lease))) == expected


async def test_a_payer_that_names_another_peer_is_refused(node: Node, payer: Payer) -> None:
    async with node.run():
        request = payer.lease_request(payer.make_lease(), payer=Source("somebody-else"))
        assert await code(payer.ask(request)) == "payer_unreachable"


async def test_a_template_that_is_not_the_orders_is_refused(node: Node, payer: Payer) -> None:
    other = msgspec.structs.replace(payer.spec, stages=(Stage("map", "m:g", b"{}", 1000),))
    async with node.run():
        request = payer.lease_request(payer.make_lease(), spec=units.encode(other))
        assert await code(payer.ask(request)) == "wrong_spec"


async def test_a_template_that_did_not_come_along_is_fetched_from_the_payer(node: Node, payer: Payer) -> None:
    async with node.run():
        answer = await payer.ask(payer.lease_request(payer.make_lease(), spec=b""))
        assert exchange.decode(answer, LeaseAnswer).lease
        assert node.blobs.has(payer.template)


async def test_a_node_without_a_slot_takes_no_lease_and_says_so(scene: Scene) -> None:
    node = Node(scene, slots=0)
    payer = Payer(scene, node)
    async with node.run() as service:
        assert await code(payer.ask(payer.lease_request(payer.make_lease()))) == "unstaked"
        ((_, peer, why),) = service.refusals
        assert (peer, why.code) == (payer.peer_id, "unstaked")


async def test_stake_that_agreed_leases_will_lock_is_not_promised_twice(scene: Scene, node: Node, payer: Payer) -> None:
    slot = scene.parameters.slot_wei
    async with node.run():
        await payer.agree(lock=slot + 1, nonce=1)  # of two slots
        assert await code(payer.ask(payer.lease_request(payer.make_lease(lock=slot, nonce=2)))) == "too_little_stake"


async def test_the_same_lease_again_gets_the_same_answer(node: Node, payer: Payer) -> None:
    async with node.run():
        request = payer.lease_request(payer.make_lease())
        assert await payer.ask(request) == await payer.ask(request)
        assert node.service.counters["leases_taken"] == 1
    async with node.run():
        assert await payer.ask(request) == await payer.ask(request)


async def test_leases_of_one_job_share_its_cores_and_another_job_finds_none_free(scene: Scene, node: Node) -> None:
    first = Payer(scene, node, number=50, cores=2)
    second = Payer(scene, node, number=60, cores=1)
    async with node.run():
        await first.agree(nonce=1)
        await first.agree(nonce=2)
        assert await code(second.ask(second.lease_request(second.make_lease()))) == "busy"
        await first.put_on_chain()


async def test_a_lease_that_the_disk_refuses_is_not_taken(node: Node, payer: Payer) -> None:
    async with node.run():
        node.journal.broken = True
        assert await code(payer.ask(payer.lease_request(payer.make_lease()))) == "disk"
        assert node.service.counters["leases_open"] == 0
        node.journal.broken = False
        await payer.agree()


# Assigns.


async def test_an_assign_by_a_stranger_or_for_an_unknown_seat_is_refused(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        request = payer.assign_request(0)
        message = {"seat": payer.seat.id, "position": 0, "unit_id": payer.tasks[0].unit_id}
        forged = msgspec.structs.replace(request, assign=STRANGER.sign(DOMAINS, Assign(**message)).body)
        assert await code(payer.ask(forged)) == "bad_signature"
        assert await code(payer.ask(payer.assign_request(0, seat=b"?" * 32))) == "unknown_seat"


async def test_positions_are_assigned_once_and_in_order(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        assert await code(payer.ask(payer.assign_request(1))) == "out_of_order"
        await payer.assign(0)
        await payer.ask(payer.assign_request(0))  # the same again is fine
        assert await code(payer.ask(payer.assign_request(0, task=3))) == "position_taken"
        await payer.wait(lambda: payer.seat.tallies)
        await payer.ask(payer.assign_request(0))
        assert len(node.executor.ran) == 1


async def test_a_unit_that_is_not_the_templates_is_refused(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        task = payer.tasks[0]
        foreign = msgspec.structs.replace(task.unit, config=b'{"x":1}')
        request = payer.assign_request(0, unit_id=units.unit_id(foreign))
        request = msgspec.structs.replace(request, unit=units.encode(foreign))
        assert await code(payer.ask(request)) == "foreign_unit"
        wrong = msgspec.structs.replace(payer.assign_request(0), unit=units.encode(payer.tasks[1].unit))
        assert await code(payer.ask(wrong)) == "wrong_unit"


async def test_a_unit_with_another_seed_is_not_the_templates(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        foreign = msgspec.structs.replace(payer.tasks[0].unit, seed=1)
        request = payer.assign_request(0, unit_id=units.unit_id(foreign))
        assert await code(payer.ask(msgspec.structs.replace(request, unit=units.encode(foreign)))) == "foreign_unit"


async def test_after_a_failed_unit_no_further_one_is_taken(node: Node, payer: Payer) -> None:
    node.executor.seconds[""] = 10.0
    async with node.run():
        await payer.begin()
        (payer.blobs.folder / payer.spec.inputs[1].hex()).unlink()
        await payer.assign(0, 1)
        await payer.wait(lambda: payer.failures)
        assert node.executor.running == 1
        assert await code(payer.ask(payer.assign_request(2))) == "closed"


async def test_waiting_units_are_bounded_in_bytes_too(
    node: Node, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "MAX_WAITING_BYTES", 2 * len(units.encode(payer.tasks[0].unit)))
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1)
        assert await code(payer.ask(payer.assign_request(2))) == "busy"


async def test_blobs_are_on_disk_before_the_line_that_relies_on_them(node: Node, payer: Payer) -> None:
    dirty: set[bytes] = set()
    put, sync = node.blobs.put, node.blobs.sync

    def marking(data: bytes) -> BlobId:
        name = put(data)
        dirty.add(name)
        return name

    async def cleaning() -> None:
        await sync()
        dirty.clear()

    def look(scope: str, kind: str, body: bytes) -> None:
        assert not dirty or kind not in ("lease", "assign", "receipt"), kind

    node.blobs.put, node.blobs.sync = marking, cleaning  # type: ignore[method-assign]
    node.journal.on_append = look
    async with node.run():
        await payer.begin()
        payer.seat.assign(0, payer.tasks[0].unit_id)
        inline = {payer.program: b"a program", payer.spec.inputs[0]: b"item 0"}
        await payer.ask(msgspec.structs.replace(payer.assign_request(0), inline=inline))
        await payer.wait(lambda: payer.seat.tallies)


async def test_a_heavy_stages_unit_does_not_come_in_at_a_light_stages_price(scene: Scene, node: Node) -> None:
    payer = Payer(scene, node)
    blobs = payer.blobs
    stages = (Stage("client", "m:c", b"{}", 9000), Stage("aggregate", "m:a", b"{}", 1000))
    shards = tuple(sorted(blobs.put(b"shard %d" % i) for i in range(2)))
    payer.spec = msgspec.structs.replace(
        payer.spec, kind="federated", stages=stages, inputs=shards, initial=blobs.put(b"checkpoint"), rounds=1
    )
    payer.template = blobs.put(units.encode(payer.spec))
    payer.order = payer.make_order()
    payer.tasks = list(Plan(payer.spec).ready())
    async with node.run():
        await payer.begin(work_ms=1000)
        assert await code(payer.ask(payer.assign_request(0))) == "foreign_unit"
        assert node.executor.ran == []


async def test_inlined_inputs_are_kept_and_anything_else_inlined_is_refused(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        request = payer.assign_request(0)
        item = payer.spec.inputs[0]
        for inline in ({item: b"other bytes"}, {b"x" * 32: b"not an input"}):
            assert await code(payer.ask(msgspec.structs.replace(request, inline=inline))) == "bad_inline"
        payer.scene.swarm.down.add(payer.peer_id)  # nothing can be fetched: both inputs must come along
        inline = {item: b"item 0", payer.program: b"a program"}
        payer.seat.assign(0, payer.tasks[0].unit_id)
        await payer.ask(msgspec.structs.replace(request, inline=inline))
        await payer.wait(lambda: payer.seat.tallies)


async def test_no_more_units_wait_than_there_is_room_for(
    node: Node, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "MAX_WAITING_UNITS", 3)
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2)
        assert await code(payer.ask(payer.assign_request(3))) == "busy"
        await payer.wait(lambda: len(payer.seat.leaves) == 3)
        await payer.assign(3)


async def test_an_assign_that_the_disk_refuses_is_not_taken(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        node.journal.broken = True
        assert await code(payer.ask(payer.assign_request(0))) == "disk"
        node.journal.broken = False
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)


# Accepts and endings.


async def test_an_accept_by_a_stranger_is_refused(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        forged = AcceptRequest(STRANGER.sign(DOMAINS, payer.accept_message(1)).body)
        assert await code(payer.ask(forged)) == "bad_signature"


async def test_an_accept_that_does_not_fit_is_refused_and_kept_as_money(node: Node, payer: Payer) -> None:
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        assert await code(payer.send_accept(payer.accept_message(2))) == "out_of_order"
        assert service.seats()[0].accepted == 5  # whoever signs for five owes five
        assert await code(payer.send_accept(payer.accept_message(1, chain=b"?" * 32))) == "bad_accept"
        lines = len(node.journal.read(service._works[payer.seat.id].record.scope))
        assert await code(payer.send_accept(payer.accept_message(2))) == "out_of_order"
        assert len(node.journal.read(service._works[payer.seat.id].record.scope)) == lines  # nothing is written twice
        await payer.accept(1)
        await payer.accept(2)


async def test_an_accept_before_its_secret_is_taken_when_it_comes_again(node: Node, payer: Payer) -> None:
    payer.answers["tally"] = refuse("busy")
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.received("tally"))
        payer.take("tally", payer.received("tally")[0])
        message = payer.accept_message(1)
        assert await code(payer.send_accept(message)) == "no_secret"
        del payer.answers["tally"]
        await trio.sleep(20)  # the worker asks again
        assert await payer.send_accept(message) is None


async def test_an_accept_that_overtakes_its_secret_waits_for_it(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        assert await payer.accept(1) is None  # at once: the worker may not have written the secret down


async def test_a_release_is_given_only_after_a_final_close_and_everything_accepted(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        assert await payer.accept(1) is None  # nothing was asked to end
        await payer.assign(1)
        await payer.close(2, final=True)
        assert await payer.send_accept(payer.accept_message(1)) is None  # one unit is still owed
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        release = await payer.accept(2)
        assert release is not None
        assert release.units == 2
        assert await payer.send_accept(payer.accept_message(2)) == release


async def test_a_close_in_the_middle_asks_for_a_tally_and_the_seat_goes_on(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2)
        await payer.close(3, final=False)
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        assert payer.seat.tallies[1].range.count == 2
        await payer.accept(1)
        await payer.assign(3)
        await payer.wait(lambda: len(payer.seat.leaves) == 4)


async def test_a_cancel_kills_what_runs_and_tallies_what_is_done(node: Node, payer: Payer) -> None:
    node.executor.seconds[""] = 10.0
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2, 3)
        await payer.wait(lambda: len(payer.seat.leaves) == 2)
        assert node.executor.running == 2
        await payer.cancel()
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        assert node.executor.running == 0
        assert len(payer.seat.leaves) == 2
        await payer.accept(1)
        release = await payer.accept(2)
        assert release is not None
        assert release.units == 2


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_a_seat_to_which_nothing_is_owed_is_released_at_once(node: Node, payer: Payer, how: str) -> None:
    """Nothing will ever be accepted on it, so no Accept's answer could bring the Release."""
    node.executor.seconds[""] = 10.0
    async with node.run():
        await payer.begin()
        if how == "cancel":
            await payer.assign(0)
        release = await (payer.cancel() if how == "cancel" else payer.close(0, final=True))
        assert release is not None
        assert release.units == 0


async def test_a_seat_to_which_a_unit_is_owed_is_not_released_by_a_close(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        assert await payer.close(1, final=True) is None
        await payer.wait(lambda: payer.seat.tallies)
        assert await payer.cancel() is None
        release = await payer.accept(1)
        assert release is not None
        assert release.units == 1


async def test_a_receipt_that_crossed_a_cancel_is_given_up(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        payer.answers["receipt"] = refuse("too_late")
        await payer.assign(1)
        await payer.wait(lambda: len(payer.received("receipt")) == 2)
        del payer.answers["receipt"]
        await payer.cancel()
        release = await payer.accept(1)
        assert release is not None
        assert release.units == 1


async def test_a_cancel_that_overtakes_a_receipt_leaves_both_sides_with_one_count(node: Node, payer: Payer) -> None:
    """The worker has signed two receipts, the payer counts one: the tally must not contain the other."""
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
        await payer.assign(1)
        await payer.wait(lambda: len(payer.seat.leaves) == 2)
        payer.answers["receipt"] = refuse("busy")
        await payer.assign(2)
        await payer.wait(lambda: len(payer.received("receipt")) == 3)
        await payer.cancel()
        await trio.sleep(5)
        assert len(payer.seat.tallies) == 1
        payer.answers["receipt"] = refuse("too_late")
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        assert payer.seat.tallies[1].range.count == 1
        release = await payer.accept(2)
        assert release is not None
        assert release.units == 2


async def test_closing_messages_are_taken_from_the_signer_alone(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        for request in (
            CloseRequest(close=STRANGER.sign(DOMAINS, Close(seat=payer.seat.id, position=0, final=True)).body),
            CloseRequest(cancel=STRANGER.sign(DOMAINS, Cancel(seat=payer.seat.id, at=0)).body),
        ):
            assert await code(payer.ask(request)) == "bad_signature"
        assert await code(payer.ask(CloseRequest())) == "bad_message"
        close = payer.signer.sign(DOMAINS, Close(seat=payer.seat.id, position=0, final=True)).body
        cancel = payer.signer.sign(DOMAINS, Cancel(seat=payer.seat.id, at=0)).body
        assert await code(payer.ask(CloseRequest(close, cancel))) == "bad_message"


async def test_unsigned_words_are_taken_from_the_payers_peer_alone(scene: Scene, node: Node, payer: Payer) -> None:
    other = scene.network.join("somebody")
    async with node.run():
        await payer.begin()
        for request in (SeatedRequest(payer.seat.id, ZERO32), ForfeitRequest(payer.seat.id, "mismatch", "")):
            asked = other.request(node.source, request.NAME, exchange.encode(request), timeout_s=1)
            assert await code(asked) == "not_payer"
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)


@pytest.mark.parametrize("name", ["lease", "seated", "assign", "accept", "close", "forfeit"])
async def test_any_bytes_get_a_refusal(node: Node, payer: Payer, name: str) -> None:
    async with node.run():
        await payer.begin()
        for body in (b"", b"\x90", b"\xc1", b"\x91\xc4\x01x", b"\x93\xa1x\xa1x\xa1x", bytes(2000)):
            with pytest.raises(RemoteError) as caught:
                await payer.network.request(node.source, name, body, timeout_s=1)
            assert caught.value.code != "internal", body


async def test_inlined_bytes_go_to_the_blobs_and_not_to_the_journal(node: Node, payer: Payer) -> None:
    async with node.run() as service:
        await payer.begin()
        payer.seat.assign(0, payer.tasks[0].unit_id)
        request = msgspec.structs.replace(payer.assign_request(0), inline={payer.program: b"a program"})
        await payer.ask(request)
        (work,) = service.works()
        lines = [entry for entry in node.journal.read(work.record.scope) if entry.kind == "assign"]
        assert exchange.decode(lines[0].body, AssignRequest).inline == {}
