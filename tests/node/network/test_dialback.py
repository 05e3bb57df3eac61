"""Many strangers ask to be dialled back at ports at which nobody answers, each under a key of its own; and honest ones.
Addresses and dials are this test's, time is virtual."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from trio.testing import MockClock

from fakes.network import World
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source, decode, encode
from tallymesh_node.network import check_reachability, fair, reachability
from tallymesh_node.network.reachability import Dialback, DialbackAnswer, DialbackRequest, Prober

OPEN, BLACK_HOLE, CLOSED = 4001, 666, 1
RTT_S = 0.2


class Outside:
    """The machines that a host sees and dials: a swarm, as far as dialling back needs one."""

    def __init__(self) -> None:
        self.dials = 0
        self.open = 0
        self._hosts: dict[ID, str] = {}
        self._made = 0
        self.upgrader = self

    def join(self, host: str) -> str:
        self._made += 1
        peer_id = ID(b"\x00\x24\x08\x01\x12\x20" + self._made.to_bytes(32, "big"))
        self._hosts[peer_id] = host
        return str(peer_id.to_base58())

    def get_connections(self, peer_id: ID) -> list[Any]:
        host = self._hosts[peer_id]
        return [SimpleNamespace(muxed_conn=SimpleNamespace(get_remote_address=lambda: (host, 50_000)))]

    async def dial(self, transport: object, address: Multiaddr) -> Any:
        port = int(address.value_for_protocol("tcp"))
        self.dials += 1
        self.open += 1
        try:
            await trio.sleep(float("inf") if port == BLACK_HOLE else RTT_S)
        finally:
            self.open -= 1
        if port == CLOSED:
            raise reachability.OpenConnectionError("refused")
        return SimpleNamespace(close=trio.lowlevel.checkpoint)

    async def upgrade_security(self, raw: object, is_initiator: bool, peer_id: ID) -> None:
        await trio.sleep(2 * RTT_S)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    made = Outside()
    monkeypatch.setattr(reachability.MendedTCP, "dial", lambda transport, address: made.dial(transport, address))
    yield made
    assert made.open == 0


async def ask(dialback: Dialback, peer: str, port: int) -> bool:
    return decode(await dialback.answer(peer, encode(DialbackRequest(port=port))), DialbackAnswer).reached


async def keep_asking(outside: Outside, dialback: Dialback, host: str, pause_s: float = 0.01) -> None:
    """A new key each time, of which none is told to wait."""
    while True:
        with suppress(RemoteError):
            await ask(dialback, outside.join(host), BLACK_HOLE)
        await trio.sleep(pause_s)


def be_unfair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "DIALS_AT_ONCE", 4)
    monkeypatch.setattr(reachability, "HURRIED_S", reachability.DIAL_S)
    monkeypatch.setattr(fair.FairSlots, "_spent", lambda slots, turn: (0.0, 0.0))


@pytest.mark.parametrize("fairly", [True, False])
@pytest.mark.parametrize(
    ("keys", "honest", "bound_s"), [(30, "10.1.1.1", 0.0), (30, "10.0.0.9", 1.5), (10, "10.0.0.1", 4.5)]
)
async def test_many_keys_at_black_holes_keep_nobody_from_being_dialled(
    outside: Outside,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    fairly: bool,
    keys: int,
    honest: str,
    bound_s: float,
) -> None:
    """Of another block: at once. Of theirs: when a dial for them was cut. At their very address: after them."""
    if not fairly:
        be_unfair(monkeypatch)
    dialback = Dialback(outside)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        for _ in range(keys):
            nursery.start_soon(keep_asking, outside, dialback, "10.0.0.1")
        await trio.sleep(20.3)
        begun = trio.current_time()
        if fairly:
            assert await ask(dialback, outside.join(honest), OPEN)
            assert trio.current_time() - begun <= bound_s + 3 * RTT_S + 0.01
        else:
            with pytest.raises(RemoteError, match="again in 5 s"):
                await ask(dialback, outside.join(honest), OPEN)
        nursery.cancel_scope.cancel()


async def test_a_crowd_of_many_blocks_keeps_a_newcomer_waiting_for_one_dial(
    outside: Outside, autojump_clock: MockClock
) -> None:
    dialback = Dialback(outside)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        for number in range(96):
            nursery.start_soon(keep_asking, outside, dialback, f"10.0.{number}.1", 2.0)
        await trio.sleep(20.3)
        begun = trio.current_time()
        assert outside.open == reachability.DIALS_AT_ONCE
        assert reachability.MAX_WAITING // 2 < len(dialback._slots._line) <= reachability.MAX_WAITING
        assert await ask(dialback, outside.join("11.1.1.1"), OPEN)
        assert trio.current_time() - begun <= reachability.HURRIED_S + 3 * RTT_S + 0.01
        nursery.cancel_scope.cancel()


async def test_a_dial_that_was_cut_short_says_nothing_about_the_port(
    outside: Outside, autojump_clock: MockClock
) -> None:
    dialback = Dialback(outside)  # type: ignore[arg-type]
    refusals: list[str] = []

    async def slow(peer: str) -> None:
        with pytest.raises(RemoteError) as error:
            await ask(dialback, peer, BLACK_HOLE)
        refusals.append(error.value.sentence)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(slow, outside.join("10.0.0.1"))
        await trio.sleep(0.1)
        assert await ask(dialback, outside.join("10.0.0.1"), OPEN)
    assert len(refusals) == 4
    assert all("did not answer within 1.5 s, and others wait" in each for each in refusals)
    assert not await ask(dialback, outside.join("10.0.0.1"), BLACK_HOLE)  # nobody waits: it was given its time


async def test_who_was_not_reached_waits_longer_than_who_was_and_is_told_how_long(
    outside: Outside, autojump_clock: MockClock
) -> None:
    dialback = Dialback(outside)  # type: ignore[arg-type]
    good, closed = outside.join("10.0.0.1"), outside.join("10.0.1.1")
    for peer, port, pause in ((good, OPEN, "5 s"), (closed, CLOSED, "30 s")):
        assert await ask(dialback, peer, port) is (port == OPEN)
        with pytest.raises(RemoteError, match=f"again in {pause}"):
            await ask(dialback, peer, OPEN)
    await trio.sleep(reachability.PAUSE_S)
    assert await ask(dialback, good, OPEN)
    with pytest.raises(RemoteError, match="again in"):
        await ask(dialback, closed, OPEN)


async def test_an_asker_that_goes_away_leaves_its_turn(outside: Outside, autojump_clock: MockClock) -> None:
    dialback = Dialback(outside)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, dialback, outside.join("10.0.0.1"), BLACK_HOLE)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    begun = trio.current_time()
    assert await ask(dialback, outside.join("10.0.0.1"), OPEN)
    assert trio.current_time() - begun < 1
    assert not dialback._slots._line
    assert not dialback._slots._holders


async def test_neighbours_that_are_too_busy_are_passed_over() -> None:
    world = World()
    asker = world.join()

    async def busy(peer_id: str, body: bytes) -> bytes:
        raise RemoteError("busy", "Many wait.")

    async def answers(peer_id: str, body: bytes) -> bytes:
        return encode(DialbackAnswer(reached=True, sentence=""))

    for number in range(reachability.TRIED):
        world.join().serve(DialbackRequest.NAME, busy if number < reachability.TRIED - 1 else answers)
    assert (await check_reachability(asker)).reachable is True


async def test_a_peer_that_announces_black_holes_takes_the_time_of_one(
    outside: Outside, autojump_clock: MockClock
) -> None:
    prober = Prober(outside, lambda peer: False)  # type: ignore[arg-type]

    async def reach(host: str, port: int, addresses: int) -> None:
        source = Source(outside.join(host), tuple(f"/ip4/{host}/tcp/{port + n}" for n in range(addresses)))
        await prober.reach(source)

    async def hostile() -> None:
        with pytest.raises(RemoteError):
            await reach("10.0.0.1", BLACK_HOLE, 1)
        source = Source(outside.join("10.0.0.1"), tuple(f"/ip4/10.0.0.{n}/tcp/{BLACK_HOLE}" for n in range(1, 9)))
        with pytest.raises(RemoteError):
            await prober.reach(source)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(hostile)
        await trio.sleep(0.1)
        begun = trio.current_time()
        await reach("10.1.1.1", OPEN, 1)
        assert trio.current_time() - begun < 1
    assert trio.current_time() - begun < 2 * reachability.DIAL_S + 0.1
