"""Who is near: peers of one local network find each other, and a stranger there gets neither memory nor dials."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fakes.lan import Wire
from fakes.peers import TOPIC, peer, until
from tallymesh.exchange import Source
from tallymesh.network import Contracts, Network
from tallymesh_node.config import load
from tallymesh_node.doctor import outside
from tallymesh_node.network import nearby, nearby_packets
from tallymesh_node.network.connections import WANTED_NEAR
from tallymesh_node.network.keys import generate
from tallymesh_node.network.nearby import Nearby
from tallymesh_node.network.nearby_packets import MAX_PACKET, TTL_S, question, read, statement
from tallymesh_node.sandbox.command import bubblewrap

HOME = "192.168.1."
ID = generate().peer_id
OTHER = generate().peer_id


def source(number: int, peer_id: str = ID, port: int = 4001) -> Source:
    return Source(peer_id=peer_id, addresses=(f"/ip4/{HOME}{number}/tcp/{port}",))


def ids(nodes: Nearby) -> set[str]:
    return {each.peer_id for each in nodes.peers}


# -- packets


def test_a_statement_is_read_as_it_was_made_and_says_nothing_of_the_networks_name() -> None:
    data = statement("a" * 32, TOPIC, source(5))
    [heard] = read(data, f"{HOME}5", TOPIC).peers
    assert heard == nearby_packets.Heard(source(5), TTL_S)
    assert TOPIC.encode() not in data
    assert len(data) < 400
    assert read(question(), f"{HOME}5", TOPIC) == nearby_packets.Packet(asks=True)


def test_of_another_network_nobody_is_heard() -> None:
    assert read(statement("a", TOPIC + "x", source(5)), f"{HOME}5", TOPIC).peers == ()


@pytest.mark.parametrize(
    "addresses",
    [
        ("/ip4/192.168.1.6/tcp/4001",),
        ("/ip4/127.0.0.1/tcp/4001",),
        ("/ip4/8.8.8.8/tcp/4001",),
        ("/dns4/router.local/tcp/80",),
        ("/ip4/192.168.1.5/tcp/0",),
        ("/ip4/192.168.1.5/udp/4001/quic",),
        (),
    ],
)
def test_nobody_is_made_to_dial_any_machine_but_the_one_that_spoke(addresses: tuple[str, ...]) -> None:
    assert read(statement("a", TOPIC, Source(ID, addresses)), f"{HOME}5", TOPIC).peers == ()


@pytest.mark.parametrize("origin", ["127.0.0.1", "8.8.8.8", "0.0.0.0", "224.0.0.251", "fe80::1", "100.64.0.1", ""])
def test_what_comes_from_no_local_network_is_not_read(origin: str) -> None:
    data = statement("a", TOPIC, Source(ID, (f"/ip4/{origin or '10.0.0.1'}/tcp/4001",) if ":" not in origin else ()))
    assert read(data, origin, TOPIC) == read(question(), origin, TOPIC) == nearby_packets.Packet()


def test_a_packet_that_is_too_big_is_not_read() -> None:
    data = statement("a", TOPIC, source(5))
    assert read(data + bytes(MAX_PACKET - len(data)), f"{HOME}5", TOPIC).peers
    assert not read(data + bytes(MAX_PACKET + 1 - len(data)), f"{HOME}5", TOPIC).peers


def test_an_id_that_is_none_is_nobody() -> None:
    data = statement("a", TOPIC, source(5, ID[:-1] + "0"))
    assert read(data, f"{HOME}5", TOPIC).peers == ()


# -- a network of several


@asynccontextmanager
async def running(wire: Wire, number: int, peer_id: str, **options: Any) -> AsyncIterator[Nearby]:
    lan = wire.plug(f"{HOME}{number}")
    listening = options.get("listening", lambda: [f"/ip4/{lan.address}/tcp/4001"])
    found = options.get("found", lambda source: None)
    lost = options.get("lost", lambda peer_id: None)
    made = Nearby(lan, options.get("topic", TOPIC), peer_id, listening, found, lost, Random(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_two_hear_each_other_at_once_and_a_third_of_another_network_neither(autojump_clock: MockClock) -> None:
    wire = Wire()
    another = running(wire, 3, generate().peer_id, topic=TOPIC + "x")
    async with running(wire, 1, ID) as one, running(wire, 2, OTHER) as two, another as three:
        await trio.sleep(2)
        assert ids(one) == {OTHER}
        assert ids(two) == {ID}
        assert ids(three) == set()
        assert "1 peer " in one.sentence


@pytest.mark.slow
async def test_hours_keep_everybody_known_with_a_few_packets_a_minute(autojump_clock: MockClock) -> None:
    wire, calls = Wire(), []
    async with running(wire, 1, ID, lost=calls.append), running(wire, 2, OTHER, lost=calls.append):
        await trio.sleep(60)
        begun = len(wire.said)
        await trio.sleep(3600)
        assert calls == []
        assert (len(wire.said) - begun) / 60 / 2 < 5  # a machine's packets a minute


async def test_who_stops_withdraws_its_record_and_is_forgotten_at_once(autojump_clock: MockClock) -> None:
    wire, calls = Wire(), []
    async with running(wire, 1, ID, lost=calls.append) as one:
        async with running(wire, 2, OTHER):
            await trio.sleep(5)
        await trio.sleep(0.1)
        assert ids(one) == set()
        assert calls == [OTHER]
        async with running(wire, 2, OTHER):  # started again: heard again, though its old record has not ended
            await trio.sleep(2)
            assert ids(one) == {OTHER}


async def test_who_is_cut_off_is_forgotten_when_its_record_ends(autojump_clock: MockClock) -> None:
    wire, calls = Wire(), []
    async with running(wire, 1, ID, lost=calls.append) as one:
        await trio.sleep(1)
        wire.send(f"{HOME}2", statement("a", TOPIC, source(2, OTHER)))
        await trio.sleep(TTL_S - 2)
        assert ids(one) == {OTHER}
        await trio.sleep(2 + nearby.LOOK_S)
        assert ids(one) == set()
        assert calls == [OTHER]


async def test_where_the_node_listens_at_no_local_address_nothing_is_said(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with running(wire, 1, ID, listening=lambda: ["/ip4/127.0.0.1/tcp/4001"]) as one:
        await trio.sleep(60)
        assert wire.said == []
        assert not wire.machines[0].listens
        assert one.sentence.startswith("nothing is said")


async def test_a_laptop_that_is_carried_says_so_where_it_is(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with running(wire, 1, ID):
        await trio.sleep(200)
        wire.machines[0].address = "10.0.0.9"
        await trio.sleep(nearby.LOOK_S + 1)
        data = wire.said[-1][2]
        assert read(data, "10.0.0.9", TOPIC).peers[0].source.addresses == ("/ip4/10.0.0.9/tcp/4001",)


async def test_a_port_that_another_program_holds_is_told_and_tried_again(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with running(wire, 1, ID) as one:
        wire.machines[0].refuses = "the port is taken"
        wire.machines[0].address = f"{HOME}7"
        await trio.sleep(nearby.LOOK_S + 1)
        said = len(wire.said)
        assert one.sentence == "no: the port is taken"
        await trio.sleep(60)
        assert len(wire.said) == said
        wire.machines[0].refuses = ""
        await trio.sleep(nearby.LOOK_S + 1)
        assert len(wire.said) > said
        assert one.problem == ""


# -- strangers


async def test_a_machine_that_makes_up_peers_gets_few_places_and_few_dials(autojump_clock: MockClock) -> None:
    wire, found = Wire(), []
    async with running(wire, 1, ID, found=found.append) as one:
        for _ in range(60):  # a minute; each says goodbye for itself to make room for the next
            for _ in range(5):
                made_up = source(66, generate().peer_id)
                wire.send(f"{HOME}66", statement("a", TOPIC, made_up, 1))
                wire.send(f"{HOME}66", statement("a", TOPIC, made_up, 0))
            await trio.sleep(1)
        assert len(found) == nearby.MAX_PER_MACHINE
        wire.send(f"{HOME}2", statement("a", TOPIC, source(2, OTHER)))
        await trio.sleep(0.1)
        assert ids(one) == {OTHER}


async def test_many_machines_that_make_up_peers_fill_a_bounded_table(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with running(wire, 1, ID) as one:
        for machine in range(2, 250):
            wire.send(f"{HOME}{machine}", statement("a", TOPIC, source(machine, generate().peer_id)))
            await trio.sleep(0.05)
        assert len(one.peers) == nearby.MAX_PEERS


async def test_a_flood_of_one_machine_is_not_read_and_others_are_heard(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with running(wire, 1, ID) as one:
        await trio.sleep(2.5)
        for _ in range(3000):
            wire.send(f"{HOME}66", question())
        wire.send(f"{HOME}2", statement("a", TOPIC, source(2, OTHER)))
        await trio.sleep(0.2)
        assert ids(one) == {OTHER}
        assert one.dropped >= 3000 - nearby.MAX_PACKETS_MACHINE_S


async def test_many_who_ask_get_one_answer_a_second(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with running(wire, 1, ID):
        await trio.sleep(200)
        said = len(wire.said)
        for machine in range(2, 102):
            wire.send(f"{HOME}{machine}", question())
            await trio.sleep(0.05)
        mine = [each for each in wire.said[said:] if each[1] == f"{HOME}1"]
        assert 3 <= len(mine) <= math.ceil(5 / nearby.ANSWER_S) + 1


async def test_whoever_says_anothers_id_moves_it_nowhere_and_withdraws_nothing(autojump_clock: MockClock) -> None:
    wire = Wire()
    async with running(wire, 1, ID) as one:
        await trio.sleep(1)
        wire.send(f"{HOME}2", statement("a", TOPIC, source(2, OTHER)))
        wire.send(f"{HOME}66", statement("a", TOPIC, source(66, OTHER)))
        wire.send(f"{HOME}66", statement("a", TOPIC, source(66, OTHER), 0))
        await trio.sleep(0.1)
        assert one.peers == [source(2, OTHER)]


async def test_nobody_is_told_of_itself(autojump_clock: MockClock) -> None:
    wire, found = Wire(), []
    async with running(wire, 1, ID, found=found.append):
        wire.send(f"{HOME}1", statement("a", TOPIC, source(1)))
        await trio.sleep(2)
    assert found == []


# -- and the connections


async def test_what_is_said_nearby_replaces_no_address_and_fills_half_of_the_places() -> None:
    async with peer() as host:
        connections = host.connections
        known = Source(peer_id=OTHER, addresses=("/ip4/127.0.0.1/tcp/1",))
        connections.learn(known)
        for number in range(20):
            connections.near(source(number + 2, generate().peer_id))
        connections.near(source(66, OTHER))
        candidates = {each.to_base58(): candidate for each, candidate in connections._known.items()}
        assert candidates[OTHER].addresses == known.addresses
        for candidate in candidates.values():
            candidate.not_before = 0.0
        due = [each.to_base58() for each in connections._missing(trio.current_time())]
        assert len(due) == WANTED_NEAR + 1
        assert OTHER in due
        for each in list(candidates):
            connections.not_near(each)
        assert [each.to_base58() for each in connections._known] == [OTHER]


async def test_a_peer_that_was_heard_is_connected_to() -> None:
    async with peer() as one, peer() as two:
        one.connections.near(Source(two.peer_id, tuple(two.addresses)))
        await until(lambda: two.peer_id in one.peers, 120)


# Two hosts with real sockets in a network of their own (a user's right, as a sandbox has it), whose loopback interface
# has an address of a home network.
REAL = """
import contextlib, fcntl, socket, struct, trio
from fakes.peers import TOPIC, peer, until
from tallymesh.network import Contracts, Network
from tallymesh_node.config import load
from tallymesh_node.doctor import outside
from tallymesh_node.network import open_nearby
from tallymesh_node.network.nearby import Place
from tallymesh_node.network.nearby_socket import LanSocket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    address = struct.pack("16sH2x4s8x", b"lo:1", socket.AF_INET, socket.inet_aton("192.168.77.1"))
    fcntl.ioctl(control, 0x8916, address)  # SIOCSIFADDR
