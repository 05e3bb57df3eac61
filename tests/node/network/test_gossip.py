"""Gossip: everybody hears, the validator decides, floods and bad messages are contained."""

from __future__ import annotations

import pytest
import trio

from fakes.network import World
from fakes.peers import accept_all, address_of, peer, peers, until
from tallymesh.errors import CallerError
from tallymesh_node.network import Libp2pNetwork, Verdict, gossip, mends, open_network
from tallymesh_node.network.gossip import MAX_MESSAGE_BYTES, Buckets
from tallymesh_node.network.keys import generate

Patch = pytest.MonkeyPatch
PATIENCE_S = 120.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: Patch) -> None:
    """A machine that stands still for seconds must not look like a frozen peer, whose messages are lost."""
    monkeypatch.setattr(mends, "PING_ANSWER_S", PATIENCE_S)
    monkeypatch.setattr(mends, "WRITE_STALL_S", PATIENCE_S)


async def listening(*networks: Libp2pNetwork) -> None:
    """Until each knows that its neighbours listen and has all of them in its mesh. What is published between the two is
    lost: a neighbour whose word of listening comes before our stream to it is open enters the mesh at the next
    heartbeat only."""
    await until(lambda: all(network.gossip.peers and _meshed(network) for network in networks))


def _meshed(network: Libp2pNetwork) -> bool:
    parts = network.gossip
    return bool(parts._pubsub.peer_topics[parts.topic] <= parts._router.mesh[parts.topic])


@pytest.mark.slow
async def test_a_message_reaches_all_of_eight_hosts() -> None:
    async with peers(8) as networks:
        await listening(*networks)
        author, *others = networks[::-1]
        await author.gossip.publish(b"offer")
        with trio.fail_after(PATIENCE_S):
            for other in others:
                assert await other.gossip.receive() == (author.peer_id, b"offer")
        assert author.counters.gossip_published == 1
        assert author.counters.gossip_messages == 1
        assert all(other.counters.gossip_messages == 1 for other in others)


@pytest.mark.parametrize("verdict", [Verdict.IGNORE, Verdict.REJECT])
async def test_what_the_validator_does_not_accept_is_neither_delivered_nor_relayed(verdict: Verdict) -> None:
    def judge(author: str, data: bytes, neighbour: str) -> Verdict:
        return verdict if data == b"bad" else Verdict.ACCEPT

    async with peer(validator=judge) as middle, peer(address_of(middle)) as author, peer(address_of(middle)) as far:
        await until(lambda: middle.gossip.peers == 2)
        await listening(middle, author, far)
        await author.gossip.publish(b"bad")
        await author.gossip.publish(b"good")
        with trio.fail_after(PATIENCE_S):
            assert await far.gossip.receive() == (author.peer_id, b"good")
        assert middle.counters.gossip_received == 1
        assert middle.counters.gossip_ignored + middle.counters.gossip_rejected == 1


async def test_validator_that_raises_ignores_the_message_and_the_host_goes_on() -> None:
    def judge(author: str, data: bytes, neighbour: str) -> Verdict:
        if data == b"bad":
            raise ZeroDivisionError
        return Verdict.ACCEPT

    async with peer(validator=judge) as server, peer(address_of(server)) as author:
        await listening(server, author)
        await author.gossip.publish(b"bad")
        await author.gossip.publish(b"good")
        with trio.fail_after(PATIENCE_S):
            assert await server.gossip.receive() == (author.peer_id, b"good")
        assert server.counters.gossip_ignored == 1


async def test_nothing_is_accepted_before_a_validator_is_set() -> None:
    async with peer(validator=None) as server, peer(address_of(server)) as author:
        await listening(server, author)
        with pytest.raises(CallerError):
            await server.gossip.publish(b"mine")
        await author.gossip.publish(b"too early")
        await until(lambda: server.counters.gossip_ignored)
        server.gossip.set_validator(accept_all)
        await author.gossip.publish(b"now")
        with trio.fail_after(PATIENCE_S):
            assert await server.gossip.receive() == (author.peer_id, b"now")


async def test_message_that_our_own_validator_refuses_is_the_callers_error() -> None:
    async with peer(validator=lambda author, data, neighbour: Verdict.REJECT) as network:
        with pytest.raises(CallerError) as error:
            await network.gossip.publish(b"offer")
        assert error.value.code == "bad_message"


async def test_message_over_the_limit_is_the_callers_error_and_one_at_the_limit_arrives() -> None:
    async with peers(2) as (server, author):
        await listening(server, author)
        with pytest.raises(CallerError) as error:
            await author.gossip.publish(bytes(MAX_MESSAGE_BYTES + 1))
        assert error.value.code == "too_large"
        await author.gossip.publish(bytes(MAX_MESSAGE_BYTES))
        with trio.fail_after(PATIENCE_S):
            assert len((await server.gossip.receive())[1]) == MAX_MESSAGE_BYTES


