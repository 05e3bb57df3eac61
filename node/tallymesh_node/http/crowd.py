"""How many may stand at the door: connections to the API, bounded apart for those that have shown the token and for
strangers (any program of this machine, any page in the owner's browser).

A stranger that comes too many makes the longest waiting one go. So a flood, slow or silent, keeps nobody out: whoever
has the token is known with the first request. That takes three turns of the loop, however long a turn may be, and a few
come in a turn (`ENTER_A_TURN` in server.py): who asks at once is known long before the strangers behind it have pushed
it to the front. This module does not know what is asked.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from tallymesh.errors import LocalError

MAX_STRANGERS: Final = 128  # a descriptor and some kB each; one more pushes the first one out, 32 turns after it came
MAX_KNOWN: Final = 512  # with the token: programs that forget to close; a process may have 1,024 descriptors


class Crowd:
    """The open connections, longest open first."""

    def __init__(self, strangers: int = MAX_STRANGERS, known: int = MAX_KNOWN) -> None:
        self._strangers_max = strangers
        self._known_max = known
        self._strangers: dict[asyncio.BaseTransport, None] = {}
        self._known: set[asyncio.BaseTransport] = set()

    @property
    def strangers(self) -> int:
        return len(self._strangers)

    @property
    def known(self) -> int:
        return len(self._known)

    def enter(self, line: asyncio.Transport) -> None:
        self._strangers[line] = None
        while len(self._strangers) > self._strangers_max:
            first = next(iter(self._strangers))
            del self._strangers[first]
            cast(asyncio.Transport, first).abort()

    def know(self, line: asyncio.BaseTransport | None) -> None:
        """It has shown the token. LocalError `too_many_connections`."""
        if line is None or line in self._known:
            return
        if len(self._known) >= self._known_max:
            raise LocalError(
                "too_many_connections",
                f"{len(self._known)} connections to this node are open.",
                remedy="Close some of them, then try again.",
            )
        if self._strangers.pop(line, self) is None:  # else it went away meanwhile
            self._known.add(line)

    def leave(self, line: asyncio.BaseTransport) -> None:
        self._strangers.pop(line, None)
        self._known.discard(line)


class Counted(asyncio.Protocol):
    """A connection's own protocol (aiohttp's), with the crowd told when it begins and ends."""

    def __init__(self, inner: asyncio.Protocol, crowd: Crowd) -> None:
        self._inner = inner
        self._crowd = crowd
        self._line: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = transport
        self._inner.connection_made(transport)
        self._crowd.enter(cast(asyncio.Transport, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._line is not None:
            self._crowd.leave(self._line)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
