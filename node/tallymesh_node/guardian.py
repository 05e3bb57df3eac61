"""Ends a program's children when the program itself is killed: kill -9 leaves no time to end anything in order.

A process of its own, told by a pipe whom to watch; the pipe's end is the sign, which no way of dying can hold back. It
ends them as their parent would have: by batch, SIGTERM first, SIGKILL to who is left after a while. Processes are held
by handle, so a number that is given to somebody else meanwhile is not touched. It knows nothing of nodes or chains, and
what runs in the process is the standard library alone: it should cost a few megabytes and start in no time.

    python -I -S guardian.py SECONDS        # then lines of "BATCH PID" on standard input
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

JOIN_S = 5.0  # for the guardian itself to end, once everybody it watched is gone


class Guardian:
    """The parent's side. Batches end one after the other, lowest first; within one all at once."""

    def __init__(self, patience_s: float) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this very file
            [sys.executable, "-I", "-S", __file__, str(patience_s)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C, and the end of a terminal, are for the parent
        )

    def watch(self, pid: int, batch: int) -> None:
        """From now on. `pid` is a child that was not waited for yet. A guardian that is gone guards nobody: that is no
        reason to stop."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{batch} {pid}\n".encode())
            self._process.stdin.flush()

    def close(self) -> None:
        """When all are ended: the guardian has nothing left to do, and ends."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(JOIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(patience_s: float) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever ends a whole group of processes would end it first
    watched: dict[int, list[int]] = {}
    for line in sys.stdin:
        batch, pid = map(int, line.split())
        with contextlib.suppress(ProcessLookupError):
            watched.setdefault(batch, []).append(os.pidfd_open(pid))
    for _, handles in sorted(watched.items()):
        _end(handles, patience_s)


def _end(handles: list[int], patience_s: float) -> None:
    for handle in handles:
        _send(handle, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    left = set(handles)
    while left and time.monotonic() < deadline:
        left -= set(select.select(left, (), (), max(0.0, deadline - time.monotonic()))[0])
    for handle in left:
        _send(handle, signal.SIGKILL)


def _send(handle: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


if __name__ == "__main__":
    main(float(sys.argv[1]))