async def test_author_who_floods_is_ignored_and_others_are_heard(monkeypatch: Patch) -> None:
    monkeypatch.setattr(gossip, "AUTHOR_BURST", 5)
    monkeypatch.setattr(gossip, "AUTHOR_PER_S", 0.0)
    async with peers(3) as (server, flooder, other):
        await until(lambda: server.gossip.peers == 2)
        await listening(flooder, other)
        for number in range(20):
            await flooder.gossip.publish(b"%d" % number)
        await other.gossip.publish(b"a word")
        heard = []
        with trio.fail_after(PATIENCE_S):
            while (said := await server.gossip.receive())[0] != other.peer_id:
                heard.append(said)
        await until(lambda: server.counters.gossip_ignored >= 15)
        assert len(heard) <= 5


async def test_neighbour_who_floods_is_ignored_before_its_signatures_are_checked(monkeypatch: Patch) -> None:
    monkeypatch.setattr(gossip, "FORWARDER_BURST", 5)
    monkeypatch.setattr(gossip, "FORWARDER_PER_S", 0.0)
    async with peers(2) as (server, flooder):
        await listening(server, flooder)
        for number in range(20):
            await flooder.gossip.publish(b"%d" % number)
        await until(lambda: server.counters.gossip_ignored >= 15)
        assert server.counters.gossip_received == 5


async def test_neighbour_who_forwards_rejected_messages_is_banned(monkeypatch: Patch) -> None:
    monkeypatch.setattr(gossip, "STRIKES", 3.0)

    def judge(author: str, data: bytes, neighbour: str) -> Verdict:
        return Verdict.REJECT if data.startswith(b"bad") else Verdict.ACCEPT

    async with (
        peer(validator=judge) as server,
        peer(address_of(server)) as attacker,
        peer(address_of(server)) as honest,
    ):
        await until(lambda: server.gossip.peers == 2)
        await listening(attacker, honest)
        for number in range(4):
            await attacker.gossip.publish(b"bad %d" % number)
        await until(lambda: server.peers == [honest.peer_id])


async def test_queue_that_nobody_drains_is_bounded_and_counted(monkeypatch: Patch) -> None:
    monkeypatch.setattr(gossip, "QUEUE", 3)
    async with peers(2) as (server, author):
        await listening(server, author)
        for number in range(10):
            await author.gossip.publish(b"%d" % number)
        await until(lambda: server.counters.gossip_received == 10)
        assert server.counters.gossip_dropped == 7
        kept = {(await server.gossip.receive())[1] for _ in range(3)}  # what comes at once has no order
        assert len(kept) == 3


async def test_restarted_peer_is_heard_at_once() -> None:
    key = generate()
    async with peer() as server:
        for number in range(2):  # within one second: libp2p's own counter would use the same message ids again
            async with peer(address_of(server), key=key) as author:
                await listening(server, author)
                await author.gossip.publish(b"%d" % number)
                with trio.fail_after(PATIENCE_S):
                    assert await server.gossip.receive() == (key.peer_id, b"%d" % number)
            await until(lambda: not server.peers)


async def test_peers_of_another_network_hear_nothing() -> None:
    async with (
        peer() as server,
        open_network(generate(), "tallymesh/other/1/x", bootstrap=[address_of(server)], validator=accept_all) as other,
    ):
        await until(lambda: server.peers)
        await other.gossip.publish(b"offer")
        await trio.sleep(0.1)
        assert server.gossip.peers == 0
        assert server.counters.gossip_received == 0


async def test_lost_gossip_stream_is_opened_again(monkeypatch: Patch) -> None:
    monkeypatch.setattr(gossip, "REPAIR_S", 0.05)
    async with peers(2) as (server, client):
        await listening(server, client)
        for peer_id in list(server.gossip._pubsub.peers):
            del server.gossip._pubsub.peers[peer_id]  # as after a registration that libp2p gave up
        await until(lambda: server.gossip._pubsub.peers)


async def test_fake_gossip_does_the_same() -> None:
    world = World()
    author = world.join(validator=accept_all)
    deaf, others = world.join(), [world.join(validator=accept_all) for _ in range(3)]
    await author.gossip.publish(b"offer")
    for other in others:
        assert await other.gossip.receive() == (author.peer_id, b"offer")
        assert other.counters.gossip_messages == 1
    assert deaf.counters.gossip_messages == 0
    with pytest.raises(CallerError):
        await deaf.gossip.publish(b"mine")


def test_buckets_refill_and_are_bounded_in_number() -> None:
    buckets = Buckets(2, 1.0, limit=3)
    assert [buckets.take(b"a", 0.0) for _ in range(3)] == [True, True, False]
    assert buckets.take(b"a", 1.0)
    assert not buckets.take(b"a", 1.0)
    for name in b"bcdefg":
        buckets.take(bytes([name]), 1.0)
    assert len(buckets._buckets) == 3