async def main():
    with contextlib.closing(LanSocket()) as lan:
        gone, here = Place("10.255.255.1", "255.255.255.0"), Place("192.168.77.1", "255.255.255.0")
        assert await lan.listen([gone]) == "no interface of a local network takes multicast"
        assert await lan.listen([gone, here]) == ""
    listen = ("/ip4/192.168.77.1/tcp/0",)
    async with peer(listen=listen) as one, peer(listen=listen) as two:
        async with open_nearby(one) as near:
            async with open_nearby(two):
                await until(lambda: two.peer_id in one.peers and one.peer_id in two.peers, 120)
                await until(lambda: near.peers, 120)
                print(near.sentence)
                contracts = Contracts("0x" + "11" * 20, "0x" + "22" * 20, "0xabcdef01" + "33" * 16)
                nowhere = Network("test", 1, (), contracts)
                outside.NEAR_S = 120.0
                assert nowhere.topic == TOPIC
                flags = {"home": "/none", "listen_host": "192.168.77.1", "listen_port": 0}
                print((await outside.reach(load(flags, environment={}), nowhere)).sentence)
            await until(lambda: not near.peers, 120)
            print(near.sentence)
trio.run(main)
"""


async def test_a_doctor_tells_who_is_near_only_where_that_is_the_way_to_join() -> None:
    alone = Network("test", 1, (), Contracts("0x" + "11" * 20, "0x" + "22" * 20, "0x" + "33" * 20))
    flags = {"home": "/none", "listen_host": "127.0.0.1", "listen_port": 0}
    said = await outside.reach(load(flags, environment={}), alone)
    assert (said.state, "listens at no address of a local network" in said.sentence) == ("note", True)
    said = await outside.reach(load({**flags, "nearby": "no"}, environment={}), alone)
    assert "--nearby no" in said.sentence


@pytest.mark.slow
def test_two_hosts_on_one_local_network_connect_without_an_address_and_part() -> None:
    done = subprocess.run(
        [str(bubblewrap()), "--dev-bind", "/", "/", "--unshare-user", "--unshare-net", "--cap-add", "CAP_NET_ADMIN",
         "--uid", "0", sys.executable, "-c", REAL],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    heard, examined, after = done.stdout.splitlines()
    assert heard == "1 peer of this network heard on the local one"
    assert re.fullmatch(r"The network file names nobody .*: [12] peers? of this network heard .*\.", examined)
    assert after == "0 peers of this network heard on the local one"
