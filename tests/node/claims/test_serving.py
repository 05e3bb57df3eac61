"""The worker's door for drawn auditors: who gets a unit, what is in the answer, and which blobs go with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from fakes.claim_scene import Auditor, ClaimScene, Story
from fakes.worker_scene import key_of, refusal
from tallymesh import exchange, units, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import ClaimUnitAnswer, ClaimUnitRequest, Source
from tallymesh.messages import Assign, Lease, Order
from tallymesh.units import JobSpec, Stage, decode_unit
from tallymesh_ledger.claims import Claim, Draw
from tallymesh_node.claims import calls
from tallymesh_node.claims.finding import Finding
from tallymesh_node.unit_inputs import names_of

from fakes.chain import DOMAINS  # isort: skip


class Door:
    """A claim in the middle of its sampling, whose auditors are off: the test asks in their place."""

    def __init__(self, story: Story) -> None:
        self.story = story

    async def draws(self) -> list[Draw]:
        found = self.story.found()
        return await self.story.worker.claims.draws(self.story.claim_id, found.k)

    async def claim(self) -> Claim:
        found = await self.story.worker.claims.claim_of(self.story.claim_id)
        assert found is not None
        return found

    def node_of(self, account: bytes) -> Auditor:
        return next(auditor for auditor in self.story.auditors if auditor.key.address == account)

    async def ask(self, peer_id: str, sample: int, claim: bytes = b"") -> ClaimUnitAnswer:
        self.story.scene.network.down.discard(peer_id)
        request = ClaimUnitRequest(claim or self.story.claim_id, sample)
        network = self.story.scene.network.networks[peer_id]
        body = await network.request(self.story.worker.source, request.NAME, exchange.encode(request), timeout_s=10)
        return exchange.decode(body, ClaimUnitAnswer)


@pytest.fixture
async def door(scene: ClaimScene) -> AsyncIterator[Door]:
    story = Story(scene)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        await story.stop(*story.auditors)
        story.vanish()
        await story.until(lambda: story.state() == "sampling")
        await story.until(lambda: next(iter(story.worker.claiming.claimant.cases.values())).draws[1])  # type: ignore[union-attr]
        yield Door(story)


async def test_a_drawn_auditor_gets_the_unit_and_nothing_of_its_output(door: Door) -> None:
    draw = (await door.draws())[0]
    node = door.node_of(draw.auditor)
    answer = await door.ask(node.peer_id, draw.sample)
    position = (await door.claim()).positions()[draw.sample]
    call = calls.read(DOMAINS, await door.claim(), draw.sample, answer, peer="worker")
    assert (call.position, call.order, call.lease) == (position, door.story.payer.order, door.story.payer.lease)
    opening = door.story.payer.seat.openings[position]
    told = exchange.encode(answer)
    assert all(secret not in told for secret in (opening.end, opening.salt, opening.aux))


async def test_only_accounts_that_the_chain_drew_for_this_sample_are_answered(door: Door) -> None:
    draws = await door.draws()
    for sample in range((await door.claim()).k):
        drawn = {draw.auditor for draw in draws if draw.sample == sample}
        for auditor in door.story.auditors:
            if auditor.key.address not in drawn:
                assert (await refusal(door.ask(auditor.peer_id, sample))).code == "not_drawn"
    stranger = Auditor(door.story.scene, 77)
    door.story.scene.network.join(stranger.peer_id)
    assert (await refusal(door.ask(stranger.peer_id, 0))).code == "not_drawn"
    door.story.scene.network.join("nobody")
    assert (await refusal(door.ask("nobody", 0))).code == "unknown_peer"
    drawn_peer = door.node_of(draws[0].auditor).peer_id
    assert (await refusal(door.ask(drawn_peer, draws[0].sample, b"\x07" * 32))).code == "unknown_claim"
    assert (await refusal(door.ask(drawn_peer, 15))).code == "not_drawn"


async def test_the_units_blobs_go_to_whom_was_answered_and_no_others(door: Door) -> None:
    draw = (await door.draws())[0]
    node, service = door.node_of(draw.auditor), door.story.worker.claiming
    ticket = exchange.encode(ClaimUnitRequest(door.story.claim_id, draw.sample))
    position = (await door.claim()).positions()[draw.sample]
    program = door.story.payer.program
    assert not service.may_fetch(node.peer_id, program, ticket), "before it asked"
    answer = await door.ask(node.peer_id, draw.sample)
    names = names_of(decode_unit(answer.unit))
    assert all(service.may_fetch(node.peer_id, name, ticket) for name in names)
    assert not service.may_fetch(node.peer_id, names[0], b""), "without the ticket"
    assert not service.may_fetch("stranger", names[0], ticket), "with a ticket that is another's"
    assert not service.may_fetch(node.peer_id, door.story.payer.output(position), ticket), "the output"


async def test_before_and_after_its_sampling_a_claim_answers_nobody(door: Door) -> None:
    story, draw = door.story, (await door.draws())[0]
    node = door.node_of(draw.auditor)
    await story.start(*story.auditors)
    await story.until(lambda: story.state() == "revealing")
    await story.until(lambda: story.worker.claiming.claimant.live[0].claim.state.name == "REVEALING")  # type: ignore[union-attr]
    assert (await refusal(door.ask(node.peer_id, draw.sample))).code == "not_yet"


async def test_a_hostile_body_is_refused(door: Door) -> None:
    draw = (await door.draws())[0]
    peer = door.node_of(draw.auditor).peer_id
    door.story.scene.network.down.discard(peer)
    network = door.story.scene.network.networks[peer]
    for body in (b"", b"\xff", b"\x93\x01\x02\x03", exchange.encode(ClaimUnitRequest(b"", -1))):
        with pytest.raises(RemoteError):
            await network.request(door.story.worker.source, "claim_unit", body, timeout_s=10)


# What an auditor believes of an answer.


def _other(answer: ClaimUnitAnswer, what: str, story: Story) -> dict[str, Any]:
    payer, signer = story.payer, story.payer.signer
    assign: Assign = wire.decode(answer.assign, Assign).message
    lease, order = wire.decode(answer.lease, Lease).message, wire.decode(answer.order, Order).message
    unused = next(task.unit for task in payer.tasks if units.unit_id(task.unit) != assign.unit_id)
    changed = {
        "wrong_seat": {
            "lease": story.worker.key.sign(DOMAINS, msgspec.structs.replace(lease, price=lease.price + 1)).body
        },
        "wrong_job": {"order": payer.key.sign(DOMAINS, msgspec.structs.replace(order, salt=b"\x01" * 32)).body},
        "wrong_assign": {
            "assign": signer.sign(DOMAINS, msgspec.structs.replace(assign, position=assign.position + 1)).body
        },
        "bad_signature": {"assign": key_of(99).sign(DOMAINS, assign).body},
        "wrong_unit": {"unit": units.encode(unused)},
    }
    return changed[what]


@pytest.mark.parametrize("code", ["wrong_seat", "wrong_job", "wrong_assign", "bad_signature", "wrong_unit"])
async def test_an_answer_that_is_not_the_claims_unit_is_refused(door: Door, code: str) -> None:
    draw = (await door.draws())[0]
    answer = await door.ask(door.node_of(draw.auditor).peer_id, draw.sample)
    bent = msgspec.structs.replace(answer, **_other(answer, code, door.story))
    with pytest.raises(RemoteError) as caught:
        calls.read(DOMAINS, await door.claim(), draw.sample, bent, peer="worker")
    assert caught.value.code == code
    assert caught.value.peer == "worker"


async def test_a_unit_that_the_order_does_not_pay_for_is_refused(door: Door) -> None:
    draw = (await door.draws())[0]
    answer = await door.ask(door.node_of(draw.auditor).peer_id, draw.sample)
    call = calls.read(DOMAINS, await door.claim(), draw.sample, answer, peer="")
    spec = door.story.payer.spec
    calls.check(call, spec, peer="")
    heavier = msgspec.structs.replace(spec.stages[0], work_ms=1)
    for bent in (
        msgspec.structs.replace(spec, inputs=()),
        msgspec.structs.replace(spec, profile=b"\x00" * 32),
        msgspec.structs.replace(spec, stages=(heavier,)),
    ):
        with pytest.raises(RemoteError) as caught:
            calls.check(call, bent, peer="")
        assert caught.value.code == "foreign_unit"


async def test_an_auditor_runs_no_unit_of_a_worker_that_it_cannot_reach_or_that_the_order_does_not_pay(
    door: Door,
) -> None:
    story, draw = door.story, (await door.draws())[0]
    network = story.scene.network.networks[door.node_of(draw.auditor).peer_id]
    story.scene.network.down.discard(network.source.peer_id)
    known: list[Source] = []
    dearer = Stage("map", "m:f", b"{}", story.payer.lease.work_ms + 1)

    async def obtain(*_: Any, **__: Any) -> JobSpec:
        await trio.lowlevel.checkpoint()
        return msgspec.structs.replace(story.payer.spec, stages=(dearer,))

    tools: Any = SimpleNamespace(
        source_of=lambda account: known[0] if known else None,
        network=network,
        domains=DOMAINS,
        specs=SimpleNamespace(obtain=obtain),
    )
    finding = Finding(tools, story.claim_id, await door.claim(), draw.sample, story.payer.lease)
    assert (await refusal(finding._ask())).code == "unknown_peer"
    known.append(story.worker.source)
    assert (await refusal(finding._ask())).code == "foreign_unit"
