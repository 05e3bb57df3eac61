"""The parties' door: members of the present panel get the disputed unit and what it takes; nobody gets anything
else."""

from __future__ import annotations

import pytest
import trio

from fakes.court_scene import CourtScene, Member, Party
from tallymesh import exchange, units
from tallymesh.errors import RemoteError
from tallymesh.exchange import CourtUnitAnswer, CourtUnitRequest
from tallymesh.ids import BlobId
from tallymesh_node.quarrels import serving
from tallymesh_node.unit_inputs import names_of


async def ask(scene: CourtScene, peer: str, party: Party, *, round_: int = 0, case: bytes = b"") -> CourtUnitAnswer:
    ticket = exchange.encode(CourtUnitRequest(case or scene.case, round_))
    network = scene.network.networks.get(peer) or scene.network.join(peer)
    body = await network.request(party.network.source, CourtUnitRequest.NAME, ticket, timeout_s=10)
    return exchange.decode(body, CourtUnitAnswer)


async def voting(scene: CourtScene) -> Member:
    """A case whose panel votes, and one of its members; nobody's node runs."""
    await scene.accuse()
    await scene.narrow()
    await scene.draw()
    return next(member for member in scene.members if member.key.address in scene.seats())


async def refused(scene: CourtScene, peer: str, party: Party, *, round_: int = 0, case: bytes = b"") -> str:
    with pytest.raises(RemoteError) as caught:
        await ask(scene, peer, party, round_=round_, case=case)
    return caught.value.code


async def test_a_member_gets_the_unit_and_what_it_takes_and_the_state_that_was_agreed_on(scene: CourtScene) -> None:
    member = await voting(scene)
    found = scene.found()
    for party in scene.parties:
        answer = await ask(scene, member.peer_id, party)
        assert units.unit_id(units.decode_unit(answer.unit)) == units.unit_id(scene.unit)
        ticket = exchange.encode(CourtUnitRequest(scene.case, 0))
        for blob in [*names_of(scene.unit), scene.template, BlobId(found.agreed)]:
            assert party.serving.may_fetch(member.peer_id, BlobId(blob), ticket)
        for value in (found.accused_value, found.accuser_value, scene.honest[-1]):
            assert not party.serving.may_fetch(member.peer_id, BlobId(value), ticket), "no party's own word"


async def test_who_was_not_drawn_gets_nothing(scene: CourtScene) -> None:
    await voting(scene)
    stranger = Member(scene, 77, slots=0)
    assert await refused(scene, stranger.peer_id, scene.worker) == "not_drawn"
    assert await refused(scene, "nobody", scene.worker) == "unknown_peer"
    ticket = exchange.encode(CourtUnitRequest(scene.case, 0))
    assert not scene.worker.serving.may_fetch(stranger.peer_id, BlobId(scene.template), ticket)


async def test_another_peers_ticket_opens_nothing(scene: CourtScene) -> None:
    member = await voting(scene)
    await ask(scene, member.peer_id, scene.worker)
    ticket = exchange.encode(CourtUnitRequest(scene.case, 0))
    assert not scene.worker.serving.may_fetch("thief", BlobId(scene.template), ticket)


async def test_a_party_serves_only_its_own_cases_and_only_while_they_vote(scene: CourtScene) -> None:
    await scene.accuse()
    member = scene.members[0]
    assert await refused(scene, member.peer_id, scene.worker, case=b"q" * 32) == "unknown_case"
    assert await refused(scene, member.peer_id, scene.worker) == "not_yet"
    await scene.narrow()
    await scene.draw()
    drawn = next(m for m in scene.members if m.key.address in scene.seats())
    assert await refused(scene, drawn.peer_id, scene.worker, round_=1) == "not_yet"
    assert await refused(scene, drawn.peer_id, scene.worker, round_=serving.ROUNDS_MAX) == "not_drawn"


async def test_a_stranger_that_asks_often_costs_few_looks_at_the_chain(scene: CourtScene) -> None:
    await scene.accuse()
    looks = 0
    case_of = scene.worker.court.case_of

    async def counted(case: bytes) -> object:
        nonlocal looks
        looks += 1
        return await case_of(case)

    scene.worker.court.case_of = counted  # type: ignore[assignment]
    for _ in range(50):
        await refused(scene, scene.members[0].peer_id, scene.worker)
        await refused(scene, scene.members[0].peer_id, scene.worker, case=b"q" * 32)
        await refused(scene, "nobody", scene.worker)
    assert looks == 1


async def test_a_panel_drawn_anew_is_seen(scene: CourtScene) -> None:
    """Who asked too early is answered a moment later; who sits there now gets what it needs."""
    await scene.accuse(steps=1)
    assert await refused(scene, scene.members[0].peer_id, scene.worker) == "not_yet"
    await scene.draw()
    await trio.sleep(serving.ASK_S)
    member = next(m for m in scene.members if m.key.address in scene.seats())
    await ask(scene, member.peer_id, scene.worker)


async def test_a_chain_that_is_away_is_said(scene: CourtScene) -> None:
    member = await voting(scene)
    scene.chain.down = True
    assert await refused(scene, member.peer_id, scene.worker) == "not_yet"


async def test_grants_are_bounded_and_the_newest_are_kept(scene: CourtScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_GRANTS", 2)
    member = await voting(scene)
    ticket = exchange.encode(CourtUnitRequest(scene.case, 0))
    await ask(scene, member.peer_id, scene.worker)
    for number in range(2):
        peer = f"{member.peer_id}-{number}"
        scene.accounts[peer] = member.key.address
        await ask(scene, peer, scene.worker)
    assert not scene.worker.serving.may_fetch(member.peer_id, BlobId(scene.template), ticket)
    assert scene.worker.serving.may_fetch(f"{member.peer_id}-1", BlobId(scene.template), ticket)
