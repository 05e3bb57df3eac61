"""A worker whose journal is a day old signs no second leaf for any position that it may have signed one for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from fakes.chain import STARTED
from fakes.journal import MemoryJournal
from fakes.worker_scene import Node, Payer, Scene, refusal, refuse
from tallymesh import exchange
from tallymesh.errors import RemoteError
from tallymesh.exchange import ReceiptRequest
from tallymesh.messages import Receipt
from tallymesh_ledger import keys
from tallymesh_node.store import life
from tallymesh_node.worker.admission import SEAT_BY_MAX_S

from fakes.chain import DOMAINS  # isort: skip


def leaves(payer: Payer) -> dict[int, set[bytes]]:
    """What the worker signed, by position."""
    found: dict[int, set[bytes]] = {}
    for body in payer.received("receipt"):
        receipt = keys.open_signed(
            DOMAINS, exchange.decode(body, ReceiptRequest).receipt, Receipt, payer.node.key.address
        ).message
        found.setdefault(receipt.position, set()).add(receipt.leaf)
    return found


async def put_back(journal: MemoryJournal) -> None:
    """As store.life writes it down before any role begins."""
    now = STARTED + trio.current_time()
    await journal.append(life.SCOPE, (life.RESTORED, msgspec.msgpack.encode(now)), (life.MARK, b"\x92\x00\x00"))


async def told(scene: Scene, *, after: int, restored: bool) -> Payer:
    """A seat with three receipts; then the worker is given a journal of its first `after` lines, and the payer other
    units for the positions that this journal has no receipt for."""
    node = Node(scene)
    payer = Payer(scene, node)
    payer.answers["receipt"] = lambda body: exchange.encode(exchange.Nothing())  # whatever is in it
    payer.answers["tally"] = refuse("busy")
    async with node.run():
        await payer.begin()
        for position in range(3):
            await payer.ask(payer.assign_request(position))
            await payer.wait(lambda count=position: len(leaves(payer)) > count)  # type: ignore[misc]
    node.journal = node.journal.copy(after)
    if restored:
        await put_back(node.journal)
    async with node.run():
        await trio.sleep(1)
        for position in range(3):
            try:
                if not node.service.seats():
                    await payer.ask(payer.lease_request(payer.lease))
                await payer.ask(payer.assign_request(position, task=position + 5))
            except RemoteError:
                continue
        await trio.sleep(60)
    return payer


LINES = 1 + 2 * 3  # the lease, then an Assign and a receipt for each unit


@pytest.mark.parametrize("after", range(LINES), ids=lambda lines: f"{lines} lines")
async def test_a_worker_that_restores_a_day_old_backup_never_signs_two_different_leaves(
    tmp_path: Path, after: int
) -> None:
    payer = await told(Scene(tmp_path), after=after, restored=True)
    assert {len(found) for found in leaves(payer).values()} == {1}
    if after:
        assert [leave.code for leave in payer.leaves] == ["restored"]


async def test_one_that_does_not_notice_would_give_the_payer_a_proof_of_fraud(tmp_path: Path) -> None:
    """What the check is for: the same story without it."""
    payer = await told(Scene(tmp_path), after=1, restored=False)
    assert max(len(found) for found in leaves(payer).values()) == 2


async def test_what_was_begun_in_the_backup_is_not_run_again(tmp_path: Path) -> None:
    """The program may give another result the second time, and the first receipt is out."""
    scene = Scene(tmp_path)
    node = Node(scene)
    payer = Payer(scene, node)
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.leaves)
    node.journal = node.journal.copy(2)  # the lease and the Assign
    node.executor.functions["m:f"] = lambda unit, inputs: (b"another result", {})
    await put_back(node.journal)
    async with node.run():
        await trio.sleep(30)
    assert {len(found) for found in leaves(payer).values()} == {1}


async def test_nor_what_was_begun_on_a_seat_that_was_closing(tmp_path: Path) -> None:
    """Such a seat cannot be left any more."""
    scene = Scene(tmp_path)
    node = Node(scene)
    payer = Payer(scene, node)
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.close(1, final=True)
        await payer.wait(lambda: payer.seat.leaves)
    node.journal = node.journal.copy(3)  # the lease, the Assign and the Close
    node.executor.functions["m:f"] = lambda unit, inputs: (b"another result", {})
    await put_back(node.journal)
    async with node.run():
        await trio.sleep(30)
    assert {len(found) for found in leaves(payer).values()} == {1}


async def test_leases_are_taken_again_once_no_forgotten_one_can_be_seated(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    node = Node(scene)
    payer = Payer(scene, node)
    await put_back(node.journal)
    async with node.run():
        error = await refusal(payer.ask(payer.lease_request(payer.make_lease())))
        assert error.code == "restored"
        await trio.sleep(SEAT_BY_MAX_S + 1)
        payer.order = payer.make_order()
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.leaves)


async def test_a_node_that_was_off_for_a_day_leaves_its_seats_and_takes_new_leases_at_once(tmp_path: Path) -> None:
    """Its disk may be a snapshot of then: a position may have a receipt that it does not know."""
    scene = Scene(tmp_path)
    node = Node(scene)
    payer = Payer(scene, node)
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.leaves)
    node.journal = node.journal.copy(2)  # the lease and the Assign: the snapshot
    node.executor.functions["m:f"] = lambda unit, inputs: (b"another result", {})
    await node.journal.append(life.SCOPE, (life.AWAY, msgspec.msgpack.encode(STARTED + trio.current_time())))
    async with node.run():
        await payer.wait(lambda: payer.leaves)
        assert {len(found) for found in leaves(payer).values()} == {1}
        payer.order = payer.make_order(salt=b"\x01" * 32)
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.leaves)
