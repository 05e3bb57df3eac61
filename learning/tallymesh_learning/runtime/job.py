"""The first process of a job's sandbox: forks its units, watches them, buries them. It runs none of the job's code.

The node holds the other end of one SOCK_SEQPACKET pair. Messages are JSON, descriptors travel beside them:

    node -> job   {"do": "run", "unit": name, "limits": {…}, "task": dotted or ""}  + events pipe, console pipe,
                                                                                            maybe a control group
                  {"do": "kill", "unit": name}
    job -> node   {"ready": true} or {"error": sentence}
                  {"unit": name, "started": true}  + descriptor of the folder of outputs
                  {"unit": name, "ended": {"status", "reason", "cpu_s", "memory_mib", "full", "error"}}

When the node's end closes the job ends, and the kernel kills everything in its process namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from tallymesh_learning.runtime import isolate, unit, view, watchdog
from tallymesh_learning.runtime.unit import Run

MAX_MESSAGE = 8192  # names and numbers; unit bytes travel as files
DESCRIPTORS_FACTOR = 4  # all processes of a unit together, over one: a socket can pin 200 kB of kernel memory

NOBODY_FORKS_BEFORE = (5, 14)  # older kernels count processes over all of a user's sandboxes: no bound, so no forks


class Running(NamedTuple):
    """A unit that was forked. `handle` becomes readable when it and everything that it started is dead."""

    name: str
    pid: int
    handle: int
    limits: dict[str, Any]
    deadline: float


class Job:
    """Owns the job's process namespace, of which it is the first process."""

    def __init__(self, channel: socket.socket, run: Run, kept: list[str], begin: str | None = None) -> None:
        self._channel = channel
        self._run = run
        self._begin = begin
        self._kept = kept
        self._units: dict[str, Running] = {}
        self._reasons: dict[str, str] = {}
        self._memory: dict[str, int] = {}
        self._own_pids = os.open(f"{view.JOB_PROC}/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._watched = 0.0

    def serve(self) -> None:
        """Until the node closes its end."""
        while True:
            for key, _ in self._selector.select(watchdog.WATCH_S if self._units else None):
                if key.data is not None:
                    self._bury(key.data)
                elif not self._listen():
                    return
            if self._units and time.monotonic() - self._watched >= watchdog.WATCH_S:
                self._watch()
                self._watched = time.monotonic()

    def _listen(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._channel, MAX_MESSAGE, 3)
        if not data:
            return False
        message = json.loads(data)
        name = message["unit"]
        if message["do"] == "run":
            try:
                self._start(name, message["limits"], message["task"], descriptors)
            except OSError as error:
                self._send({"unit": name, "ended": _ended(error=f"The unit's sandbox could not be made: {error}")})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        elif name in self._units:
            self._kill(name, "killed")
        return True

    def _start(self, name: str, limits: dict[str, Any], task: str, descriptors: Sequence[int]) -> None:
        outputs = view.prepare_unit(name, limits["disk_mib"])
        try:
            isolate.unshare(isolate.CLONE_NEWPID)  # for the child; this process stays where it is …
            pid = os.fork()
            if pid == 0:
                self._become_unit(name, limits, task, descriptors)
            isolate.enter(self._own_pids, isolate.CLONE_NEWPID)  # … and its next child gets a namespace of its own
            handle = os.pidfd_open(pid)
            self._units[name] = running = Running(name, pid, handle, limits, time.monotonic() + limits["wall_s"])
            self._selector.register(handle, selectors.EVENT_READ, running)
            self._send({"unit": name, "started": True}, outputs)
        except OSError:
            if name not in self._units:
                view.remove_unit(name)
            raise
        finally:
            os.close(outputs)

    def _become_unit(self, name: str, limits: dict[str, Any], task: str, descriptors: Sequence[int]) -> NoReturn:
        try:
            self._selector.close()
            self._channel.detach()
            events, console, *group = descriptors
            if self._begin is not None and not group:
                raise OSError("no control group bounds the memory of a unit with a card")
            for entrance in group:
                unit.enter_group(entrance, must=self._begin is not None)
            forks = limits["processes"] > 1 and kernel() >= NOBODY_FORKS_BEFORE
            unit.become(
                name,
                limits,
                events=events,
                console=console,
                forks=forks,
                run=self._run,
                task=task,
                kept=self._kept,
                begin=self._begin,
            )
        except BaseException:
            traceback.print_exc()  # into the unit's own log
        finally:
            os._exit(unit.SETUP_FAILED)

    def _watch(self) -> None:
        children = watchdog.families(view.JOB_PROC)
        now = time.monotonic()
        for name, running in self._units.items():
            limits = running.limits
            memory_max = limits["memory_mib"] << 20
            usage = watchdog.usage(view.JOB_PROC, running.pid, children, memory_max)
            self._memory[name] = max(self._memory.get(name, 0), min(usage.memory_bytes, memory_max))
            if now > running.deadline:
                self._kill(name, "wall")
            elif usage.memory_bytes > memory_max:
                self._kill(name, "memory")
            elif usage.processes > limits["processes"]:
                self._kill(name, "processes")
            elif usage.descriptors > DESCRIPTORS_FACTOR * limits["files"]:
                self._kill(name, "files")
            elif view.is_full(name):
                self._kill(name, "disk")

    def _kill(self, name: str, reason: str) -> None:
        """The first process of a namespace: the kernel kills the others with it."""
        self._reasons.setdefault(name, reason)
        signal.pidfd_send_signal(self._units[name].handle, signal.SIGKILL)

    def _bury(self, running: Running) -> None:
        """Wait returns only when every process of the unit's namespace is gone."""
        _, status, used = os.wait4(running.pid, 0)
        self._selector.unregister(running.handle)
        os.close(running.handle)
        del self._units[running.name]
        full = view.is_full(running.name)
        view.remove_unit(running.name)
        self._send(
            {
                "unit": running.name,
                "ended": _ended(
                    status=status,
                    reason=self._reasons.pop(running.name, ""),
                    cpu_s=used.ru_utime + used.ru_stime,
                    memory_mib=max(self._memory.pop(running.name, 0) >> 20, used.ru_maxrss >> 10),
                    full=full,
                ),
            }
        )

    def _send(self, message: dict[str, Any], *descriptors: int) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the node is gone: the next read says so
            socket.send_fds(self._channel, [json.dumps(message).encode()], descriptors)


def main(
    name: str, channel: socket.socket, run: Run, devices: Sequence[str] = (), begin: str | None = None
) -> NoReturn:
    """Run as the first process of new namespaces, in a fork of the template. Does not return. `devices` are those of
    the card that this template has; then `begin` is no None (unit.become)."""
    try:
        isolate.close_all_but({0, 1, 2, channel.fileno()})
        try:
            job = Job(channel, run, view.enter_job(name, devices), begin)
        except OSError as error:
            channel.send(json.dumps({"error": f"The job's sandbox could not be made: {error}"}).encode())
            raise
        channel.send(json.dumps({"ready": True}).encode())
        job.serve()
    except BaseException:
        traceback.print_exc()  # to the node's log, with what the template says
    finally:
        os._exit(0)


def kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdecimal()) or 0)


def _ended(
    *, status: int = 0, reason: str = "", cpu_s: float = 0.0, memory_mib: int = 0, full: bool = False, error: str = ""
) -> dict[str, Any]:
    return {
        "status": status,
        "reason": reason,
        "cpu_s": round(cpu_s, 6),
        "memory_mib": memory_mib,
        "full": full,
        "error": error,
    }
