"""A node that was off for the first half of a window still gets its money, from its journal and the chain alone."""

from __future__ import annotations

import trio

from fakes.chain import DOMAINS, STARTED
from fakes.worker_scene import PRICE, Node, Payer, Scene
from tallymesh.amounts import WEI_PER_TOKEN

WINDOW = 600  # of claims: until it is over nobody can close a seat that nobody released


async def until(chain_time: int) -> None:
    await trio.sleep(chain_time - STARTED - trio.current_time())


def paid(scene: Scene, payer: Payer) -> int:
    return scene.chain.seats[payer.seat.id].paid_units


async def test_an_accept_is_settled_in_the_second_half_of_the_claim_window(
    scene: Scene, node: Node, payer: Payer
) -> None:
    payer.order = payer.make_order(claim_window=WINDOW)
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        assert await payer.accept(1) is None
    scene.network.down.add(payer.peer_id)  # for good
    await until(payer.lease.until + WINDOW // 2)
    assert paid(scene, payer) == 0
    async with node.run():
        await trio.sleep(60)
        assert paid(scene, payer) == 1
        assert scene.chain.credits[node.key.address] == PRICE - 2 * (PRICE * 200 // 20_000)
        await until(payer.lease.until + WINDOW + 120)
        assert not scene.chain.seats[payer.seat.id].open, "what nobody closed locks its stake"
    scene.chain.check()


async def test_what_was_credited_while_it_was_off_is_drawn(scene: Scene, node: Node, payer: Payer) -> None:
    """The payer settled and is gone; so was the node."""
    payer.order = payer.make_order(price_max=WEI_PER_TOKEN, wages=20 * WEI_PER_TOKEN, claim_window=WINDOW)
    scene.chain.mint(payer.key.address, 30 * WEI_PER_TOKEN)
    async with node.run():
        await payer.begin(price=WEI_PER_TOKEN)
        await payer.assign(0)
        await payer.wait(lambda: payer.seat.tallies)
        await payer.accept(1)
    message = payer.accept_message(1)
    await scene.chain.view(payer.key.address).settle([(payer.lease, payer.signer.sign(DOMAINS, message))])
    scene.network.down.add(payer.peer_id)
    await until(payer.lease.until + WINDOW // 2)
    before = scene.chain.balances[node.key.address]
    async with node.run():
        await trio.sleep(60)
    assert scene.chain.balances[node.key.address] - before == WEI_PER_TOKEN * 98 // 100
