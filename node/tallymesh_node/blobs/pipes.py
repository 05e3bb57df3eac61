"""What blobs travel over: one interface, two ways. A libp2p stream reaches whoever is connected; a direct socket
(network/direct.py) is fast, where the other side can be dialled. This module does not know what is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn, Protocol

import trio

from tallymesh_node.limits.bandwidth import UNPACED, Pace
from tallymesh_node.network.direct import ASK_BYTES, Ask, Span
from tallymesh_node.network.wire import Wire


class Pipe(Protocol):
    """Frames and chunks to and from one peer. RemoteError: `unreachable` where it broke, `too_large`, `bad_message`.
    Deadlines are the caller's. `DirectSocket` is one."""

    @property
    def peer_id(self) -> str: ...

    async def send_frame(self, body: bytes) -> None: ...

    async def read_frame(self, limit: int) -> bytes: ...

    async def give(
        self,
        descriptor: int,
        first: Span | None,
        place: Callable[[bytes], Span],
        each_s: float,
        pace: Pace = UNPACED,
    ) -> NoReturn:
        """Answer each frame with the part of the file that `place` reads out of it, at most a chunk, beginning with
        the part `first`, each when `pace` lets it go. Ends with RemoteError when the taker leaves or `place` raises it,
        or TooSlowError when it takes longer than `each_s` to take a chunk, or to ask for the next."""

    async def take(
        self, ask: Callable[[], Ask | None], use: Callable[[memoryview, int], None], each_s: float, ahead: int
    ) -> None:
        """Send what `ask` returns and pass the bytes that answer, as many as it says, to `use`, until `ask` returns
        None; `ahead` questions are on their way at a time where that helps. `use` is called once or more often for each
        answer, with its bytes so far and where the new ones begin; they are valid until it returns. Both may be called
        in another thread, where they may hash and write. TooSlowError after `each_s`."""

    def round_trip_s(self) -> float:
        """0 where asking ahead would not help."""

    async def abort(self) -> None: ...


class StreamPipe:
    """A libp2p stream. Its window is smaller than a chunk: nothing is gained by asking ahead."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.peer_id = wire.peer_id

    async def send_frame(self, body: bytes) -> None:
        await self._wire.send_frame(body)

    async def read_frame(self, limit: int) -> bytes:
        return await self._wire.read_frame(limit)

    async def give(
        self,
        descriptor: int,
        first: Span | None,
        place: Callable[[bytes], Span],
        each_s: float,
        pace: Pace = UNPACED,
    ) -> NoReturn:
        span = first
        while True:
            if span is None:
                with trio.fail_after(each_s):
                    span = place(await self._wire.read_frame(ASK_BYTES))
            await trio.sleep(pace.wait_s(span[1]))
            with trio.fail_after(each_s):
                await self._wire.send(os.pread(descriptor, span[1], span[0]))
                span = None

    async def take(
        self, ask: Callable[[], Ask | None], use: Callable[[memoryview, int], None], each_s: float, ahead: int
    ) -> None:
        while (asked := ask()) is not None:
            with trio.fail_after(each_s):
                if asked[0]:
                    await self._wire.send_frame(asked[0])
                data = memoryview(await self._wire.read_exactly(asked[1]))
            await trio.to_thread.run_sync(use, data, 0)

    def round_trip_s(self) -> float:
        return 0.0

    async def abort(self) -> None:
        await self._wire.abort()
