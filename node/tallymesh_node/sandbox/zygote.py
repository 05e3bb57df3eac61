"""The template's process as the node sees it: start it, wait until it is warm, ask it for jobs, bury it.

It is started with subprocess.Popen on trio's own thread: bubblewrap dies with its parent *thread*, and the spawner
thread of trio.lowlevel.open_process ends after ten idle seconds. Killing the outermost process takes everything down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import trio

from tallymesh.errors import LocalError
from tallymesh_node.sandbox.channel import Channel, Closed
from tallymesh_node.sandbox.command import Command

DIAGNOSTICS_MAX = 8192  # bytes of what bubblewrap and the template said last, for the error message
BURY_S = 5.0  # killing the outer process removes everything within about 15 ms

CONTROL = "CONTROL"  # in the command's arguments: replaced by the number of the control socket


class Zygote:
    """One outer sandbox. `serve` runs as long as it lives and leaves no process behind."""

    def __init__(self, command: Command) -> None:
        self.ready = trio.Event()  # warm, or dead before it was
        self.dead = trio.Event()
        self.warm_s = 0.0
        self._gone = False
        self._closed: dict[str, trio.Event] = {}
        self._said = b""
        self._channel, theirs = Channel.pair()
        self._diagnostics, writer = os.pipe2(os.O_CLOEXEC)
        argv = [argument.replace(CONTROL, str(theirs.fileno())) for argument in command.argv]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                argv,
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C at the node's terminal is for the node
            )
        except OSError as error:
            os.close(self._diagnostics)
            self._channel.close()
            raise LocalError("no_sandbox", f"The sandbox cannot be started: {error}.") from None
        finally:
            os.close(writer)
            theirs.close()
        self._handle = os.pidfd_open(self._process.pid)  # of this process and no later one, and to wait without polling

    @property
    def pid(self) -> int:
        """Of the outermost process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Warm, and not known to have died."""
        return self.ready.is_set() and not self._gone

    @property
    def diagnostics(self) -> str:
        """The last that it printed."""
        return self._said.decode(errors="replace").strip()

    async def serve(self) -> None:
        """Until it is dead, whoever ended it."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tail)
                await self._listen()
                nursery.cancel_scope.deadline = trio.current_time() + 1.0  # its last words
                self.kill()
        finally:
            with trio.CancelScope(shield=True):
                await self._bury()

    async def open_job(self, name: str) -> Channel:
        """A channel to the job's first process, on which it will say `ready` or `error`. Closed where it is dead."""
        ours, theirs = Channel.pair()
        try:
            with theirs:
                await self._channel.send({"do": "open", "job": name}, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        return ours

    async def close_job(self, name: str) -> None:
        """Returns when no process of the job is left. Idempotent."""
        event = self._closed.setdefault(name, trio.Event())
        try:
            await self._channel.send({"do": "close", "job": name})
        except Closed:
            await self.dead.wait()
            return
        await event.wait()
        self._closed.pop(name, None)

    def kill(self) -> None:
        """All of it. Does nothing where it is dead."""
        self._gone = True
        if not self.dead.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def _listen(self) -> None:
        while True:
            try:
                message, descriptor = await self._channel.receive()
            except Closed:
                self._gone = True
                return
            if descriptor is not None:
                os.close(descriptor)
            if "ready" in message:
                self.warm_s = float(message.get("seconds", 0.0))
                self.ready.set()
            elif "closed" in message:
                event = self._closed.get(message["closed"])
                if event is not None:
                    event.set()

    async def _tail(self) -> None:
        async with trio.lowlevel.FdStream(os.dup(self._diagnostics)) as stream:
            while data := await stream.receive_some(4096):
                self._said = (self._said + data)[-DIAGNOSTICS_MAX:]

    async def _bury(self) -> None:
        self.kill()
        await trio.lowlevel.wait_readable(self._handle)
        self._process.wait()
        # Every process inside holds the other end of this pipe until it is gone, the template and the jobs at least.
        with trio.move_on_after(BURY_S):
            async with trio.lowlevel.FdStream(self._diagnostics) as stream:
                while data := await stream.receive_some(4096):
                    self._said = (self._said + data)[-DIAGNOSTICS_MAX:]
        self._channel.close()
        os.close(self._handle)
        self.dead.set()
        self.ready.set()
        for event in self._closed.values():
            event.set()
