"""The asyncio loop that aiohttp runs in, several callbacks to a turn of trio's.

trio-asyncio 0.15 runs one callback of asyncio's and then lets every other task of the program go first. A question to
the API is about ten of them and a stranger that comes is six, so beside a hundred busy connections of libp2p each waits
for its turn ten times, and where strangers come faster than turns the queue grows and the owner waits behind it.
asyncio by itself runs all that are ready; here there is a bound, and trio's tasks have their turn after it.
"""

from __future__ import annotations

from typing import Any, Final

import trio
from trio_asyncio import TrioEventLoop

CALLBACKS_A_TURN: Final = 64  # of 20 to 100 microseconds: libp2p waits 6 ms at most


class BriskLoop(TrioEventLoop):  # type: ignore[misc]
    async def _main_loop_one(self, no_wait: bool = False) -> None:
        await super()._main_loop_one(no_wait)
        for _ in range(0 if no_wait else CALLBACKS_A_TURN - 1):
            try:
                await super()._main_loop_one(True)
            except trio.WouldBlock:
                return


def make_brisk(loop: Any) -> None:
    """Of the loop that `trio_asyncio.open_loop` made: it names its class itself."""
    assert type(loop) is TrioEventLoop
    loop.__class__ = BriskLoop
