"""The child of a pool of units (pool.py): warmed once, then every unit is a fork of it.

The two talk over one socket whose messages keep their boundaries (SOCK_SEQPACKET), so that any number of forks can send
on it; its end ends the child, and with it every fork. torch is imported when the child starts, and not with this
module. It knows neither jobs nor who asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

from tallymesh import starting

MAX_PACKET: Final = 64 * 1024  # a line of the runner is at most 16 kB
MAX_EVENT: Final = 32 * 1024
READY: Final = b"ready"
SCORE: Final = b"score"
GONE: Final = (BrokenPipeError, ConnectionResetError)  # the caller has closed its end, and with words unread in it


class _Server:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._forks: dict[int, int] = {}  # pid -> ticket
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._wake, writer = socket.socketpair()
        for end in (self._wake, writer):
            end.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._writer = writer

    def serve(self) -> None:
        """Until the caller's end closes. Its forks die with this process."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    with contextlib.suppress(BlockingIOError):
                        self._wake.recv(4096)
                    self._bury()
                    continue
                try:
                    packet = self._channel.recv(MAX_PACKET)
                except GONE:
                    return
                if not packet:
                    return
                if packet == SCORE:
                    self._score()
                else:
                    self._fork(json.loads(packet))

    def _score(self) -> None:
        from tallymesh_learning.runtime import canary

        score = canary.cpu_score()
        with contextlib.suppress(*GONE):
            self._channel.send(json.dumps({"cpu_score": score}).encode())

    def _fork(self, request: dict[str, Any]) -> None:
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            _be_unit(server, self._channel, request["ticket"], Path(request["work"]))
        self._forks[pid] = request["ticket"]

    def _bury(self) -> None:
        while self._forks:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            ticket = self._forks.pop(pid)
            ended = {"status": os.waitstatus_to_exitcode(status), "cpu_s": usage.ru_utime + usage.ru_stime}
            _send(self._channel, ticket, "exit", ended)


def _be_unit(server: int, channel: socket.socket, ticket: int, work: Path) -> NoReturn:
    status = 1
    try:
        from tallymesh_learning.runtime import isolate

        isolate.die_with_parent(signal.SIGKILL)  # killed or not: nobody else knows that a unit is at work
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from tallymesh_learning.runtime.runner import SIMULATED, STEPS, run_unit

        if os.getppid() == server:  # else it was gone before
            run_unit(work, lambda kind, payload: _send(channel, ticket, kind, payload), (*STEPS, *SIMULATED))
        status = 0
    finally:
        os._exit(status)


def _send(channel: socket.socket, ticket: int, kind: str, payload: Any) -> None:
    packet = json.dumps([ticket, kind, payload]).encode()
    if len(packet) > MAX_EVENT:
        return  # one line of the runner cannot be that long
    with contextlib.suppress(*GONE):
        channel.send(packet)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    with starting.uncollected():  # which also spares the forks: a collection would copy every page that holds an object
        # only Linux has the first: a caller imports this module
        from tallymesh_learning.runtime import isolate, pages, warm

        assert isolate.SANDBOX_ID  # so that no fork has to load it
        warm.warm()
    pages.gather()
    try:
        channel.send(READY)
    except GONE:
        return
    _Server(channel).serve()


if __name__ == "__main__":
    main()
