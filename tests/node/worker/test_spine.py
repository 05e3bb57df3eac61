"""The happy path, from the lease to the money, and what must hold on it."""

from __future__ import annotations

from fakes.worker_scene import PRICE, Node, Payer, Scene
from tallymesh import exchange
from tallymesh.exchange import ReceiptRequest


async def test_leased_units_are_run_tallied_accepted_and_paid(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        assert [t.range.count for t in payer.seat.tallies] == [1, 4]
        assert await payer.accept(1) is None
        assert await payer.accept(2) is None
        await payer.assign(5, 6)
        await payer.close(7, final=True)
        await payer.wait(lambda: len(payer.seat.tallies) == 3)
        release = await payer.accept(3)
        assert release is not None
        assert release.units == 7
        assert sorted(node.executor.ran) == sorted(task.unit_id for task in payer.tasks[:7])
        await payer.wait(lambda: scene.chain.seats[payer.seat.id].paid_units == 7, timeout_s=200)  # by the worker
    assert scene.chain.credits[node.key.address] + scene.chain.balances[node.key.address] == 7 * PRICE * 98 // 100


async def test_small_outputs_travel_with_the_receipt_and_are_kept(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: len(payer.seat.tallies) == 1)
        request = exchange.decode(payer.received("receipt")[0], ReceiptRequest)
        assert set(request.inline) == {request.opening.end}
        assert node.blobs.has(payer.output(0))
        assert request.opening.start == payer.spec.inputs[0]


async def test_inputs_come_from_the_payer_with_the_lease_as_ticket(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: len(payer.seat.tallies) == 1)
    tickets = {ticket for _, _, ticket in node.blobs.fetched}
    assert tickets == {payer.signer.sign(payer.scene.chain.domains, payer.lease).body}


async def test_units_start_in_the_order_of_their_positions(node: Node, payer: Payer) -> None:
    node.cores.count = 1
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
    assert node.executor.ran == [task.unit_id for task in payer.tasks[:5]]
    assert node.executor.running_max == 1
