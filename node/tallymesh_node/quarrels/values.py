"""A unit as the Court's row of values: value 0 is its start, value i what it has after step i, the last one its end;
after the last step nothing changes any more (ICourt). Parties find them to narrow a quarrel down, members to decide it.

Only a `tallymesh:segment` has steps that can be told apart: cutting a training changes no bit of it, so value i is the
end of the same unit with `config.steps` = i, and the rest of it is the same unit again from that state. Every other
entry counts as one step. A program that gives no output has NO_OUTPUT from there on.
No chain, no journal; nothing here decides who is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from tallymesh import units
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import LocalError
from tallymesh.ids import BlobId
from tallymesh.messages import Order
from tallymesh.parameters import Parameters
from tallymesh.units import Unit
from tallymesh_ledger.claims import NO_OUTPUT
from tallymesh_node.cores import AUDIT, Cores
from tallymesh_node.interfaces import Blobs, Executor, Failure
from tallymesh_node.unit_inputs import limits_of, names_of

SEGMENT = "tallymesh:segment"  # whose `config.steps` is how many steps it takes, and whose `state` it takes them from


def steps_of(unit: Unit) -> int:
    """Values of this unit that can differ from the one before; it may end earlier, and stays as it is then."""
    if unit.entry != SEGMENT:
        return 1
    try:
        steps = json.loads(unit.config)["steps"]
    except (*UNREADABLE, KeyError, TypeError):
        return 1  # its program will say what is wrong
    return steps if isinstance(steps, int) and steps > 1 else 1


def cut(unit: Unit, agreed: bytes, lo: int, hi: int, *, last: bool = False) -> Unit | bytes:
    """What to run to have value `hi` from value `lo`, which is `agreed`; or the value itself, where nothing has to run.
    `last`: value `hi` is the unit's end, because the accuser counted no further.

    Value 0 is what the unit's id says, whatever the parties agreed on."""
    count = steps_of(unit)
    if hi <= 0:
        return unit.start
    if lo >= count or (lo > 0 and agreed == NO_OUTPUT):
        return agreed
    until = count if last else min(hi, count)
    if lo <= 0 and until == count:
        return unit
    config = json.loads(unit.config)
    config["steps"] = until - max(lo, 0)
    inputs = unit.inputs
    if lo > 0:
        inputs = tuple(replace(each, blob=agreed) if each.name == "state" else each for each in inputs)
    return replace(unit, inputs=inputs, config=units.canonical_json(config))


class Values:
    """Values of one unit, found in the sandbox `sandbox` under the terms under which it was to be run. What was found
    is kept, and so are the states, in the blob store: `at` goes on from the nearest."""

    def __init__(
        self,
        unit: Unit,
        *,
        order: Order,
        work_ms: int,
        sandbox: bytes,
        blobs: Blobs,
        executor: Executor,
        cores: Cores,
        parameters: Parameters,
    ) -> None:
        self.unit = unit
        self.known: dict[int, bytes] = {0: unit.start}
        self.runs: list[int] = []  # steps of each run, for whoever counts what a quarrel costs
        self._limits = limits_of(order, work_ms, parameters)
        self._sandbox = sandbox
        self._blobs = blobs
        self._executor = executor
        self._cores = cores

    async def at(self, index: int) -> bytes:
        """Value `index`. All of the unit's inputs must be in the blob store. LocalError `own_fault` where this machine
        cannot say."""
        index = min(index, steps_of(self.unit))
        if index not in self.known:
            lo = max(i for i, value in self.known.items() if i < index and self._here(i, value))
            self.known[index] = await self.between(self.known[lo], lo, index)
        return self.known[index]

    async def between(self, agreed: bytes, lo: int, hi: int, *, last: bool = False) -> bytes:
        """Value `hi` (the unit's end where it is the `last`), recomputed from value `lo`, the state of which must be in
        the blob store. Errors as of `at`."""
        part = cut(self.unit, agreed, lo, hi, last=last)
        if not isinstance(part, Unit):
            return part
        inputs = self._inputs(part)
        self.runs.append((steps_of(self.unit) if last else min(hi, steps_of(self.unit))) - lo)
        try:
            async with self._cores.one(AUDIT, memory_mib=self._limits.memory_mib):
                outcome = await self._executor.run(self._sandbox, part, inputs, self._limits)
        except Failure as failure:
            if failure.code == "program":
                return NO_OUTPUT
            if failure.code == "inputs" and lo > 0 and all(self._blobs.has(name) for name in inputs):
                return agreed  # the training was over at that state, or goes on from none such: it stays as it is
            raise LocalError(
                "own_fault", f"This machine cannot run a unit of the quarrel ({failure.code}): {failure.sentence}"
            ) from None
        return outcome.output

    def _here(self, index: int, value: bytes) -> bool:
        return index == 0 or value == NO_OUTPUT or self._blobs.has(BlobId(value))

    def _inputs(self, unit: Unit) -> Mapping[BlobId, Path]:
        try:
            return {name: self._blobs.path(name) for name in names_of(unit)}
        except KeyError as missing:
            raise LocalError("own_fault", f"An input of the quarrel's unit is not here: {missing}.") from None
