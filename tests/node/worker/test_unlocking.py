"""The stake of seats that are over becomes free again without anybody's doing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from fakes.worker_scene import PARAMETERS, Node, Payer, Scene
from tallymesh_ledger import windows
from tallymesh_node.worker import unlocking

SHORT = {"lock_tail_s": 600, "court_move_s": 5, "court_commit_s": 60, "court_reveal_s": 60, "court_appeal_s": 60}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, msgspec.structs.replace(PARAMETERS, **SHORT))


async def one_seat(payer: Payer, *, salt: int = 0) -> None:
    """From the lease to its end: one unit, accepted, released, closed on chain."""
    if salt:
        payer.order = payer.make_order(salt=bytes([salt]) * 32)
    await payer.begin()
    await payer.assign(0)
    await payer.wait(lambda: payer.seat.tallies)
    await payer.accept(1)
    release = await payer.close(1, final=True)
    assert release is not None
    payer.scene.chain.seats[payer.seat.id].closed_at = payer.scene.chain.now()


def locked(scene: Scene, node: Node) -> int:
    return scene.chain.locked(node.key.address)


def unlocks(scene: Scene) -> int:
    return sum(what == "unlock" for what, _ in scene.chain.transactions)


@pytest.fixture(autouse=True)
def everything_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlocking, "BATCH", 1)


async def test_a_lock_ends_after_its_tail_and_no_sooner(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await one_seat(payer)
        closed = trio.current_time()
        await trio.sleep(scene.parameters.lock_tail_s - 30)
        assert (locked(scene, node), unlocks(scene)) == (100, 0)
        await trio.sleep(closed + scene.parameters.lock_tail_s + 60 - trio.current_time())
        assert (locked(scene, node), unlocks(scene)) == (0, 1)
        await trio.sleep(scene.parameters.lock_tail_s)
        assert unlocks(scene) == 1


async def test_a_node_that_was_off_when_it_ended_frees_it_from_journal_and_chain(
    scene: Scene, node: Node, payer: Payer
) -> None:
    async with node.run():
        await one_seat(payer)
        await trio.sleep(60)
    await trio.sleep(30 * scene.parameters.lock_tail_s)
    assert locked(scene, node) == 100
    async with node.run():
        await trio.sleep(5)
        assert (locked(scene, node), unlocks(scene)) == (0, 1)


async def test_while_much_is_free_a_transaction_waits_for_many_seats(
    scene: Scene, node: Node, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlocking, "BATCH", 3)
    async with node.run():
        for number in (1, 2):
            await one_seat(payer, salt=number)
        await trio.sleep(3 * scene.parameters.lock_tail_s)
        assert (locked(scene, node), unlocks(scene)) == (200, 0)
        await one_seat(payer, salt=3)
        await trio.sleep(scene.parameters.lock_tail_s + 60)
        assert (locked(scene, node), unlocks(scene)) == (0, 1)


async def test_stake_that_is_needed_is_freed_at_once(
    scene: Scene, node: Node, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seat's lock is half of what there is: waiting for others would shut the node out."""
    monkeypatch.setattr(unlocking, "BATCH", 100)
    half = 3 * scene.parameters.slot_wei // 2
    payer.order = payer.make_order(lock_per_seat=half)
    make = payer.make_lease
    monkeypatch.setattr(payer, "make_lease", lambda **changes: make(**{"lock": half, **changes}))
    async with node.run():
        await one_seat(payer)
        await trio.sleep(scene.parameters.lock_tail_s + 60)
        assert (locked(scene, node), unlocks(scene)) == (0, 1)
        await trio.sleep(windows.evidence_s(scene.parameters) + 3700)
        assert not node.journal.scopes("worker/")


async def test_a_seat_in_a_quarrel_keeps_its_lock_and_costs_no_transactions(
    scene: Scene, node: Node, payer: Payer
) -> None:
    escrow, claims = scene.chain.contracts.escrow, scene.chain.contracts.claims.address
    async with node.run():
        await one_seat(payer)
        scene.chain.run(lambda: escrow.hold(claims, payer.order, payer.lease))
        await trio.sleep(3 * scene.parameters.lock_tail_s)
        assert (locked(scene, node), unlocks(scene)) == (100, 0)
        scene.chain.run(lambda: escrow.let_go(claims, payer.lease))
        await trio.sleep(60)
        assert (locked(scene, node), unlocks(scene)) == (0, 1)


async def test_the_lease_is_kept_as_long_as_its_stake_is_locked(scene: Scene, node: Node, payer: Payer) -> None:
    """Nobody else has it, and without it the stake is locked for ever."""
    async with node.run():
        await one_seat(payer)
        await trio.sleep(60)
        scene.chain.down = True
        await trio.sleep(2 * windows.evidence_s(scene.parameters) + 3600)
        assert node.journal.scopes("worker/")
        scene.chain.down = False
        await trio.sleep(3700)
        assert locked(scene, node) == 0
        assert not node.journal.scopes("worker/")
