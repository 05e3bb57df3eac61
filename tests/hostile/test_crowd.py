"""More peers than a host has places for, each under a key of its own and with its handshake done: others are served,
those that count stay, and what the host itself dials is not their business."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from fakes.payer_scene import PayerNode, Scene
from fakes.peers import PATIENCE_S, be_patient, echo, peer, until
from fakes.virtual import run
from tallymesh_node.network import Libp2pNetwork, connections, mends
from tallymesh_node.network.places import Standing
from tallymesh_node.standing import partners

PLACES = 6
FLOOD = 9


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch)


async def flood(stack: AsyncExitStack, server: Libp2pNetwork, count: int = FLOOD) -> None:
    """So many strangers, one after the other, who hold what they are given."""
    for _ in range(count):
        stranger = await stack.enter_async_context(peer())
        await stranger.connections.connect(server.source)
        await until(lambda stranger=stranger: stranger.peer_id in server.peers)  # type: ignore[misc]


@pytest.mark.slow
async def test_a_flood_of_whole_handshakes_keeps_nobody_out_and_pushes_no_partner_out() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(peer(inbound=PLACES))
        server.serve("echo", echo)
        partner, staked = [await stack.enter_async_context(peer()) for _ in range(2)]
        standing = {partner.peer_id: Standing.PARTNER, staked.peer_id: Standing.STAKED}
        server.connections.standing = lambda peer_id: standing.get(peer_id, Standing.STRANGER)
        for each in (partner, staked):
            await each.connections.connect(server.source)
            await until(lambda each=each: each.peer_id in server.peers)  # type: ignore[misc]
        held = list(server.connections.inbound)
        await flood(stack, server)
        assert [each for each in server.connections.inbound if each in held] == held
        assert len(server.connections.inbound) == PLACES
        assert server.counters.connections_displaced == FLOOD + 2 - PLACES
        await until(lambda: len(server.peers) == PLACES)
        honest = await stack.enter_async_context(peer())
        for each in (honest, partner, staked):
            assert await each.request(server.source, "echo", b"in", timeout_s=PATIENCE_S) == b"in"
        assert partner.counters.dials == staked.counters.dials == honest.counters.dials == 1
        await flood(stack, server, PLACES)
        assert honest.peer_id in server.peers, "who was of use was pushed out by newcomers"


@pytest.mark.slow
async def test_who_came_by_itself_neither_counts_nor_stands_in_the_way_of_what_a_host_dials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else whoever floods a host decides whom it hears."""
    monkeypatch.setattr(connections, "RECONCILE_S", 0.02)
    monkeypatch.setattr(connections, "WANTED_PEERS", 2)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(peer(inbound=PLACES))
        await flood(stack, server, PLACES + 2)
        held = list(server.connections.inbound)
        honest = [await stack.enter_async_context(peer()) for _ in range(3)]
        server.connections.standing = lambda peer_id: Standing.STAKED
        server.learn(honest[0].source)
        server.learn(honest[1].source)
        assert server.connections._missing(trio.current_time()) == [], "those with stake count"
        server.connections.standing = lambda peer_id: Standing.STRANGER
        await until(lambda: {each.peer_id for each in honest[:2]} <= set(server.peers))
        honest[2].serve("echo", echo)
        assert await server.request(honest[2].source, "echo", b"out", timeout_s=PATIENCE_S) == b"out"
        assert list(server.connections.inbound) == held
        assert len(held) == PLACES


async def test_a_silent_crowd_of_one_address_leaves_the_handshakes_of_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mends, "MAX_HALF_OPEN", 4)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(peer(listen=["/ip4/0.0.0.0/tcp/0"]))
        swarm = server._host.get_network()
        swarm.connection_config.inbound_upgrade_timeout = 10 * PATIENCE_S
        port = int(server.addresses[0].split("/")[4])
        slow = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.0.9"))
        await until(lambda: len(swarm._half_open) == 1)
        first = list(swarm._half_open)
        for number in range(12):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.1.1"))
            await until(lambda number=number: len(swarm._half_open) == min(4, number + 2))  # type: ignore[misc]
        assert first[0] in swarm._half_open
        assert slow


@pytest.mark.trio(run=run)
async def test_payers_workers_and_called_auditors_are_partners_as_long_as_they_work(
    scene: Scene, payer: PayerNode
) -> None:
    scene.crowd(4, cores=2)
    seen: set[str] = set()
    async with scene.running() as nursery:
        await payer.start(nursery)
        assert list(partners(scene.peers[0].worker, scene.peers[0].auditor, payer.service)) == []
        job = await payer.submit(payer.spec("map", items=12))
        over = False

        async def look() -> None:
            while not over:
                for each in scene.peers:
                    assert set(partners(each.worker, None, None)) <= {payer.network.peer_id}
                    if each.worker.works():
                        seen.add("worker")
                        assert set(partners(each.worker, None, None)) == {payer.network.peer_id}
                    if not each.auditor.idle:
                        seen.add("auditor")
                        assert set(partners(None, each.auditor, None)) == {payer.network.peer_id}
                if len(set(partners(None, None, payer.service))) == 4:
                    seen.add("payer")
                await trio.sleep(0.1)

        nursery.start_soon(look)
        await payer.wait(job)
        over = True
        assert seen == {"worker", "auditor", "payer"}
        await trio.sleep(10)
        assert list(partners(None, None, payer.service)) == []
