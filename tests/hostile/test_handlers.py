"""Every request's handler in real roles while they work: whatever comes is answered or refused with a reason, in
bounded time, and the job beside it ends as if nothing had come."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from fakes import worker_scene
from fakes.payer_scene import PRICE, PayerNode, Peer, Puppet, Scene, honest_result, result_of
from fakes.virtual import run
from hostile import lies
from hostile.assault import FORGED, Assault, Wiretap
from tallymesh import exchange
from tallymesh_ledger.keys import AccountKey

virtual = pytest.mark.trio(run=run)


def known(scene: Scene, payer: PayerNode) -> dict[bytes, AccountKey]:
    """Everybody's keys, also that of the job's signer, which the payer's follows."""
    found = [payer.key, *(peer.key for peer in scene.peers)]
    found += [driver.book.secrets.signer for driver in payer.service._drivers.values()]
    return {key.address: key for key in found}


def crowd(scene: Scene) -> list[Peer]:
    return scene.crowd(4, cores=2)


@pytest.mark.slow
@virtual
async def test_whatever_strangers_send_is_refused_and_the_job_ends_as_it_would_without_them(
    scene: Scene, payer: PayerNode
) -> None:
    crowd(scene)
    tap, assault = Wiretap(scene.network), Assault(scene.network)
    stranger = scene.network.join("stranger")
    async with scene.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=12)
        job = await payer.submit(spec)

        async def make_over(receiver: str, name: str, body: bytes) -> None:
            variants = [("replayed by another", body), *lies.bent(body)]
            variants += lies.forged(name, body, known(scene, payer))
            variants += lies.unsigned_lies(name, body)
            for kind, made in variants:
                await assault.send(stranger, receiver, name, kind, made)

        async def attack() -> None:
            async with trio.open_nursery() as attackers:
                while True:
                    while tap.caught:
                        _, receiver, name, body = tap.caught.pop(0)
                        if receiver in scene.network.networks:
                            attackers.start_soon(make_over, receiver, name, body)
                    await trio.sleep(0.05)

        nursery.start_soon(attack)
        view = await payer.wait(job)
        await trio.sleep(5)  # the last that were caught
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        assert assault.faults == []
        assert len(assault.codes) > 20
        names = {name for name, _ in assault.codes}
        assert names >= {"lease", "seated", "assign", "accept", "receipt", "tally", "audit", "commit", "verdict"}
        # What was signed once gets its old answer again, whatever is beside it; nothing else is taken.
        assert [each for each in assault.taken if any(mark in each for mark in FORGED)] == []
        events = [event for event in payer.service.events(job, 0) if event.kind == "caught"]
        assert events == []


@pytest.mark.slow
@virtual
async def test_a_party_that_lies_about_every_field_gets_a_reason_and_breaks_nothing_of_the_others(
    scene: Scene, payer: PayerNode
) -> None:
    """The right signatures under wrong words. The job may suffer (its parties lie), the roles may not."""
    peers = crowd(scene)
    tap, assault = Wiretap(scene.network), Assault(scene.network)
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=6))
        with trio.fail_after(3000):
            while len({name for _, _, name, _ in tap.caught}) < 9:  # noqa: ASYNC110 - under virtual time
                await trio.sleep(0.1)
        tap.own = True
        for sender, receiver, name, body in list(tap.caught):
            by = scene.network.networks[sender]
            for kind, made in [*lies.lied(name, body, known(scene, payer)), *lies.unsigned_lies(name, body)]:
                await assault.send(by, receiver, name, kind, made)
        assert assault.faults == []
        assert payer.service.job(job).status
        # Everybody still answers.
        stranger = scene.network.join("stranger")
        for receiver in scene.network.networks:
            if receiver != "stranger":
                await assault.send(stranger, receiver, "nothing", "unknown", b"")
        assert assault.codes["nothing", "unknown_request"] == len(peers) + 1


@virtual
async def test_who_repeats_what_a_payer_once_signed_is_no_sign_that_it_lives(tmp_path: Path) -> None:
    """Order and lease are on chain for all to read: a stranger that says them again must not keep a worker from
    settling with a payer that is gone."""
    scene = worker_scene.Scene(tmp_path)
    node = worker_scene.Node(scene)
    gone = worker_scene.Payer(scene, node)
    stranger = scene.network.join("stranger")
    async with node.run() as service:
        await gone.begin()
        await gone.assign(0)
        await gone.wait(lambda: gone.seat.leaves)
        (work,) = service.works()
        scene.network.down.add(gone.peer_id)
        await trio.sleep(30)
        heard = work.heard_at
        bodies = [("lease", exchange.encode(gone.lease_request(gone.lease)))]
        bodies.append(("assign", exchange.encode(gone.assign_request(0))))
        for name, body in bodies:
            await stranger.request(node.source, name, body, timeout_s=10)
        assert work.heard_at == heard
        scene.network.down.clear()
        await gone.ask(gone.assign_request(0))
        assert work.heard_at > heard


@virtual
async def test_who_repeats_what_a_worker_once_signed_is_no_sign_that_it_lives(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(3, works=False)
    puppet = Puppet(scene, 9)
    stranger = scene.network.join("stranger")
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=6), workers_max=1, max_price_wei=str(PRICE))
        await puppet.wait(2)
        await puppet.say(puppet.receipt(0))
        puppet.alive = False
        await trio.sleep(1.5)
        live = payer.service._driver(job).book.held(puppet.seat).live
        heard = live.heard_at
        await trio.sleep(1)
        await puppet.say(puppet.receipt(0), peer=stranger)
        assert live.heard_at == heard
        await puppet.say(puppet.receipt(0))
        assert live.heard_at != heard
