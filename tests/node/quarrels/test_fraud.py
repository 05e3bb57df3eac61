"""Two words of one worker that contradict each other are proven at once; words that agree prove nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from fakes.chain import DOMAINS, FakeChain, World
from fakes.claim_scene import ClaimScene, Story
from fakes.claims import FakeClaims
from fakes.court import FakeCourt
from fakes.journal import MemoryJournal
from fakes.payer_scene import PRICE, PayerNode, Puppet, Scene
from fakes.seldom import seldom
from tallymesh.errors import RemoteError
from tallymesh.messages import Receipt
from tallymesh_ledger.claims import Claim
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.cores import Cores
from tallymesh_node.payer.contradictions import SCOPE
from tallymesh_node.quarrels.fraud import Fraud
from tallymesh_node.quarrels.tools import Tools
from tallymesh_node.unit_inputs import Specs


class Prover:
    """The part of a payer's node that proves, on what the payer keeps."""

    def __init__(
        self, world: World, key: AccountKey, journal: MemoryJournal, books: Callable[[], Iterable[Any]] = tuple
    ) -> None:
        nothing: Any = SimpleNamespace()
        self.court = FakeCourt(world, key.address)
        self.claims = FakeClaims(world, key.address)
        self.counters: Counter[str] = Counter()
        self.tools = Tools(
            network=nothing, blobs=nothing, executor=nothing, chain=FakeChain(world, key.address), court=self.court,
            journal=journal, domains=DOMAINS, key=key, parameters=world.parameters, cores=Cores(1),
            specs=Specs(nothing), source_of=lambda account: None, account_of=lambda peer: None, counters=self.counters,
        )  # fmt: skip
        self.books = books

    async def run(self) -> None:
        await Fraud(self.tools, await self.court.terms(), self.claims, self.books).run()


async def contradicted(tmp_path: Path) -> tuple[Scene, PayerNode, Puppet]:
    """A worker that signs two outputs for its first unit."""
    scene = Scene(tmp_path)
    payer = PayerNode(scene)
    scene.crowd(3, works=False)
    puppet = Puppet(scene, 9)
    async with scene.running() as nursery:
        await payer.start(nursery)
        await payer.submit(payer.spec("map", items=10), workers_max=1, max_price_wei=str(PRICE))
        await puppet.wait(2)
        await puppet.say(puppet.receipt(0))
        with pytest.raises(RemoteError) as refusal:
            await puppet.say(puppet.receipt(0, b"another"))
        assert refusal.value.code == "two_leaves"
        with pytest.raises(RemoteError):
            await puppet.say(puppet.receipt(0, b"and another"))
    return scene, payer, puppet


async def test_two_receipts_for_one_position_cost_the_lock_though_the_payer_was_killed_meanwhile(
    tmp_path: Path,
) -> None:
    scene, payer, puppet = await contradicted(tmp_path)
    escrow, me = scene.chain.contracts.escrow, payer.key.address
    lock, credit = escrow.lock_left(puppet.lease), escrow.credit_of(me)
    assert lock
    prover = Prover(scene.chain, payer.key, payer.journal.copy())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prover.run)
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
    assert escrow.lock_left(puppet.lease) == 0
    assert escrow.credit_of(me) - credit == lock * 4_000 // 10_000 + lock * 2_000 // 10_000
    assert prover.court.sent == ["fraud"], "once"
    (kept,) = payer.journal.scopes(SCOPE)
    assert len(payer.journal.read(kept)) == 1, "one pair is enough"


async def test_a_proof_that_is_not_worth_its_gas_is_told_and_waits(tmp_path: Path) -> None:
    scene, payer, puppet = await contradicted(tmp_path)
    prover = Prover(scene.chain, payer.key, payer.journal)
    prover.court.refuse["fraud"] = "not_worth_gas"
    fraud = Fraud(prover.tools, await prover.court.terms(), prover.claims, tuple)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fraud.run)
        await trio.sleep(120)
        assert fraud.problem is not None
        assert fraud.problem[0] == "not_worth_gas"
        prover.court.refuse.clear()
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    assert scene.chain.contracts.escrow.lock_left(puppet.lease) == 0


def books_of(story: Story, *, lie_at: int | None) -> list[Any]:
    """The payer's books of the claimed seat; at `lie_at` the worker had sent it another leaf than it claims."""
    payer, worker = story.payer, story.worker
    leaves, receipts = dict(payer.seat.leaves), {}
    if lie_at is not None:
        leaves[lie_at] = b"\x41" * 32
    for position, leaf in leaves.items():
        receipts[position] = worker.key.sign(
            DOMAINS, Receipt(seat=story.seat, position=position, leaf=leaf)
        ).body  # fmt: skip
    held = SimpleNamespace(
        id=story.seat, agreed=True, lease=payer.lease, seat=SimpleNamespace(leaves=leaves), receipts=receipts
    )
    return [SimpleNamespace(id=payer.lease.job, order=payer.order, all=lambda: [held])]


async def claimed(scene: ClaimScene, *, lie_at: int | None) -> tuple[Story, Prover]:
    story = Story(scene)
    async with story.everybody():
        await story.work(units=6, accepted=1)
        story.vanish()
        prover = Prover(scene.chain, story.payer.key, MemoryJournal(), lambda: books_of(story, lie_at=lie_at))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prover.run)
            await story.until(story.ended)
            nursery.cancel_scope.cancel()
    story.chain.check()
    return story, prover


@pytest.mark.parametrize("repaired", seldom([1, 2, 3, 4, 5], always=2))
async def test_a_cheat_that_repairs_its_root_and_claims_is_proven_wherever_a_repaired_unit_is_drawn(
    tmp_path: Path, repaired: int
) -> None:
    story, prover = await claimed(ClaimScene(tmp_path), lie_at=repaired)
    drawn = repaired in Claim.positions(story.found())  # two of these five are
    proven = bool(prover.counters["frauds_proved"])
    assert proven == drawn
    assert proven == (story.ended() == "failed")
    assert proven == (story.chain.contracts.escrow.lock_left(story.payer.lease) == 0)
    assert story.paid() == (1 if proven else 6)


async def test_a_claim_of_what_the_payer_has_receipts_for_is_left_alone(tmp_path: Path) -> None:
    story, prover = await claimed(ClaimScene(tmp_path), lie_at=None)
    assert story.ended() == "paid"
    assert prover.court.sent == []
