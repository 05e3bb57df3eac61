"""Whether the other end of a connection still lives: one side asks, both notice. In memory, on a virtual clock."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux import yamux
from trio.testing import MockClock, memory_stream_pair

from tallymesh_node import beats
from tallymesh_node.network.mends import _PONG, PING_ANSWER_S, PING_FIRST_S, PING_PERIOD_S, MendedYamux

ACCEPTED, DIALLED = 0, 1
NOTICED_S = 10.0  # as docs/decisions/libp2p-mends.md says
BEGINS_S = (0.0, 0.25, 0.5, 0.999)  # of a beat: where in it the two ends begin


class Line:
    """One end of an encrypted connection."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream
        self.thaws = trio.Event()
        self.thaws.set()
        self.closed_at: float | None = None

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def read(self, n: int) -> bytes:
        data = bytes(await self._stream.receive_some(n))
        await self.thaws.wait()
        if not data:
            raise ConnectionClosedError("the connection has ended", transport="tcp")
        return data

    async def close(self) -> None:
        if self.closed_at is None:
            self.closed_at = trio.current_time()
        await self._stream.aclose()


class End(MendedYamux):
    """Counts what it asks; `frozen` ends neither read nor ask."""

    def __init__(self, line: Line, initiator: bool) -> None:
        super().__init__(line, ID(b"peer"), is_initiator=initiator, sent=lambda size: None, received=lambda size: None)
        self.line = line
        self.asked: list[float] = []

    async def _write_frame(self, data: bytes) -> None:
        await self.line.thaws.wait()
        kind, flags = data[1], int.from_bytes(data[2:4], "big")
        if kind == yamux.TYPE_PING and flags & yamux.FLAG_SYN:
            self.asked.append(trio.current_time())
        await super()._write_frame(data)


@asynccontextmanager
async def ends() -> AsyncIterator[list[End]]:
    """Index ACCEPTED and DIALLED."""
    streams = memory_stream_pair()
    both = [End(Line(stream), initiator == DIALLED) for initiator, stream in enumerate(streams)]
    async with trio.open_nursery() as nursery:
        for end in both:
            nursery.start_soon(end.start)
        for end in both:
            await end.event_started.wait()
        yield both
        nursery.cancel_scope.cancel()


async def test_who_is_asked_does_not_ask(autojump_clock: MockClock) -> None:
    async with ends() as both:
        await trio.sleep(100.0)
        assert len(both[ACCEPTED].asked) == 1  # the first of a connection measures the round trip, for credit
        assert both[ACCEPTED].asked[0] == pytest.approx(PING_FIRST_S)
        pauses = [b - a for a, b in zip(both[DIALLED].asked, both[DIALLED].asked[1:], strict=False)]
        assert max(pauses) <= PING_PERIOD_S + 0.001
        assert len(both[DIALLED].asked) <= 2 + 100 / PING_PERIOD_S
        assert not any(end.line.closed_at for end in both)


@pytest.mark.parametrize("frozen", [ACCEPTED, DIALLED])
@pytest.mark.parametrize("begins", BEGINS_S)
@pytest.mark.parametrize("at_s", [0.0, 3.7, 20.0, 21.3, 23.999])
async def test_either_end_notices_that_the_other_is_frozen(
    autojump_clock: MockClock, frozen: int, begins: float, at_s: float
) -> None:
    autojump_clock.jump(begins)
    async with ends() as both:
        await trio.sleep(at_s)
        both[frozen].line.thaws = trio.Event()
        froze_at = trio.current_time()
        await trio.sleep(NOTICED_S + 1)
        noticed_at = both[not frozen].line.closed_at
        assert noticed_at is not None
        assert noticed_at - froze_at + PING_PERIOD_S >= PING_ANSWER_S
        assert noticed_at - froze_at <= NOTICED_S


async def test_who_is_heard_of_is_not_asked(autojump_clock: MockClock) -> None:
    async with ends() as both:
        stream = await both[DIALLED].open_stream()
        taken = await both[ACCEPTED].accept_stream()
        for _ in range(40):  # offers go both ways
            for there, here in ((stream, taken), (taken, stream)):
                await there.write(b"offer")
                assert await here.read(5) == b"offer"
            await trio.sleep(2.3)
        assert [len(end.asked) for end in both] == [1, 1]
        await trio.sleep(60.0)  # … and then no more of them
        assert len(both[ACCEPTED].asked) == 1
        assert len(both[DIALLED].asked) >= 60 / PING_PERIOD_S - 1


async def test_who_hears_nothing_asks_however_much_it_says(autojump_clock: MockClock) -> None:
    async with ends() as both:
        stream = await both[DIALLED].open_stream()
        taken = await both[ACCEPTED].accept_stream()
        for _ in range(40):  # one way: only the acceptor hears
            await stream.write(b"offer")
            assert await taken.read(5) == b"offer"
            await trio.sleep(1.0)
        assert len(both[ACCEPTED].asked) == 1
        assert len(both[DIALLED].asked) >= 40 / PING_PERIOD_S - 1


async def test_the_round_trip_is_measured_again_while_much_comes(autojump_clock: MockClock) -> None:
    async with ends() as both:
        stream = await both[DIALLED].open_stream()
        taken = await both[ACCEPTED].accept_stream()
        for _ in range(40):
            await stream.write(bytes(64 * 1024))
            left = 64 * 1024
            while left:
                left -= len(await taken.read(left))
            await trio.sleep(1.0)
        assert len(both[ACCEPTED].asked) >= 5


async def test_asking_is_on_the_beat(autojump_clock: MockClock) -> None:
    autojump_clock.jump(0.3)
    async with ends() as both:
        await trio.sleep(60.0)
        later = both[DIALLED].asked[1:]
        assert later
        assert all(moment % beats.BEAT_S == pytest.approx(0.0) for moment in later)


def test_a_pong_is_told_from_every_other_frame() -> None:
    """`_asked_at` goes by the first four bytes of what is written."""
    kinds = (yamux.TYPE_DATA, yamux.TYPE_WINDOW_UPDATE, yamux.TYPE_PING, yamux.TYPE_GO_AWAY)
    flags = (0, yamux.FLAG_SYN, yamux.FLAG_ACK, yamux.FLAG_FIN, yamux.FLAG_RST)
    frames = {(k, f): struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, k, f, 0, 7) for k in kinds for f in flags}
    assert [name for name, frame in frames.items() if frame.startswith(_PONG)] == [(yamux.TYPE_PING, yamux.FLAG_ACK)]
