"""Locks for libp2p's own bookkeeping that cost no turn of trio's loop while they are free. trio's own give up the turn
each time that they are taken, and libp2p takes 57 for one request and its answer, mostly for a few lines that wait for
nothing. This module knows where libp2p keeps its locks, and nothing of what travels.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import trio
from libp2p.abc import INetStream, IRawConnection
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.yamux import yamux

TAKEN_AT_ONCE = 32  # times in a row; then the turn is given up, so that a flood of small frames stops nobody else


class QuickLock:
    """As trio.Lock where it is used by `async with`: one holder, who comes first is served first."""

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._at_once = 0

    async def __aenter__(self) -> None:
        if self._at_once < TAKEN_AT_ONCE and not self._lock.locked():
            self._at_once += 1
            self._lock.acquire_nowait()
        else:
            self._at_once = 0
            await self._lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class _OneAtATime:
    """In the place of libp2p's ReadWriteLock: yamux only writes under it."""

    def __init__(self) -> None:
        self._lock = QuickLock()

    def write_lock(self) -> QuickLock:
        return self._lock


def quicken_socket(raw: IRawConnection) -> None:
    if isinstance(raw, RawConnection) and isinstance(raw.stream, TrioTCPStream):
        _replace(raw.stream, "read_lock", "write_lock")


def quicken_muxer(muxer: yamux.Yamux) -> None:
    _replace(muxer, "streams_lock", "_write_lock")


def quicken_muxed(stream: yamux.YamuxStream) -> None:
    _replace(stream, "window_lock", "close_lock")
    stream.rw_lock = _OneAtATime()


def quicken_stream(stream: INetStream) -> None:
    _replace(stream, "_state_lock")


def _replace(owner: Any, *names: str) -> None:
    for name in names:
        assert isinstance(getattr(owner, name), trio.Lock), name  # a libp2p that keeps them elsewhere
        setattr(owner, name, QuickLock())
