"""A worker that dies after any line of its journal says afterwards exactly what it would have said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from fakes.chain import DOMAINS
from fakes.journal import MemoryJournal
from fakes.worker_scene import PARAMETERS, Node, Payer, Scene
from tallymesh import exchange, wire
from tallymesh.exchange import ReceiptRequest, TallyRequest
from tallymesh.messages import Receipt, Tally
from tallymesh.parameters import HOUR
from tallymesh_ledger import windows
from tallymesh_node.worker.record import SeatRecord

KINDS = ("receipt", "tally", "leave")


async def whole_life(scene: Scene, node: Node, payer: Payer) -> None:
    """From the lease to the Release, in a world where it does not matter how long things take."""
    await payer.begin()
    await payer.assign(0, 1, 2, 3, 4)
    await payer.wait(lambda: len(payer.seat.tallies) == 2)
    await payer.accept(1)
    await payer.accept(2)
    await payer.assign(5, 6)
    await payer.close(7, final=True)
    await payer.wait(lambda: len(payer.seat.tallies) == 3)
    assert await payer.accept(3) is not None


@pytest.mark.slow
async def test_a_restart_after_any_line_repeats_the_same_bytes(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "first")
    node = Node(scene)
    node.cores.count = 1  # one order of events
    payer = Payer(scene, node)
    async with node.run():
        await whole_life(scene, node, payer)
    said = {kind: payer.received(kind) for kind in KINDS}
    lines = len(node.journal.read(node.journal.scopes("worker/")[0]))
    assert lines >= 20
    for cut in range(1, lines + 1):
        journal = node.journal.copy(cut)
        record = SeatRecord.replay(DOMAINS, journal.read(journal.scopes("worker/")[0]))
        repeated = await life_from(scene, node, payer, cut)
        # What runs again gives the same output, hence the same leaf, opening and signature.
        assert set(repeated["receipt"]) <= set(said["receipt"]), cut
        unacknowledged = [p for p in record.receipts if not record.seat.settled]
        assert len(repeated["receipt"]) >= len(unacknowledged), cut
        # A tally that was on disk is repeated; one that was not may name another block, and was never seen.
        sent = {tally_of(body).number: body for body in repeated["tally"]}
        for number, signed in record.tallies.items():
            if number in sent:
                assert signed in sent[number], cut
                assert sent[number] in said["tally"], cut
            else:
                assert record.seat.tallies[number - 1].secret, cut


def tally_of(body: bytes) -> Tally:
    message: Tally = wire.decode(exchange.decode(body, TallyRequest).tally, Tally).message
    return message


async def life_from(scene: Scene, node: Node, payer: Payer, cut: int) -> dict[str, list[bytes]]:
    """What a node with the first `cut` lines of the journal sends to a payer that acknowledges everything."""
    again = Node(scene, slots=0)
    again.journal = node.journal.copy(cut)
    again.cores.count = 1
    payer.got.clear()
    payer.answers = {name: lambda body, n=name: payer.take(n, body) for name in KINDS}  # type: ignore[misc]
    async with again.run():
        await trio.sleep(40)
    return {kind: payer.received(kind) for kind in KINDS}


def leaves(bodies: list[bytes]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for body in bodies:
        receipt = wire.decode(exchange.decode(body, ReceiptRequest).receipt, Receipt).message
        assert found.setdefault(receipt.position, receipt.leaf) == receipt.leaf
    return found


async def test_what_was_signed_is_sent_again_byte_for_byte(scene: Scene, node: Node, payer: Payer) -> None:
    """The payer is away while everything is signed; the worker is restarted twice before it is back."""
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        scene.network.down.add(payer.peer_id)
        await trio.sleep(30)
    before = signed_lines(node.journal)
    async with node.run():
        await trio.sleep(30)
    assert signed_lines(node.journal) == before
    scene.network.down.clear()
    async with node.run():
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
    assert signed_lines(node.journal)[: len(before)] == before
    sent = payer.received("receipt") + payer.received("tally")
    for signature in before:
        assert any(signature in body for body in sent)


def signed_lines(journal: MemoryJournal) -> list[bytes]:
    (scope,) = journal.scopes("worker/")
    record = SeatRecord.replay(DOMAINS, journal.read(scope))
    return [record.receipts[p].receipt for p in sorted(record.receipts)] + [
        record.tallies[n] for n in sorted(record.tallies)
    ]


async def test_an_interrupted_unit_runs_again_and_its_position_keeps_one_leaf(
    scene: Scene, node: Node, payer: Payer
) -> None:
    node.executor.seconds[""] = 10.0
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1)
        await trio.sleep(5)
    assert payer.received("receipt") == []
    async with node.run():
        await payer.wait(lambda: len(payer.seat.leaves) == 2)
        await payer.wait(lambda: payer.seat.tallies)
    assert sorted(node.executor.ran) == sorted(2 * [task.unit_id for task in payer.tasks[:2]])
    assert len(leaves(payer.received("receipt"))) == 2


async def test_a_unit_whose_output_changes_over_a_crash_still_has_one_leaf(
    scene: Scene, node: Node, payer: Payer
) -> None:
    """A program that is not deterministic must not make its honest worker a fraud."""
    count = 0

    def changing(unit: object, inputs: object) -> tuple[bytes, dict[str, float]]:
        nonlocal count
        count += 1
        return b"output %d" % count, {}

    node.executor.functions["m:f"] = changing  # type: ignore[assignment]
    payer.answers["receipt"] = lambda body: payer.take("receipt", body)
    async with node.run():
        await payer.begin()
        scene.network.lose = lambda sender, receiver, name: name == "receipt"  # sent, never acknowledged
        await payer.assign(0)
        await trio.sleep(15)
    scene.network.lose = lambda sender, receiver, name: False
    async with node.run():
        await payer.wait(lambda: payer.seat.tallies)
    assert count == 1
    assert len(leaves(payer.received("receipt"))) == 1


async def test_a_seat_that_is_over_is_not_taken_up_again(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run() as service:
        await payer.agree()
        await trio.sleep(200)
        assert service.counters["leases_open"] == 0
    async with node.run() as service:
        assert service.counters["leases_open"] == 0


@pytest.mark.slow
async def test_old_seats_are_forgotten_when_nobody_can_ask_about_them(tmp_path: Path) -> None:
    short = {
        "lock_tail_s": HOUR,
        "court_move_s": 60,
        "court_commit_s": 600,
        "court_reveal_s": 300,
        "court_appeal_s": 600,
    }
    scene = Scene(tmp_path, msgspec.structs.replace(PARAMETERS, **short))
    node = Node(scene)
    payer = Payer(scene, node)
    async with node.run():
        await payer.agree()
        await trio.sleep(200)
        assert node.journal.scopes("worker/")
        await trio.sleep(scene.parameters.lock_tail_s + 2 * HOUR)
        assert node.journal.scopes("worker/"), "a case may have begun on the last day of the lock"
        await trio.sleep(windows.case_s(scene.parameters))
        assert not node.journal.scopes("worker/")
