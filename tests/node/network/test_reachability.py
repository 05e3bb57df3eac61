"""Whether others can dial us: asked of neighbours, who dial only whom they see."""

from __future__ import annotations

import pytest
import trio

from fakes.network import World
from fakes.peers import PATIENCE_S, address_of, peer, peers
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source, decode, encode
from tallymesh_node.network import Libp2pNetwork, check_reachability, reachability
from tallymesh_node.network.keys import parse_peer_id
from tallymesh_node.network.reachability import DialbackAnswer, DialbackRequest, Prober


async def ask(asker: Libp2pNetwork, neighbour: Libp2pNetwork, port: int) -> DialbackAnswer:
    body = encode(DialbackRequest(port=port))
    return decode(
        await asker.request(neighbour.source, DialbackRequest.NAME, body, timeout_s=PATIENCE_S), DialbackAnswer
    )


def port_of(network: Libp2pNetwork) -> int:
    return int(network.addresses[0].rsplit("/", 1)[1])


async def test_open_port_is_found_open() -> None:
    async with peers(2) as (_, asker):
        found = await check_reachability(asker)
        assert found.reachable is True
        assert str(port_of(asker)) in found.sentence


async def test_closed_port_is_named_with_what_to_do() -> None:
    async with peers(2) as (_, asker):
        found = await check_reachability(asker, port=1)
        assert found.reachable is False
        assert "port 1 is closed" in found.sentence
        assert "forward TCP port 1" in found.sentence


async def test_nobody_to_ask_is_not_known() -> None:
    async with peer() as alone:
        assert (await check_reachability(alone)).reachable is None


async def test_one_neighbour_that_gets_through_is_enough() -> None:
    world = World()
    asker, sees, walled, broken = (world.join() for _ in range(4))

    def answers(reached: bool) -> object:
        async def handler(peer_id: str, body: bytes) -> bytes:
            return encode(DialbackAnswer(reached=reached, sentence=""))

        return handler

    async def fails(peer_id: str, body: bytes) -> bytes:
        raise RemoteError("busy", "Later.")

    sees.serve("dialback", answers(True))  # type: ignore[arg-type]
    walled.serve("dialback", answers(False))  # type: ignore[arg-type]
    broken.serve("dialback", fails)
    assert (await check_reachability(asker)).reachable is True
    world.down.add(sees.peer_id)
    found = await check_reachability(asker)
    assert found.reachable is False
    assert "A peer tried" in found.sentence
    world.down.add(walled.peer_id)
    assert (await check_reachability(asker)).reachable is None


async def test_another_peer_behind_the_port_does_not_count() -> None:
    async with peers(3) as (neighbour, asker, third):
        assert not (await ask(asker, neighbour, port_of(third))).reached


async def test_only_the_address_at_which_the_asker_is_seen_is_dialled() -> None:
    async with peers(2) as (neighbour, asker):
        answer = await ask(asker, neighbour, port_of(asker))
        assert "127.0.0.1" in answer.sentence
        assert DialbackRequest.__struct_fields__ == ("port",)  # there is no address that an asker could name


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_what_is_no_port_is_refused(port: int) -> None:
    async with peers(2) as (neighbour, asker):
        with pytest.raises(RemoteError) as error:
            await ask(asker, neighbour, port)
        assert error.value.code == "bad_message"


async def test_ports_cannot_be_scanned_quickly() -> None:
    async with peers(2) as (neighbour, asker):
        await ask(asker, neighbour, 1)
        with pytest.raises(RemoteError) as error:
            await ask(asker, neighbour, 2)
        assert error.value.code == "busy"


async def test_dialback_leaves_no_connection_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "PAUSE_S", 0.0)
    async with peer() as neighbour, peer(address_of(neighbour)) as asker:
        await asker.connections.wait_joined()
        for _ in range(3):
            assert (await ask(asker, neighbour, port_of(asker))).reached
        await trio.sleep(0.05)
        for network in (neighbour, asker):
            assert len(network._host.get_network().get_connections()) == 1


async def test_a_peer_that_can_only_dial_is_not_reachable_though_it_is_connected() -> None:
    async with peers(3) as (neighbour, asker, third):
        walled = Source(asker.peer_id, ("/ip4/127.0.0.1/tcp/1",))
        await neighbour.request(
            asker.source, DialbackRequest.NAME, encode(DialbackRequest(port=1)), timeout_s=PATIENCE_S
        )
        assert not neighbour.connections.dialled(parse_peer_id(asker.peer_id)), "the asker made the connection"
        with pytest.raises(RemoteError, match="tcp/1") as error:
            await neighbour.reach(walled)
        assert error.value.code == "unreachable"
        await neighbour.reach(asker.source)
        with pytest.raises(RemoteError):  # somebody else answers there
            await neighbour.reach(Source(third.peer_id, tuple(asker.addresses)))
        with pytest.raises(RemoteError, match="there are none"):
            await neighbour.reach(Source(asker.peer_id))


async def test_a_peer_that_was_reached_is_not_dialled_again_for_a_while() -> None:
    now = 0.0
    async with peers(2) as (neighbour, asker):
        prober = Prober(neighbour._host.get_network(), lambda _: False, lambda: now)
        await prober.reach(asker.source)
        dials: list[object] = []
        prober._any = lambda addresses, peer_id: dials.append(addresses) or _no()  # type: ignore[method-assign,func-returns-value]
        await prober.reach(asker.source)
        assert not dials
        now = reachability.PROVEN_S + 1
        with pytest.raises(RemoteError):
            await prober.reach(asker.source)
        assert len(dials) == 1


async def _no() -> bool:
    await trio.lowlevel.checkpoint()
    return False
