"""The zygote: one process that has imported torch and warmed it up, from which every job of this node is forked.

Started by the node inside a bubblewrap sandbox (`python -m tallymesh_learning.runtime.template --control FD`) with the
numeric profile's environment. It holds no secret and runs no foreign code. A fork costs milliseconds where a fresh
interpreter with torch costs two seconds and 200 MB. Messages on the control socket (SOCK_SEQPACKET, JSON):

    node -> template   {"do": "open", "job": name}  + the job's socket
                       {"do": "close", "job": name}
    template -> node   {"ready": true, "seconds": s} · {"closed": name}   (everything of the job is dead)

When the node's end closes the template ends, and bubblewrap's process namespace with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from tallymesh import starting
from tallymesh_learning.runtime import isolate, job, pages, seccomp
from tallymesh_learning.runtime.unit import Run, resolve

DEFAULT_RUN = "tallymesh_learning.runtime.runner:run_unit"
DEFAULT_WARM = "tallymesh_learning.runtime.warm:warm"
DEFAULT_BEGIN = "tallymesh_learning.runtime.card:begin"


class Template:
    """Forks jobs and waits for them. `run` is what every unit calls. A template of a card shows its jobs the files
    `devices`, and has `begin` called in each unit before foreign code; it never talks to the card itself, because what
    CUDA knows does not survive a fork."""

    def __init__(self, control: socket.socket, run: Run, devices: Sequence[str] = (), begin: str | None = None) -> None:
        self._control = control
        self._run = run
        self._devices = devices
        self._begin = begin
        self._jobs: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._bury(key.data, key.fd)
                elif not self._listen():
                    return

    def _listen(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, job.MAX_MESSAGE, 1)
        if not data:
            return False
        message = json.loads(data)
        name = message["job"]
        if message["do"] == "open":
            self._open(name, descriptors[0])
        elif name in self._jobs:
            os.kill(self._jobs[name], signal.SIGKILL)
        else:
            self._send({"closed": name})
        return True

    def _open(self, name: str, descriptor: int) -> None:
        """Two forks: a process namespace holds the children of whoever asked for it, never the one who asks."""
        channel = socket.socket(fileno=descriptor)
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            self._become_job(name, channel, writer)
        os.close(writer)
        with open(reader, "rb") as file:
            said = file.read()
        os.waitpid(middle, 0)
        if said.isdigit():
            self._jobs[name] = pid = int(said)
            self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, name)
        else:
            sentence = f"The job's namespaces could not be made: {said.decode(errors='replace')}"
            channel.send(json.dumps({"error": sentence}).encode())
        channel.close()

    def _become_job(self, name: str, channel: socket.socket, writer: int) -> NoReturn:
        try:
            self._selector.close()
            self._control.detach()
            proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            isolate.unshare(isolate.EVERY_NAMESPACE)
            isolate.map_own_ids(proc)
            pid = os.fork()
            if pid == 0:
                job.main(name, channel, self._run, self._devices, self._begin)
            os.write(writer, str(pid).encode())
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)

    def _bury(self, name: str, handle: int) -> None:
        os.waitpid(self._jobs.pop(name), 0)
        self._selector.unregister(handle)
        os.close(handle)
        self._send({"closed": name})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(message).encode())


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="tallymesh-template")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--run", default=DEFAULT_RUN)
    parser.add_argument("--warm", default=DEFAULT_WARM)
    parser.add_argument("--devices", default="", help="files of /dev of the card that jobs have, as a,b,…")
    parser.add_argument("--begin", default=DEFAULT_BEGIN, help="called in each unit that has a card")
    parser.add_argument("--cpus", default="", help="the only cores that jobs may use, as 0,1,…")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    control = socket.socket(fileno=options.control)
    control.set_inheritable(False)
    isolate.adopt_orphans()
    if options.cpus:
        os.sched_setaffinity(0, [int(cpu) for cpu in options.cpus.split(",")])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr] # both are text files here
    with starting.uncollected():  # which also spares the forks: a collection would copy every page that holds an object
        run = resolve(options.run)
        if options.warm:
            resolve(options.warm)()
        for forks in (True, False):
            seccomp.compiled(forks=forks, card=bool(options.devices))
    pages.gather()
    devices = options.devices.split(",") if options.devices else []
    template = Template(control, run, devices, options.begin if devices else None)
    control.send(json.dumps({"ready": True, "seconds": round(time.monotonic() - began, 3)}).encode())
    template.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
