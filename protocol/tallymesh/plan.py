"""From a job template to its units: which can run now, given the outputs known so far.

Purely functional at heart: a unit follows from the template and the outputs that it takes, so redoing work after a
void unit is nothing but forgetting its output; what was computed from it has other unit ids afterwards and is
computed again, what was not stays. Used by the payer's node, by auditors (does this unit belong to the order?) and by
the local backend. This module does not know peers, money or time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
from blake3 import blake3

from tallymesh import wheels
from tallymesh.ids import ZERO32, BlobId, UnitId
from tallymesh.units import Input, JobSpec, Unit, unit_id

CLIENT, AGGREGATE = 0, 1  # stages of a federated job


class Node(msgspec.Struct, frozen=True):
    """A place in the job: stage, round (or segment, or 0) and index within it."""

    stage: int
    round: int
    index: int


class Task(NamedTuple):
    """A unit with its place."""

    node: Node
    unit: Unit
    unit_id: UnitId


def derive_seed(job_seed: int, *parts: int | str) -> int:
    """64 bits from the job seed and a place, never from job id, time or peer."""
    text = "/".join(["tallymesh.seed", str(job_seed), *map(str, parts)])
    return int.from_bytes(blake3(text.encode()).digest(8), "little")


def participants(spec: JobSpec, round_index: int) -> list[int]:
    """Indices of the shards that take part in a round, ascending: all, or `per_round` drawn by the job seed."""
    count = len(spec.inputs)
    if spec.per_round in (0, count):
        return list(range(count))
    order = list(range(count))
    for i in range(spec.per_round):  # Fisher-Yates, first per_round places
        j = i + derive_seed(spec.seed, "participants", round_index, i) % (count - i)
        order[i], order[j] = order[j], order[i]
    return sorted(order[: spec.per_round])


class Plan:
    """The units of one job and the outputs known so far.

    Contract: `ready()` yields every unit whose inputs are known and whose output is not, in a fixed order;
    `record` and `forget` are idempotent; after any sequence of them the plan depends on the set of known outputs alone.
    """

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self._outputs: dict[UnitId, BlobId] = {}
        self._tasks: dict[tuple[Node, bytes], Task] = {}
        self._round = 0
        self._state = BlobId(spec.initial)
        self._open: dict[UnitId, Task] | None = None  # map: what is not known yet

    @property
    def total(self) -> int:
        """Units of the job when nothing has to be done twice."""
        spec = self.spec
        if spec.kind == "map":
            return len(spec.inputs)
        if spec.kind == "sequential":
            return spec.rounds
        return spec.rounds * ((spec.per_round or len(spec.inputs)) + 1)

    @property
    def rounds_done(self) -> int:
        """Rounds (or segments) whose state is known; map: units done."""
        if self.spec.kind == "map":
            return len(self.spec.inputs) - len(self._pending())
        self._advance()
        return self._round

    @property
    def state(self) -> BlobId:
        """The newest checkpoint."""
        self._advance()
        return self._state

    @property
    def finished(self) -> bool:
        goal = len(self.spec.inputs) if self.spec.kind == "map" else self.spec.rounds
        return self.rounds_done == goal

    def output(self, unit: UnitId) -> BlobId | None:
        return self._outputs.get(unit)

    def record(self, unit: UnitId, end: BlobId) -> None:
        self._outputs[unit] = end
        if self._open is not None:
            self._open.pop(unit, None)

    def forget(self, units: set[UnitId]) -> None:
        """Drop outputs that turned out void (or lost). Whatever used them becomes ready again when its inputs are."""
        for unit in units:
            self._outputs.pop(unit, None)
        self._round, self._state, self._open = 0, BlobId(self.spec.initial), None

    def ready(self) -> Iterator[Task]:
        if self.spec.kind == "map":
            yield from list(self._pending().values())
            return
        self._advance()
        if self._round == self.spec.rounds:
            return
        yield from (task for task in self._front() if task.unit_id not in self._outputs)

    def results(self) -> list[BlobId | None]:
        """Map: the outputs in input order, None where not known. Training: the checkpoints so far, newest last."""
        if self.spec.kind == "map":
            tasks = [self._map_task(index) for index in range(len(self.spec.inputs))]
            return [self._outputs.get(task.unit_id) for task in tasks]
        return list(self.checkpoints())

    def checkpoints(self) -> Iterator[BlobId]:
        """Checkpoint 0, 1, … as far as they are known."""
        state = BlobId(self.spec.initial)
        yield state
        for round_index in range(self.spec.rounds):
            after = self._after(round_index, state)
            if after is None:
                return
            yield after
            state = after

    def history(self) -> Iterator[UnitId]:
        """The units whose outputs the newest state was made of; map: the units that are done."""
        if self.spec.kind == "map":
            tasks = (self._map_task(index) for index in range(len(self.spec.inputs)))
            yield from (task.unit_id for task in tasks if task.unit_id in self._outputs)
            return
        self._advance()
        state = BlobId(self.spec.initial)
        for round_index in range(self._round):
            tasks_of_round = self.round_tasks(round_index, state)
            yield from (task.unit_id for task in tasks_of_round)
            aggregate = self._aggregate(round_index, state, tasks_of_round) if self.spec.kind == "federated" else None
            if aggregate is not None:
                yield aggregate.unit_id
            after = self._after(round_index, state)
            assert after is not None, "a round that is done has a state"
            state = after

    def round_tasks(self, round_index: int, state: BlobId) -> list[Task]:
        """The units of one round that start from `state` and need nothing else."""
        if self.spec.kind == "sequential":
            return [self._task(Node(0, round_index, 0), state, ())]
        return [self._task(Node(CLIENT, round_index, i), state, ()) for i in participants(self.spec, round_index)]

    # What follows is the shape of each kind of job.

    def _pending(self) -> dict[UnitId, Task]:
        if self._open is None:
            tasks = (self._map_task(index) for index in range(len(self.spec.inputs)))
            self._open = {task.unit_id: task for task in tasks if task.unit_id not in self._outputs}
        return self._open

    def _map_task(self, index: int) -> Task:
        return self._task(Node(0, 0, index), BlobId(self.spec.inputs[index]), ())

    def _advance(self) -> None:
        while self._round < self.spec.rounds:
            after = self._after(self._round, self._state)
            if after is None:
                return
            self._round, self._state = self._round + 1, after

    def _after(self, round_index: int, state: BlobId) -> BlobId | None:
        tasks = self.round_tasks(round_index, state)
        if self.spec.kind == "sequential":
            return self._outputs.get(tasks[0].unit_id)
        aggregate = self._aggregate(round_index, state, tasks)
        return self._outputs.get(aggregate.unit_id) if aggregate else None

    def _front(self) -> list[Task]:
        tasks = self.round_tasks(self._round, self._state)
        if self.spec.kind == "sequential":
            return tasks
        aggregate = self._aggregate(self._round, self._state, tasks)
        return [aggregate] if aggregate else tasks

    def _aggregate(self, round_index: int, state: BlobId, tasks: list[Task]) -> Task | None:
        updates = []
        for task in tasks:
            end = self._outputs.get(task.unit_id)
            if end is None:
                return None
            updates.append((self.spec.inputs[task.node.index], end))
        # Named and ordered by the shard's content id: the order of reduction is the same everywhere.
        inputs = tuple(Input(f"update/{shard.hex()}", end) for shard, end in sorted(updates))
        return self._task(Node(AGGREGATE, round_index, 0), state, inputs)

    def _task(self, node: Node, state: BlobId, more: tuple[Input, ...]) -> Task:
        key = (node, state + b"".join(item.blob for item in more))
        task = self._tasks.get(key)
        if task is None:
            unit = build_unit(self.spec, node, state, more)
            task = self._tasks[key] = Task(node, unit, unit_id(unit))
        return task


def build_unit(spec: JobSpec, node: Node, state: BlobId, more: tuple[Input, ...] = ()) -> Unit:
    """The unit at `node`: for map `state` is the item's blob, else the checkpoint that the round starts from."""
    stage = spec.stages[node.stage]
    if spec.kind == "map":
        inputs: tuple[Input, ...] = (Input("item", state), *spec.shared)
    elif spec.kind == "sequential":
        inputs = (Input("state", state), Input("data", spec.inputs[0]), *spec.shared)
    elif node.stage == CLIENT:
        inputs = (Input("state", state), Input("data", spec.inputs[node.index]), *spec.shared)
    else:
        # The server's own code may need the packages that travel with the job, and nothing else of the clients'.
        inputs = (Input("state", state), *more, *(item for item in spec.shared if item.name.startswith(wheels.PREFIX)))
    seed = derive_seed(spec.seed, stage.name, node.round, node.index)
    return Unit(spec.program, stage.entry, inputs, stage.config, seed, spec.profile)


