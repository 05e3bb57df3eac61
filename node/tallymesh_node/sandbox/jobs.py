"""One job's sandbox as the node sees it: start units in it, hear when they have ended, be told when it died."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from tallymesh.decoding import UNREADABLE
from tallymesh_node.interfaces import Failure, Limits
from tallymesh_node.sandbox.channel import Channel, Closed
from tallymesh_node.sandbox.zygote import Zygote

READY_S = 60.0  # a fork, a dozen mounts; measured 10 to 25 ms on a machine that is not starved


class Ended(msgspec.Struct, frozen=True):
    """How a unit ended: wait status, why the job's process killed it ("" if it did not), what it used."""

    status: int
    reason: str
    cpu_s: float
    memory_mib: int
    full: bool  # its disk was full at the end
    error: str  # the sandbox failed


class RunningUnit:
    """A unit that was asked for. `outputs` is the descriptor of its folder of outputs, open until `close`."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.over = trio.Event()
        self.outputs: int | None = None
        self.ended: Ended | None = None  # None when over: the sandbox died
        self.overdue = False  # its time was long over, and the node ended it
        self.out_of_memory = False  # the kernel killed a process of it, at its control group's limit
        self.starved = False  # another one was overdue, and the whole sandbox had to go

    def close(self) -> None:
        if self.outputs is not None:
            os.close(self.outputs)
            self.outputs = None


class JobSandbox:
    """Talks with the job's first process. `serve` must run for anything to happen."""

    def __init__(self, name: str, channel: Channel, zygote: Zygote) -> None:
        self.name = name
        self.zygote = zygote
        self.dead = trio.Event()
        self.units: dict[str, RunningUnit] = {}
        self._channel = channel
        self._ready = trio.Event()
        self._error = "it ended at once"

    def __repr__(self) -> str:
        state = "DEAD" if self.dead.is_set() else "READY" if self._ready.is_set() else "OPENING"
        return f"<JobSandbox {self.name} {state} units={len(self.units)}>"

    async def serve(self) -> None:
        """Until the job's first process is gone."""
        try:
            while True:
                message, descriptor = await self._channel.receive()
                self._take(message, descriptor)
        except (Closed, *UNREADABLE):
            pass
        finally:
            self._channel.close()
            self.dead.set()
            self._ready.set()
            for unit in self.units.values():
                unit.started.set()
                unit.over.set()
            self.units.clear()

    async def wait_ready(self) -> None:
        """Failure `sandbox` where it could not be made."""
        with trio.move_on_after(READY_S) as scope:
            await self._ready.wait()
        if scope.cancelled_caught:
            raise Failure("sandbox", f"The job's sandbox was not ready after {READY_S:.0f} s.")
        if self.dead.is_set():
            raise Failure("sandbox", f"The job's sandbox could not be opened: {self._error}")

    async def start(self, name: str, limits: Limits, task: str, pipes: Sequence[int]) -> RunningUnit:
        """Fork unit `name`, whose inputs are in the spool. `pipes`: events and console, to write to, and the
        entrance of its control group where there is one."""
        unit = self.units[name] = RunningUnit()
        message = {"do": "run", "unit": name, "limits": msgspec.to_builtins(limits), "task": task}
        try:
            with trio.CancelScope(shield=True):  # after this line the unit exists, or will: no half-sent request
                await self._channel.send(message, pipes)
        except Closed:
            self.units.pop(name, None)
            unit.over.set()
        return unit

    async def kill(self, name: str) -> None:
        if name in self.units:
            try:
                await self._channel.send({"do": "kill", "unit": name})
            except Closed:
                self.units.pop(name, None)

    def _take(self, message: dict[str, Any], descriptor: int | None) -> None:
        name = str(message.get("unit", ""))
        unit = self.units.get(name)
        try:
            if unit is not None and "started" in message and unit.outputs is None:
                unit.outputs, descriptor = descriptor, None
                unit.started.set()
            elif unit is not None and "ended" in message:
                unit.ended = msgspec.convert(message["ended"], Ended)
                del self.units[name]
                unit.started.set()
                unit.over.set()
            elif "ready" in message:
                self._ready.set()
            elif "error" in message:
                self._error = str(message["error"])
        finally:
            if descriptor is not None:
                os.close(descriptor)
