"""A transaction whose fate the payer does not know, in a job that is over before it finds out: the money comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from fakes.chain import FakeChain
from fakes.payer_scene import PayerNode, Scene
from fakes.seldom import seldom
from tallymesh.errors import ChainError
from tallymesh.messages import Order
from tallymesh_node.interfaces import SignedLease

UNKNOWN = ChainError("not_mined", "The transaction was not mined in time.", reverted=False)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("mined_after_s", seldom([0.0, 20.0]))
@pytest.mark.parametrize("seats", [True, False])
async def test_a_job_cancelled_before_its_opening_is_known_leaves_nothing_in_the_escrow(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch, restarted: bool, mined_after_s: float, seats: bool
) -> None:
    scene.crowd(5)
    sent = trio.Event()
    real_open = FakeChain.open

    async with scene.running() as nursery:

        async def mine(chain: FakeChain, order: Order, leases: Sequence[SignedLease]) -> None:
            await trio.sleep(mined_after_s)
            await real_open(chain, order, leases if seats else ())

        async def open_unseen(chain: FakeChain, order: Order, leases: Sequence[SignedLease]) -> Any:
            if mined_after_s:
                nursery.start_soon(mine, chain, order, leases)
            else:
                await mine(chain, order, leases)
            sent.set()
            raise UNKNOWN

        monkeypatch.setattr(FakeChain, "open", open_unseen)
        before = scene.chain.balances[payer.key.address]
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=20))
        await sent.wait()
        if restarted:
            payer.crash()
            await trio.sleep(0.01)
            await payer.start(nursery)
        await payer.service.cancel(job)
        await payer.wait_empty(job)
        await trio.sleep(2 * mined_after_s)
        assert scene.chain.held(bytes.fromhex(job)) == 0
        assert scene.chain.balances[payer.key.address] + scene.chain.credits[payer.key.address] == before