def belongs(spec: JobSpec, unit: Unit) -> bool:
    """Whether `unit` can be a unit of this job: same program, profile, entry, config, static inputs and a seed of one
    of its places. The checkpoint and the updates that it takes are not judged here: a unit is judged by its own
    inputs."""
    for stage_index, stage in enumerate(spec.stages):
        wanted = (spec.program, stage.entry, stage.config, spec.profile)
        if (unit.program, unit.entry, unit.config, unit.profile) != wanted:
            continue
        for node in _places(spec, stage_index, unit):
            states = [item.blob for item in unit.inputs if item.name in ("state", "item")]
            if len(states) != 1:
                return False
            more = tuple(item for item in unit.inputs if item.name.startswith("update/"))
            if build_unit(spec, node, BlobId(states[0]), more) == unit:
                return True
    return False


def _places(spec: JobSpec, stage_index: int, unit: Unit) -> Iterator[Node]:
    by_name: Mapping[str, bytes] = {item.name: item.blob for item in unit.inputs}
    if spec.kind == "map":
        item = by_name.get("item", ZERO32)
        yield from (Node(0, 0, index) for index, blob in enumerate(spec.inputs) if blob == item)
    elif spec.kind == "federated" and stage_index == CLIENT:
        data = by_name.get("data", ZERO32)
        if data in spec.inputs:
            index = spec.inputs.index(data)
            yield from (Node(stage_index, r, index) for r in range(spec.rounds))
    else:
        yield from (Node(stage_index, r, 0) for r in range(spec.rounds))
