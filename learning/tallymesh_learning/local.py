"""backend="local": a job package run on this machine, through the same plan and the same unit runner as the network.

Only sandbox, network and money are left out, so the result has the same content id. `python -m
tallymesh_learning.local FOLDER` runs a saved package and prints its events as lines of JSON. This module imports no
torch; its child process does.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tallymesh.errors import CallerError, TallymeshError
from tallymesh.ids import ZERO32, BlobId
from tallymesh.plan import Plan, Task
from tallymesh.prepare import PreparedJob
from tallymesh.units import encode
from tallymesh_learning import side
from tallymesh_learning.runtime import pool as pools
from tallymesh_learning.runtime import profile
from tallymesh_learning.runtime.pool import UnitPool


class Event(NamedTuple):
    """kinds and data (as in `tallymesh.api.EventView`):

    log     {unit, stage, round, index, line}
    metric  {unit, stage, round, index, name, value}      from `tallymesh.log`, and the loss while training
    unit    {unit, stage, round, index, output, metrics, seconds, steps}
    round   {round, state, metrics}                       metrics on the held-out data, {} where there is none
    done    {result, outputs, metrics}                    hex ids; `result` is the final checkpoint
    """

    kind: str
    data: dict[str, Any]


class LocalRun:
    """One job on this machine. `events()` runs it; a context manager that ends all its processes.

    ``with LocalRun(job) as run: for event in run.events(): …; run.blob(run.plan.state)``

    `batched` computes all clients of a round together (steps/batched.py): no units, and a result that differs by
    rounding; its "round" events have ``units`` and no state, and there are no "unit" events.
    """

    def __init__(
        self,
        job: PreparedJob,
        *,
        workers: int | None = None,
        pool: UnitPool | None = None,
        batched: bool = False,
    ) -> None:
        if job.spec.profile not in (profile.profile_hash(), ZERO32):
            raise CallerError(
                "other_profile",
                "The job was prepared for another numeric profile than this machine's.",
                remedy="Prepare it again here.",
            )
        # A map prepared without a node has no profile yet: it runs under this machine's.
        self.spec = job.spec if job.spec.profile != ZERO32 else _with_profile(job)
        self.plan = Plan(self.spec)
        self.metrics: dict[str, float] = {}
        self._batched = batched
        self._own = UnitPool(workers) if pool is None else None
        self._pool = pool or self._own or UnitPool(workers)
        self._tasks: dict[int, Task] = {}
        self._evaluations: dict[int, tuple[int, BlobId]] = {}  # ticket -> round and its state
        for data in job.blobs.values():
            self._pool.put(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._own is not None:
            self._own.close()

    def blob(self, blob: bytes) -> bytes:
        """An output or input of the job; KeyError where it is not known."""
        return self._pool.get(blob)

    def events(self) -> Iterator[Event]:
        """Run the job to its end. CallerError where a unit fails: the program's own fault, with its traceback."""
        if self._batched:
            yield from self._together()
            return
        ready = self.plan.ready()
        stale = False
        while True:
            while self._pool.busy < 2 * self._pool.workers:
                task = next(ready, None)
                if task is None:
                    if not stale:
                        break
                    ready, stale = self.plan.ready(), False
                elif task.unit_id not in {other.unit_id for other in self._tasks.values()}:
                    self._tasks[self._pool.submit(task.unit)] = task
            if not self._pool.busy:
                break
            event = self._pool.next_event()
            assert event is not None
            if event.kind == "failed":
                raise _failed(self.spec.kind, event, self._tasks.get(event.ticket))
            yield from self._on(event)
            stale = stale or event.kind == "done"
        assert self.plan.finished, "a plan without ready units is finished"
        outputs = [blob.hex() for blob in self.plan.results() if blob is not None]
        result = self.plan.state.hex() if self.spec.kind != "map" else ""
        yield Event("done", {"result": result, "outputs": outputs, "metrics": self.metrics})

    def _together(self) -> Iterator[Event]:
        template = self._pool.put(encode(self.spec))
        ticket = self._pool.submit(side.batched(self.spec, template))
        place = {"unit": template.hex(), "stage": self.spec.stages[0].name, "round": 0, "index": 0}
        while True:
            event = self._pool.next_event()
            assert event is not None, "it waits without an end"
            if event.ticket != ticket:
                continue  # of a run that was left
            if event.kind == "failed":
                raise _failed(self.spec.kind, event, None, "The simulation")
            if event.kind == "done":
                break
            if event.kind == "round":
                self.metrics = dict(event.payload["metrics"])
                place["round"] = event.payload["round"]
                yield Event("round", {"state": "", **event.payload})
            else:
                yield _live(event, place)
        end = self._pool.put(event.payload.output)
        yield Event("done", {"result": end.hex(), "outputs": [end.hex()], "metrics": self.metrics})

    def _on(self, event: pools.Event) -> Iterator[Event]:
        task = self._tasks.get(event.ticket)
        if event.kind != "done":
            if task is not None:
                yield _live(event, _place(self.spec.stages[task.node.stage].name, task))
            return
        done: pools.Done = event.payload
        metrics: Mapping[str, float] = json.loads(done.metrics)
        if task is None:
            round_index, state = self._evaluations.pop(event.ticket)
            self.metrics = dict(metrics)
            yield Event("round", {"round": round_index + 1, "state": state.hex(), "metrics": dict(metrics)})
            return
        del self._tasks[event.ticket]
        end = self._pool.put(done.output)
        self.plan.record(task.unit_id, end)
        place = _place(self.spec.stages[task.node.stage].name, task)
        found = {"output": end.hex(), "metrics": dict(metrics), "seconds": done.seconds, "steps": done.steps}
        yield Event("unit", place | found)
        if self.spec.kind == "sequential" or (self.spec.kind == "federated" and task.node.stage == 1):
            yield from self._round_over(task.node.round, end)

    def _round_over(self, round_index: int, state: BlobId) -> Iterator[Event]:
        if self.spec.test == ZERO32:
            yield Event("round", {"round": round_index + 1, "state": state.hex(), "metrics": {}})
        else:
            self._evaluations[self._pool.submit(side.evaluate(self.spec, state))] = (round_index, state)


