"""The doors of claims, of the Court and of carriers while they work: whatever comes is answered or refused with a
reason, and what is ruled, paid and sent is as if nothing had come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio

from fakes.carriers import FakeCarrierChain
from fakes.chain import DOMAINS
from fakes.chain import World as ChainWorld
from fakes.claim_scene import ClaimScene, Story
from fakes.network import FakeNetwork, World
from fakes.party_scene import PartyScene, hashed
from fakes.virtual import run
from hostile import lies
from hostile.assault import FORGED, Assault, Wiretap
from tallymesh import exchange
from tallymesh.exchange import (
    CarryRequest,
    CarryTermsRequest,
    ClaimUnitAnswer,
    ClaimUnitRequest,
    CourtUnitRequest,
    WhereRequest,
)
from tallymesh.messages import PeerBinding, RelayedBond, RelayedWithdraw
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_ledger.court import Ruling
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.carriers.serving import Carrier
from tallymesh_node.quarrels.whereabouts import Whereabouts

virtual = pytest.mark.trio(run=run)

SLOT, CREDIT, LEAST = 1_000_000, 50_000, 1_000


def others(body: bytes, *more: Iterable[lies.Variant]) -> list[lies.Variant]:
    return [("replayed by another", body), *lies.bent(body), *(each for variants in more for each in variants)]


async def attack(assault: Assault, tap: Wiretap, by: Iterable[FakeNetwork], names: set[str]) -> None:
    """Every request of these names that passes, made over and sent again by each of `by`, as long as this runs."""
    async with trio.open_nursery() as attackers:

        async def make_over(receiver: str, name: str, body: bytes) -> None:
            for kind, made in others(body, lies.unsigned_lies(name, body), lies.forged(name, body, {})):
                for each in by:
                    await assault.send(each, receiver, name, kind, made)

        while True:
            _, receiver, name, body = await tap.wait()
            if name in names:
                attackers.start_soon(make_over, receiver, name, body)


@virtual
async def test_a_claim_ends_as_it_would_whatever_strangers_ask_for_its_units(tmp_path: Path) -> None:
    story = Story(ClaimScene(tmp_path))
    world = story.scene.network
    tap, assault = Wiretap(world), Assault(world)
    nobody, undrawn = world.join("stranger"), world.join("undrawn")
    story.scene.accounts["undrawn"] = b"\x0e" * 20  # it has an account, which the chain did not draw
    before = story.wealth(story.worker.key.address)
    async with story.everybody(), trio.open_nursery() as nursery:
        nursery.start_soon(attack, assault, tap, (nobody, undrawn), {ClaimUnitRequest.NAME})
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(story.ended)
        await story.until(lambda: not story.chain.contracts.claims.credit_of(story.worker.key.address))
        nursery.cancel_scope.cancel()
    assert (story.ended(), story.paid()) == ("paid", 6)
    assert story.wealth(story.worker.key.address) - before == story.net(1) + story.net(5)
    assert assault.faults == []
    assert assault.taken == []
    codes = {code for name, code in assault.codes if name == ClaimUnitRequest.NAME}
    assert codes >= {"bad_message", "unknown_claim", "unknown_peer", "not_drawn"}, codes


@virtual
async def test_an_auditor_that_lies_about_every_field_of_its_question_harms_nobody(tmp_path: Path) -> None:
    """One that the chain drew, that is: it may ask, for what it was drawn for and nothing else."""
    story = Story(ClaimScene(tmp_path))
    tap, assault = Wiretap(story.scene.network), Assault(story.scene.network)
    async with story.everybody(), trio.open_nursery() as nursery:
        await story.work(units=6, accepted=1)
        story.vanish()

        async def lie() -> None:
            sender, receiver, name, body = await tap.wait(ClaimUnitRequest.NAME)
            tap.own = True
            for kind, made in others(body, lies.unsigned_lies(name, body)):
                await assault.send(story.scene.network.networks[sender], receiver, name, kind, made)

        nursery.start_soon(lie)
        await story.until(story.ended)
    assert (story.ended(), story.paid()) == ("paid", 6)
    assert assault.faults == []
    assert assault.codes[ClaimUnitRequest.NAME, "not_drawn"] > 1
    honest = {"claim_unit: replayed by another", "claim_unit: field 1 0"}  # the latter where it was drawn for the first
    assert {"claim_unit: replayed by another"} <= set(assault.taken) <= honest


@virtual
@pytest.mark.parametrize("place", range(len(ClaimUnitAnswer.__struct_fields__)))
async def test_a_claimant_that_answers_with_lies_gets_its_units_checked_by_nobody(tmp_path: Path, place: int) -> None:
    """Each field of its answer at its extremes: auditors find that they cannot check it, and live."""
    story = Story(ClaimScene(tmp_path))
    hostile = 0
    async with story.everybody():
        await story.work(units=6, accepted=1)
        handlers = story.scene.network.networks[story.worker.peer_id]._dispatcher._handlers
        honest = handlers[ClaimUnitRequest.NAME]

        async def lie(peer: str, body: bytes) -> bytes:
            nonlocal hostile
            answer = await honest(peer, body)
            made = list(lies.unsigned_lies_of(answer, place))
            hostile += 1
            return made[hostile % len(made)][1]

        handlers[ClaimUnitRequest.NAME] = lie
        story.vanish()
        await story.until(story.ended)
        assert all(not each.service.problems() for each in story.auditors)
    assert hostile
    assert story.ended() != "paid" or place == len(ClaimUnitAnswer.__struct_fields__) - 1, "sources are advice"


async def quarrel(tmp_path: Path, beside: Callable[[PartyScene, trio.Nursery], None]) -> PartyScene:
    scene = PartyScene(tmp_path, steps=16, wrong=11)
    await scene.prepare()
    async with trio.open_nursery() as nursery:
        async with scene.everybody():
            beside(scene, nursery)
            assert await scene.ended() is Ruling.FOR_ACCUSER
        nursery.cancel_scope.cancel()
    return scene


@virtual
async def test_a_case_is_ruled_as_it_would_be_whatever_strangers_ask_its_parties(tmp_path: Path) -> None:
    plain = await quarrel(tmp_path / "plain", lambda scene, nursery: None)
    found: list[Assault] = []

    def beside(scene: PartyScene, nursery: trio.Nursery) -> None:
        world = scene.network
        tap, assault = Wiretap(world), Assault(world)
        found.append(assault)
        by = (world.join("stranger"), world.join("undrawn"))
        scene.accounts["undrawn"] = b"\x0e" * 20
        nursery.start_soon(attack, assault, tap, by, {CourtUnitRequest.NAME, WhereRequest.NAME})

    scene = await quarrel(tmp_path / "attacked", beside)
    (assault,) = found
    for host, other in zip(scene.parties, plain.parties, strict=True):
        assert scene.all_of(host.key.address) == plain.all_of(other.key.address)
    assert (scene.found().lo, scene.found().hi) == (plain.found().lo, plain.found().hi) == (10, 11)
    assert assault.faults == []
    assert assault.taken == []
    codes = {code for name, code in assault.codes if name == CourtUnitRequest.NAME}
    assert codes >= {"bad_message", "unknown_case", "unknown_peer", "not_drawn"}, codes


@virtual
async def test_a_member_that_lies_about_every_field_of_its_question_harms_nobody(tmp_path: Path) -> None:
    found: list[Assault] = []

    def beside(scene: PartyScene, nursery: trio.Nursery) -> None:
        tap, assault = Wiretap(scene.network), Assault(scene.network)
        found.append(assault)

        async def lie() -> None:
            sender, receiver, name, body = await tap.wait(CourtUnitRequest.NAME)
            tap.own = True
            for kind, made in others(body, lies.unsigned_lies(name, body)):
                await assault.send(scene.network.networks[sender], receiver, name, kind, made)

        nursery.start_soon(lie)

    await quarrel(tmp_path, beside)
    (assault,) = found
    assert assault.faults == []
    assert {code for _, code in assault.codes} >= {"ok", "bad_message", "unknown_case", "not_drawn"}


@virtual
async def test_nobody_says_for_another_where_it_is(tmp_path: Path) -> None:
    """`where`, by which members learn of parties without offers: forged, lied and bent."""
    world, key = World(), AccountKey(b"\x21" * 32)
    places = Whereabouts(world.join("member"), DOMAINS, AccountKey(b"\x22" * 32), hash_of=hashed)
    places.open()
    mine = Whereabouts(world.join("party"), DOMAINS, key, hash_of=hashed).of_mine()
    assault, known = Assault(world), {key.address: key}
    made = others(mine, lies.unsigned_lies("where", mine), lies.forged("where", mine, known))
    for kind, body in [*made, *lies.lied("where", mine, known)]:
        await assault.send(world.join("stranger"), "member", "where", kind, body)
    assert assault.faults == []
    assert assault.taken == []
    assert places.source_of(key.address) is None
    forged = list(lies.forged("where", mine, known))
    for kind, body in [*forged, *lies.unsigned_lies("where", mine), *lies.lied("where", mine, known)]:
        await assault.send(world.networks["party"], "member", "where", kind, body)
    assert assault.faults == []
    assert not [each for each in assault.taken if each.startswith("where: binding: ")]
    await assault.send(world.networks["party"], "member", "where", "honest", mine)
    source = places.source_of(key.address)
    assert source is not None
    assert source.peer_id == "party"


class Market:
    """A carrier, and an account with credit, a slot and no gas."""

    def __init__(self) -> None:
        self.key = AccountKey(b"\7" * 32)
        self.chain = ChainWorld(DOMAINS, Parameters(slot_wei=SLOT))
        self.world = World()
        self.chain.stake(self.key.address, 1, b"")
        self.chain.mint(self.chain.contracts.escrow.address, CREDIT)
        self.chain.credits[self.key.address] = CREDIT
        self.sending = FakeCarrierChain(self.chain, AccountKey(b"\x64" * 32).address)
        self.tried = 0  # transactions, also those that the chain would revert: they cost gas, too
        self.sending.before_mined = self._try
        Carrier(self.world.join("carrier"), self.sending, DOMAINS, GasPolicy(), LEAST).open()
        self.assault = Assault(self.world)

    def _try(self) -> None:
        self.tried += 1

    def body(self, kind: type[RelayedBond] | type[RelayedWithdraw], **fields: Any) -> bytes:
        usual = {"account": self.key.address, "fee": LEAST, "nonce": 0, "deadline": self.chain.now() + 600, **fields}
        binding = PeerBinding(peer_id_hash=b"\6" * 32, account=self.key.address, version=1)
        signed = [self.key.sign(DOMAINS, each).body for each in (kind(**usual), binding)]
        return exchange.encode(CarryRequest(kind is RelayedBond, *signed))

    async def send(self, variants: Iterable[lies.Variant], name: str = CarryRequest.NAME) -> None:
        """Each by a peer of its own: a carrier bounds what one peer asks."""
        for number, (kind, body) in enumerate(variants):
            by = self.world.join(f"stranger-{len(self.world.networks)}-{number}")
            await self.assault.send(by, "carrier", name, kind, body)


BODIES = {
    "bond": (RelayedBond, {"amount": 20_000}),
    "withdraw": (RelayedWithdraw, {"slots": 1, "deposit": False}),
}


@virtual
@pytest.mark.parametrize("name", BODIES)
async def test_a_carrier_sends_nothing_that_its_account_did_not_sign(name: str) -> None:
    market = Market()
    kind, fields = BODIES[name]
    body = market.body(kind, **fields)
    known = {market.key.address: market.key}
    bent = [each for each in lies.bent(body) if each[0] != "twice"]
    variants = [*bent, *lies.unsigned_lies("carry", body), *lies.forged("carry", body, known)]
    await market.send((what, made) for what, made in variants if not what.startswith("binding: "))
    assert market.assault.faults == []
    # Without its binding, or with one that says less, it is what its account signed, and is carried once.
    assert {each.split(": ")[1] for each in market.assault.taken} <= {"field 2 5", "field 2 3"}
    assert market.sending.sent[f"{name}_for"] == len(market.assault.taken)
    assert market.tried == market.sending.sent.total(), "none was for nothing"
    assert not [each for each in market.assault.taken if any(mark in each for mark in FORGED)]
    assert {code for _, code in market.assault.codes} >= {"bad_message", "bad_signature"}


@virtual
@pytest.mark.parametrize("name", BODIES)
async def test_an_account_that_lies_about_every_field_costs_its_carrier_no_gas(name: str) -> None:
    """What it signs it pays for: a request is carried only where it brings the fee (what would revert is seen by a real
    chain's estimate, before anything is sent)."""
    kind, fields = BODIES[name]
    first = Market()
    taken = 0
    for lie in lies.lied("carry", first.body(kind, **fields), {first.key.address: first.key}):
        market = Market()
        await market.send([lie])
        assert market.assault.faults == []
        earned = int(market.chain.contracts.escrow.credit_of(market.sending.account))
        assert earned >= LEAST * market.sending.sent[f"{name}_for"], lie[0]
        taken += len(market.assault.taken)
    assert taken


@virtual
async def test_terms_are_said_or_refused_whatever_is_asked() -> None:
    market = Market()
    body = exchange.encode(CarryTermsRequest(bond=False, slots=1, bind=True))
    await market.send(others(body, lies.unsigned_lies(CarryTermsRequest.NAME, body)), CarryTermsRequest.NAME)
    assert market.assault.faults == []
    assert market.sending.sent.total() == 0
