"""Messages between the node and the processes in the sandbox: JSON in datagrams of one SOCK_SEQPACKET pair each.

The other ends are processes of ours (template, job) that run no foreign code; they are still on the far side of a
sandbox, so what they say is bounded and checked for its form, and descriptors are taken only where one is expected.
"""

from __future__ import annotations

import json
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Any

import trio

MAX_MESSAGE = 8192


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One of the two ends, used by one reader task and any number of senders."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = trio.socket.from_stdlib_socket(ours)

    @staticmethod
    def pair() -> tuple[Channel, socket.socket]:
        """Our end, and theirs, to be passed on and then closed here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        return Channel(ours), theirs

    async def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Closed where nobody will read it. The descriptors stay open here."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors).tobytes())] if descriptors else []
        try:
            await self._socket.sendmsg([json.dumps(message).encode()], ancillary)
        except (OSError, trio.ClosedResourceError):
            raise Closed from None

    async def receive(self) -> tuple[dict[str, Any], int | None]:
        """The next message, and a descriptor that came with it (the caller closes it). Closed at the end."""
        space = socket.CMSG_SPACE(array("i").itemsize)
        try:
            data, ancillary, flags, _ = await self._socket.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
        except (OSError, trio.ClosedResourceError):
            raise Closed from None
        descriptors = array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        for extra in descriptors[1:]:
            os.close(extra)
        descriptor = descriptors[0] if descriptors else None
        message: Any = None
        if data and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            try:
                message = json.loads(data)
            except (ValueError, RecursionError):  # 8 kB are nesting enough for that
                message = None
        if type(message) is not dict:
            if descriptor is not None:
                os.close(descriptor)
            raise Closed
        return message, descriptor

    def close(self) -> None:
        self._socket.close()