def _with_profile(job: PreparedJob) -> Any:
    from msgspec.structs import replace

    return replace(job.spec, profile=profile.profile_hash())


def _place(stage: str, task: Task) -> dict[str, Any]:
    return {"unit": task.unit_id.hex(), "stage": stage, "round": task.node.round + 1, "index": task.node.index}


def _live(event: pools.Event, place: dict[str, Any]) -> Event:
    if event.kind == "line":
        return Event("log", place | {"line": event.payload})
    name, value = event.payload
    return Event("metric", place | {"name": name, "value": value})


def _failed(kind: str, event: pools.Event, task: Task | None, beside: str = "The evaluation") -> CallerError:
    if task is None:
        where = beside
    elif kind == "map":
        where = f"The call for input {task.node.index}"
    else:
        where = f"Unit {task.node.index} of round {task.node.round + 1}"
    return CallerError("unit_failed", f"{where} failed ({event.payload['code']}): {pools.failure(event).sentence}")


def _pool(options: argparse.Namespace) -> UnitPool:
    if options.pool is not None:
        channel = socket.socket(fileno=options.pool)
        channel.set_inheritable(False)
        return UnitPool(options.workers, home=options.folder, channel=channel)
    if not options.ray:
        return UnitPool(options.workers)
    from tallymesh_learning.on_ray import RayPool

    return RayPool()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tallymesh_learning.local", description=__doc__)
    parser.add_argument("folder", type=Path, help="a saved job package; outputs are added to its blobs")
    parser.add_argument("--workers", type=int, default=None, help="units side by side (default: one a core)")
    parser.add_argument("--pool", type=int, default=None, help="descriptor of the end of a warm pool to go on with")
    parser.add_argument("--ray", action="store_true", help="on the Ray cluster that RAY_ADDRESS names, or that is here")
    parser.add_argument("--batched", action="store_true", help="all clients of a round together: approximate")
    options = parser.parse_args(arguments)
    try:
        job = PreparedJob.load(options.folder)
        with _pool(options) as pool, LocalRun(job, pool=pool, batched=options.batched) as run:
            for event in run.events():
                made = [event.data["output"]] if event.kind == "unit" else event.data.get("outputs", [])
                for output in made if event.kind == "unit" or options.batched else ():
                    (options.folder / "blobs" / output).write_bytes(run.blob(bytes.fromhex(output)))
                _say(event.kind, event.data)
    except TallymeshError as error:
        _say("failed", {"code": error.code, "sentence": error.sentence, "remedy": error.remedy})
        return 1
    return 0


def _say(kind: str, data: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"kind": kind, "data": data}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
