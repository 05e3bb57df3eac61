"""A job with packages, and owners who allow the base set only."""

from __future__ import annotations

import pytest
import trio

from fakes import wheels as made
from fakes.payer_scene import PayerNode, Puppet, Scene
from tallymesh import wheels
from tallymesh.errors import RemoteError
from tallymesh.units import JobSpec
from tallymesh_node.payer import trust

WHEEL = made.build("plot", "1.0", {"plot.py": b""})


class BaseOnly(Puppet):
    """Refuses as a worker does whose owner allows the base set only."""

    asked = 0

    async def _lease(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        raise RemoteError(wheels.BASE_ONLY, "The owner allows the base set only.")


def with_packages(payer: PayerNode, items: int) -> JobSpec:
    payer.blobs.put(WHEEL)
    return payer.spec("map", items=items, shared=wheels.inputs([made.wheel("plot", "1.0", WHEEL)]))


async def test_why_says_that_owners_allow_the_base_set_only_and_none_is_asked_again(
    scene: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "BASE_ONLY_S", 30.0)  # of an hour, in which nothing else happens
    puppets = [BaseOnly(scene, number) for number in (1, 2)]
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(with_packages(payer, 2), deadline_s=500)
        await trio.sleep(15)
        [problem] = payer.service.why(job)
        assert problem.code == "no_offers"
        assert "base_only (Its owner allows the base set only)" in problem.sentence
        assert "requires=" in problem.remedy
        assert [puppet.asked for puppet in puppets] == [1, 1]
        await trio.sleep(30)
        assert [puppet.asked for puppet in puppets] == [2, 2], "the owner may have thought again"
        await payer.service.cancel(job)


async def test_owners_who_take_packages_do_the_job_beside_one_who_does_not(scene: Scene, payer: PayerNode) -> None:
    puppet = BaseOnly(scene, 9, ask=1)
    scene.crowd(4)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(with_packages(payer, 6))
        view = await payer.wait(job)
        assert view.units_done == 6
        assert puppet.asked >= 1
        assert all(puppet.key.address.hex() not in peer.account.lower() for peer in view.peers if peer.assigned)
