"""Connections: made when needed, shared, restored, refused; joining through any one bootstrap peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from fakes.peers import PATIENCE_S, address_of, peer, peers, proxy, until
from tallymesh.errors import CallerError, LocalError, RemoteError
from tallymesh.exchange import Source
from tallymesh_node.network import connections
from tallymesh_node.network.addresses import advertised, dialable, split_address
from tallymesh_node.network.connections import BACKOFF_MAX_S, backoff_s
from tallymesh_node.network.keys import generate

Patch = pytest.MonkeyPatch
DEAD = "/ip4/127.0.0.1/tcp/1"


@pytest.fixture(autouse=True)
def _quick_loop(monkeypatch: Patch) -> None:
    monkeypatch.setattr(connections, "RECONCILE_S", 0.02)
    monkeypatch.setattr(connections, "BACKOFF_FIRST_S", 0.05)


async def echo(peer_id: str, body: bytes) -> bytes:
    return body


async def test_joins_through_any_one_bootstrap_peer() -> None:
    nobody = f"{DEAD}/p2p/{generate().peer_id}"
    async with peer() as alive, peer(nobody, address_of(alive), nobody) as joining:
        with trio.fail_after(PATIENCE_S):
            await joining.connections.wait_joined()
        assert joining.peers == [alive.peer_id]


async def test_bootstrap_peer_that_comes_late_is_found() -> None:
    key = generate()
    async with peer() as placeholder:
        address = placeholder.addresses[0]
    async with peer(f"{address}/p2p/{key.peer_id}") as joining:
        await until(lambda: joining.counters.dials_failed >= 2)
        assert not joining.peers
        async with peer(key=key, listen=[address]):
            with trio.fail_after(PATIENCE_S):
                await joining.connections.wait_joined()


async def test_lost_connection_is_restored() -> None:
    async with peer() as server, proxy(server) as between:
        address = f"{between.source(server).addresses[0]}/p2p/{server.peer_id}"
        async with peer(address) as client:
            await until(lambda: client.peers)
            await between.cut()
            await until(lambda: not client.peers)
            await until(lambda: client.peers)


async def test_a_new_peer_and_a_lost_connection_wait_for_no_look(monkeypatch: Patch) -> None:
    monkeypatch.setattr(connections, "RECONCILE_S", 3600.0)
    async with peer() as server, proxy(server) as between, peer() as client:
        await trio.sleep(0.05)  # its loop has looked once, and found nobody
        client.learn(between.source(server))
        await until(lambda: client.peers)
        await between.cut()
        await until(lambda: not client.peers)
        await until(lambda: client.peers)


async def test_a_peer_that_did_not_answer_is_tried_again_when_its_pause_is_over(monkeypatch: Patch) -> None:
    monkeypatch.setattr(connections, "RECONCILE_S", 3600.0)
    async with peer(f"{DEAD}/p2p/{generate().peer_id}") as joining:
        await until(lambda: joining.counters.dials_failed >= 3)


async def test_request_after_a_lost_connection_dials_anew() -> None:
    async with peer() as server, proxy(server) as between, peer() as client:
        server.serve("echo", echo)
        source = between.source(server)
        assert await client.request(source, "echo", b"1", timeout_s=PATIENCE_S) == b"1"
        await between.cut()
        await until(lambda: not client.peers)
        assert await client.request(source, "echo", b"2", timeout_s=PATIENCE_S) == b"2"
        assert client.counters.dials == 2


async def test_peers_learned_from_offers_are_connected_to_and_the_mesh_outlives_the_bootstrap_peer() -> None:
    async with peer() as one, peer() as two:
        async with peer() as bootstrap:
            await one.connections.connect(bootstrap.source)
            await two.connections.connect(bootstrap.source)
            one.learn(two.source)
            await until(lambda: two.peer_id in one.peers)
        await until(lambda: one.peers == [two.peer_id])


async def test_learning_is_bounded_and_never_forgets_the_bootstrap_peers(monkeypatch: Patch) -> None:
    monkeypatch.setattr(connections, "MAX_KNOWN", 4)
    monkeypatch.setattr(connections, "WANTED_PEERS", 0)
    nobody = generate().peer_id
    async with peer(f"{DEAD}/p2p/{nobody}") as network:
        for _ in range(10):
            network.learn(Source(peer_id=generate().peer_id, addresses=(DEAD,)))
        known = [peer_id.to_base58() for peer_id in network.connections._known]
        assert len(known) == 4
        assert nobody in known


async def test_what_an_offer_says_again_is_not_read_again_and_what_is_new_replaces_it(monkeypatch: Patch) -> None:
    monkeypatch.setattr(connections, "WANTED_PEERS", 0)
    read = 0

    def counted(addresses: Sequence[str]) -> Sequence[Multiaddr]:
        nonlocal read
        read += 1
        return dialable(addresses)

    monkeypatch.setattr(connections, "dialable", counted)
    somebody, other = generate().peer_id, generate().peer_id
    async with peer() as network:
        known = network.connections._known
        for _ in range(3):
            network.learn(Source(peer_id=somebody, addresses=(DEAD,)))
        assert read == 1
        network.learn(Source(peer_id=other, addresses=(DEAD,)))
        network.learn(Source(peer_id=somebody, addresses=(DEAD,)))
        assert [peer_id.to_base58() for peer_id in known] == [other, somebody], "heard of last"
        network.learn(Source(peer_id=somebody, addresses=("/ip4/127.0.0.1/tcp/2",)))
        assert known[ID.from_base58(somebody)].addresses == ("/ip4/127.0.0.1/tcp/2",)
        network.learn(Source(peer_id=somebody, addresses=("nonsense",)))
        assert known[ID.from_base58(somebody)].addresses == ("/ip4/127.0.0.1/tcp/2",), "nothing to dial"


@pytest.mark.parametrize(
    "source",
    [
        Source(peer_id="nonsense", addresses=(DEAD,)),
        Source(peer_id=generate().peer_id, addresses=()),
        Source(peer_id=generate().peer_id, addresses=("nonsense", "/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/1.2.3.4")),
    ],
)
async def test_useless_sources_are_not_learned(source: Source) -> None:
    async with peer() as network:
        network.learn(source)
        assert not network.connections._known


async def test_all_addresses_of_a_peer_are_tried() -> None:
    async with peer() as server, peer() as client:
        await client.connections.connect(Source(peer_id=server.peer_id, addresses=(DEAD, *server.addresses)))
        assert client.counters.dials == 2
        assert client.peers == [server.peer_id]


async def test_concurrent_callers_share_one_dial() -> None:
    async with peer() as server, peer() as client:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.connections.connect, server.source)
        assert client.counters.dials == 1


async def test_cancelled_dial_does_not_fail_those_who_wait_for_it() -> None:
    async with peer() as server, proxy(server) as between, peer() as client:
        between.freeze()
        async with trio.open_nursery() as waiting, trio.open_nursery() as impatient:
            impatient.start_soon(client.connections.connect, between.source(server))
            await until(lambda: client.counters.dials)
            waiting.start_soon(client.connections.connect, server.source)
            await trio.sleep(0.05)
            impatient.cancel_scope.cancel()
        assert client.peers == [server.peer_id]


async def test_another_peer_at_the_address_is_not_accepted() -> None:
    async with peer() as impostor, peer() as client:
        wanted = Source(peer_id=generate().peer_id, addresses=tuple(impostor.addresses))
        with pytest.raises(RemoteError) as error:
            await client.connections.connect(wanted)
        assert error.value.code == "unreachable"
        assert error.value.peer == wanted.peer_id
        assert not client.peers


async def test_frozen_address_costs_no_more_than_the_dials_deadline(monkeypatch: Patch) -> None:
    dial = connections.Connections._dial
    async with peer() as server, proxy(server) as between, peer() as client:
        between.freeze()
        frozen, alive = between.source(server).addresses[0], server.addresses[0]

        async def one(self: connections.Connections, address: Multiaddr, peer_id: ID) -> bool:
            monkeypatch.setattr(connections, "DIAL_S", 0.2 if str(address) == frozen else PATIENCE_S)
            return await dial(self, address, peer_id)

        monkeypatch.setattr(connections.Connections, "_dial", one)
        with trio.fail_after(PATIENCE_S):
            await client.connections.connect(Source(peer_id=server.peer_id, addresses=(frozen, alive)))
        assert client.peers == [server.peer_id]
        assert client.counters.dials == 2


async def test_failed_peer_is_dialled_again_after_a_short_pause(monkeypatch: Patch) -> None:
    monkeypatch.setattr(connections, "REFUSED_S", 3600.0)
    key = generate()
    async with peer() as placeholder:
        address = placeholder.addresses[0]
    source = Source(peer_id=key.peer_id, addresses=(address,))
    async with peer() as client:
        for _ in range(5):
            with pytest.raises(RemoteError):
                await client.connections.connect(source)
        assert client.counters.dials == 1
        async with peer(key=key, listen=[address]):
            client.connections._refused[ID.from_base58(key.peer_id)] -= connections.REFUSED_S  # the pause is over
            await client.connections.connect(source)  # libp2p would refuse it for a minute
            assert client.peers == [key.peer_id]


async def test_banned_peer_is_cut_off_and_kept_out() -> None:
    async with peers(2) as (server, banned):
        await server.connections.ban(ID.from_base58(banned.peer_id), 60)
        await until(lambda: not server.peers)
        await until(lambda: banned.counters.dials >= 2)  # its own loop comes back
        await trio.sleep(0.1)
        assert not server.peers
        with pytest.raises(RemoteError):
            await server.connections.connect(banned.source)


async def test_disconnected_strangers_are_forgotten() -> None:
    async with peer() as server:
        async with peer() as stranger:
            await stranger.connections.connect(server.source)
            await until(lambda: server.peers)
        await until(lambda: not server.peers)
        assert [peer_id.to_base58() for peer_id in server._host.get_peerstore().peer_ids()] == [server.peer_id]


async def test_streams_are_freed_on_both_sides() -> None:
    async with peers(2) as (server, client):
        server.serve("echo", echo)
        await until(lambda: server.gossip.peers and client.gossip.peers)

        def streams() -> list[int]:
            hosts = (server._host.get_network(), client._host.get_network())
            return [len(c.muxed_conn.streams) for swarm in hosts for c in swarm.get_connections()]

        before = streams()
        for _ in range(50):
            await client.request(server.source, "echo", b"", timeout_s=PATIENCE_S)
        await until(lambda: streams() <= before)


# -- opening


async def test_port_in_use_is_said() -> None:
    async with peer() as first:
        with pytest.raises(LocalError) as error:
            async with peer(listen=first.addresses):
                pass
        assert error.value.code == "port_in_use"


async def test_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(LocalError) as error:
        async with peer(listen=["/ip4/192.0.2.1/tcp/0"]):
            pass
    assert error.value.code == "cannot_listen"


@pytest.mark.parametrize("text", ["", "nonsense", "/ip4/127.0.0.1/tcp/4001", f"/ip4/127.0.0.1/udp/1/p2p/{'1' * 52}"])
async def test_bad_bootstrap_address_is_the_callers_error(text: str) -> None:
    with pytest.raises(CallerError) as error:
        async with peer(text):
            pass
    assert error.value.code == "bad_address"


@pytest.mark.parametrize("option", ["listen", "announce"])
async def test_bad_address_to_listen_on_or_announce_is_the_callers_error(option: str) -> None:
    with pytest.raises(CallerError):
        async with peer(**{option: ["/ip4/127.0.0.1"]}):
            pass


async def test_announced_address_is_what_others_are_told() -> None:
    async with peer(announce=["/ip4/203.0.113.7/tcp/4001"]) as network, peer() as other:
        assert network.addresses == ("/ip4/203.0.113.7/tcp/4001",)
        assert [str(a) for a in network._host.get_addrs()] == [f"/ip4/203.0.113.7/tcp/4001/p2p/{network.peer_id}"]
        listening = str(network._host.get_transport_addrs()[0])
        await other.connections.connect(Source(peer_id=network.peer_id, addresses=(listening,)))


async def test_port_is_free_after_the_block_ends() -> None:
    async with peer() as first, peer(address_of(first)):
        await until(lambda: first.peers)
        addresses = first.addresses
    async with peer(listen=addresses):
        pass


async def test_cancellation_leaves_no_socket_open() -> None:
    with trio.CancelScope() as scope:
        async with peers(2) as (server, _):
            await until(lambda: server.peers)
            scope.cancel()
            await trio.sleep_forever()
    async with peer(listen=server.addresses):  # an unclosed socket would be reported besides
        pass


# -- pure parts


def test_pause_doubles_up_to_a_bound_and_is_jittered() -> None:
    assert [backoff_s(failures, 1.0) for failures in (1, 2, 3)] == [0.05, 0.1, 0.2]
    assert backoff_s(1000, 1.0) == BACKOFF_MAX_S
    assert backoff_s(1, 0.0) == 0.025


def test_addresses_that_can_be_dialled() -> None:
    good = ["/ip4/1.2.3.4/tcp/1", "/ip6/::1/tcp/2", "/dns4/example.org/tcp/3"]
    bad: list[Any] = [
        "",
        "x" * 300,
        "/ip4/1.2.3.4/tcp/1/ws",
        "/ip4/999.1.1.1/tcp/1",
        "/unix/tmp",
        "/ip4/1.2.3.4/tcp/70000",
    ]
    assert [str(address) for address in dialable([*bad, *good])] == good
    assert len(dialable(good * 10)) == 8


def test_bootstrap_address_is_split() -> None:
    peer_id = generate().peer_id
    assert split_address(f"/ip4/1.2.3.4/tcp/4001/p2p/{peer_id}") == Source(
        peer_id=peer_id, addresses=("/ip4/1.2.3.4/tcp/4001",)
    )


def test_wildcard_is_advertised_as_the_machines_addresses() -> None:
    interfaces = {"lo": ["127.0.0.1", "::1"], "eth0": ["192.168.1.5", "fe80::1", "2001:db8::5"]}
    assert advertised(["/ip4/0.0.0.0/tcp/4001"], interfaces) == ["/ip4/192.168.1.5/tcp/4001"]
    assert advertised(["/ip6/::/tcp/4001"], interfaces) == ["/ip6/2001:db8::5/tcp/4001"]
    assert advertised(["/ip4/0.0.0.0/tcp/4001"], {"lo": ["127.0.0.1"]}) == ["/ip4/127.0.0.1/tcp/4001"]
    assert advertised(["/ip4/10.0.0.1/tcp/4001"], interfaces) == ["/ip4/10.0.0.1/tcp/4001"]
