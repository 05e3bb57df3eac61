"""How many may stand at the door: connections to the API, bounded apart for those that have shown the token and for
strangers (any program of this machine, any page in the owner's browser, and anybody at all where the owner has the API
listen on a public address).

A stranger that comes too many makes another go: out of the address that most of them are from, the longest waiting one.
So a flood, slow or silent, pushes out itself, and keeps nobody out: whoever has the token is known with the first
request. That takes three turns of the loop, however long a turn may be, and a few come in a turn (`ENTER_A_TURN` in
server.py): who asks at once is known long before the strangers behind it have pushed it to the front. This module does
not know what is asked.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from typing import Final, cast

from tallymesh.errors import LocalError

MAX_STRANGERS: Final = 128  # a descriptor and some kB each; one more pushes the first one out, 32 turns after it came
# Of one address besides this machine's own: a quarter. A browser opens 6, and an office behind a NAT has a few of them;
# the other places are for others, also before they are full.
MAX_OF_ADDRESS: Final = MAX_STRANGERS // 4
MAX_KNOWN: Final = 512  # with the token: programs that forget to close; a process may have 1,024 descriptors
HERE: Final = "here"


class Crowd:
    """The open connections, longest open first."""

    def __init__(
        self, strangers: int = MAX_STRANGERS, known: int = MAX_KNOWN, of_address: int = MAX_OF_ADDRESS
    ) -> None:
        self._strangers_max = strangers
        self._known_max = known
        self._of_address_max = of_address
        self._strangers: dict[asyncio.BaseTransport, str] = {}  # and where they are from
        self._from: Counter[str] = Counter()
        self._known: set[asyncio.BaseTransport] = set()
        self.made = 0  # let in and not ended; whom nobody was told of yet counts, too

    @property
    def strangers(self) -> int:
        return len(self._strangers)

    @property
    def known(self) -> int:
        return len(self._known)

    def enter(self, line: asyncio.Transport) -> None:
        where = address_of(line)
        self._strangers[line] = where
        self._from[where] += 1
        if where != HERE and self._from[where] > self._of_address_max:
            self._push_out(where)
        while len(self._strangers) > self._strangers_max:
            self._push_out(max(self._from, key=self._crowded))

    def _crowded(self, where: str) -> tuple[int, bool]:
        """This machine's own programs, its owner's among them, have a share that they give up to nobody."""
        return self._from[where] - self._of_address_max * (where == HERE), where != HERE

    def _push_out(self, where: str) -> None:
        """The one from there that waits longest."""
        first = next(each for each, place in self._strangers.items() if place == where)
        self._forget(first)
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
        if self._forget(line):  # else it went away meanwhile
            self._known.add(line)

    def push_all_out(self) -> None:
        """Those who are told of. Who was let in a moment ago comes in some turns of the loop: ask again."""
        for line in (*self._strangers, *self._known):
            cast(asyncio.Transport, line).abort()

    def leave(self, line: asyncio.BaseTransport) -> None:
        self._forget(line)
        self._known.discard(line)

    def _forget(self, line: asyncio.BaseTransport) -> bool:
        """Whether it was among the strangers."""
        where = self._strangers.pop(line, None)
        if where is None:
            return False
        self._from[where] -= 1
        if not self._from[where]:
            del self._from[where]
        return True


def address_of(line: asyncio.BaseTransport) -> str:
    """Where the other side is: HERE for this machine; of IPv6 the /64, in which one machine has as many addresses as it
    likes."""
    try:
        found = ipaddress.ip_address(str(line.get_extra_info("peername")[0]).partition("%")[0])
    except (TypeError, IndexError, ValueError):  # it is gone already
        return ""
    plain = getattr(found, "ipv4_mapped", None) or found
    if plain.is_loopback:
        return HERE
    return str(plain) if plain.version == 4 else str(ipaddress.ip_network((plain, 64), strict=False))


class Counted(asyncio.Protocol):
    """A connection's own protocol (aiohttp's), with the crowd told when it begins and ends."""

    def __init__(self, inner: asyncio.Protocol, crowd: Crowd) -> None:
        self._inner = inner
        self._crowd = crowd
        self._line: asyncio.BaseTransport | None = None
        crowd.made += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = transport
        self._inner.connection_made(transport)
        self._crowd.enter(cast(asyncio.Transport, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.made -= 1
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
