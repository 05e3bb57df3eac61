"""backend="ray": units as tasks of the user's own Ray cluster, through the same plan and the same unit runner.

`RayPool` is to `LocalRun` what a `UnitPool` is. A task never runs a unit in Ray's own process, which is warm and has
whatever environment its cluster gave it: each Ray worker keeps a `UnitPool`, whose child is started under the numeric
profile and forks for each unit, as it does on this machine. Ray pickles what it carries; it is given bytes, text and
numbers alone, and names of our own functions: programs, models and data travel as the archives and shards that they are
everywhere. Nothing here is a sandbox. This module does not know jobs.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
from collections.abc import Iterator
from typing import Any, Final

from tallymesh import units
from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import blob_id
from tallymesh.units import Unit
from tallymesh_learning.runtime import profile
from tallymesh_learning.runtime.pool import Done, Event, UnitPool

INSTALL: Final = "pip install 'tallymesh[learning,ray]'"
TRIES: Final = 3  # of a unit whose Ray worker or machine is lost: it is a pure function
QUIET: Final = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}

Said = tuple[str, str, bytes]  # kind of an event, its payload as JSON, and a unit's output


def connect() -> Any:
    """Ray, connected as `ray.init()` does it: RAY_ADDRESS, else a cluster that runs here, else one of its own.
    CallerError `no_ray` where it is not installed."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise CallerError("no_ray", 'backend="ray" needs Ray, which is not installed here.', remedy=INSTALL) from None
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that we start tells nobody about it
        try:
            ray.init(address, **QUIET) if address else ray.init(include_dashboard=False, **QUIET)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"at {address}" if address else "on this machine"
            raise LocalError(
                "no_cluster", f"No Ray cluster answers {where}: {error}", remedy="See 'ray status'."
            ) from None
    return ray


class RayPool(UnitPool):
    """Units side by side, one for each CPU of the cluster. Blobs are kept here as a `UnitPool` keeps them, and sent to
    the cluster's object store once."""

    def __init__(self, ray: Any = None) -> None:
        self._ray = ray or connect()
        super().__init__(workers=int(self._ray.cluster_resources().get("CPU", 1)))
        self._task = self._ray.remote(num_cpus=1, max_retries=0, num_returns="streaming")(run_here)
        self._sent: dict[bytes, Any] = {}  # blob -> its reference in the object store
        self._work: dict[int, tuple[list[Any], int]] = {}  # ticket -> what the task is given, tries
        self._streams: dict[Any, int] = {}  # a task's stream of events -> ticket

    @property
    def busy(self) -> int:
        return len(self._work)

    def submit(self, unit: Unit, *, probe_key: bytes = b"") -> int:
        names = sorted({unit.program, *(item.blob for item in unit.inputs)})
        given: list[Any] = [units.encode(unit), probe_key]
        for name in names:
            if name not in self._sent:
                self._sent[name] = self._ray.put(self.get(name))
            given.append(self._sent[name])
        self._tickets += 1
        self._begin(self._tickets, given, 1)
        return self._tickets

    def _begin(self, ticket: int, given: list[Any], tries: int) -> None:
        self._work[ticket] = given, tries
        self._streams[self._task.remote(*given)] = ticket

    def next_event(self, timeout_s: float | None = None) -> Event | None:
        while True:
            ready, _ = self._ray.wait(list(self._streams), num_returns=1, timeout=timeout_s)
            if not ready:
                return None
            stream = ready[0]
            try:
                kind, payload, output = self._ray.get(next(stream))
            except (StopIteration, self._ray.exceptions.RayError) as error:
                self._lost(stream, error)
                continue
            ticket = self._streams[stream]
            if kind in ("done", "failed"):
                del self._streams[stream], self._work[ticket]
            return Event(ticket, kind, _payload(kind, payload, output))

    def _lost(self, stream: Any, error: BaseException) -> None:
        """The unit's Ray worker, or its machine, went away: it is given to another."""
        ticket = self._streams.pop(stream)
        given, tries = self._work[ticket]
        if tries >= TRIES:
            words = str(error).strip().splitlines()[-1:] or ["it ended without a word"]
            raise LocalError(
                "ray", f"A unit was lost {tries} times on the Ray cluster: {words[0]}", remedy="See 'ray status'."
            ) from None
        self._begin(ticket, given, tries + 1)

    def start(self) -> None:
        raise AssertionError("no child runs units on this side")

    def close(self) -> None:
        for stream in self._streams:
            self._ray.cancel(stream, force=True)
        self._streams.clear()
        self._work.clear()
        self._sent.clear()
        super().close()
        self._ray.shutdown()


def _payload(kind: str, text: str, output: bytes) -> Any:
    found = json.loads(text)
    if kind != "done":
        return found
    metrics, seconds, steps, probe, cpu_s = found
    return Done(output, metrics.encode(), seconds, steps, bytes.fromhex(probe), cpu_s)


# On a Ray worker.

_here: list[UnitPool] = []  # of this Ray worker: one, started with its first unit


def run_here(unit: bytes, probe_key: bytes, *blobs: bytes) -> Iterator[Said]:
    """One unit in a child process of this Ray worker: what it says, then "done" or "failed"."""
    task = units.decode_unit(unit)
    if task.profile != profile.profile_hash():
        told = {
            "code": "other_profile",
            "sentence": "A machine of the Ray cluster has another numeric profile (Python or torch) than this one.",
            "traceback": "",
        }
        yield "failed", json.dumps(told), b""
        return
    if not _here:
        _here.append(UnitPool(workers=1))
        atexit.register(_here[0].close)
    pool = _here[0]
    for data in blobs:
        pool.put(data)
    try:
        pool.submit(task, probe_key=probe_key)
        while True:
            event = pool.next_event()
            assert event is not None
            if event.kind == "done":
                done: Done = event.payload
                facts = [done.metrics.decode(), done.seconds, done.steps, done.probe.hex(), done.cpu_s]
                yield "done", json.dumps(facts), done.output
                return
            yield event.kind, json.dumps(event.payload), b""
            if event.kind == "failed":
                return
    except LocalError:
        _here.clear()  # its child is gone: the next unit starts another
        raise
    finally:
        for data in blobs:  # the object store has them; a Ray worker that lives for days must not keep them, too
            pool.path(blob_id(data)).unlink(missing_ok=True)
