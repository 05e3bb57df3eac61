"""What the payer's node runs itself, in its own sandbox: recomputations, loss checks, and the metrics of each round.

Nobody is paid for these, and nobody can be slashed for them. Without an executor nothing here happens, and the job's
report says so. Of a job whose units compute on GPUs it recomputes nothing, whatever it has itself: that is for peers of
their class. Losses and metrics, which no bit hangs on, it measures on its cores.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec
import trio

from tallymesh.api import Problem
from tallymesh.errors import LocalError
from tallymesh.ids import ZERO32, BlobId
from tallymesh.plan import CLIENT, participants
from tallymesh.units import Unit
from tallymesh_learning import side
from tallymesh_learning.runtime import profile
from tallymesh_node.interfaces import Failure, Outcome
from tallymesh_node.payer.held import AT_WORK, Held
from tallymesh_node.payer.records import Checked, Ending, Evaluated, Recomputed, Record, Unsteady
from tallymesh_node.unit_inputs import limits_of, names_of

if TYPE_CHECKING:
    from tallymesh_node.payer.driver import JobDriver

LOSS_FACTOR = 1.2  # a loss this much over what it was …
LOSS_MARGIN = 0.1  # … and this forces an audit; honest local training lowers the loss on its own data
ATTEMPTS = 3  # of our own sandbox, before a check is left out or a recomputation is reported as impossible
NO_OUTPUT = ZERO32  # what an auditor finds, too, where the program gives no output
OURS = ("sandbox", "inputs")  # failures that say nothing about the unit
LIMITS_REMEDY = "Declare more work a unit (work=…), or submit from a machine that has what the units need."
NOT_DETERMINISTIC = "not_deterministic"
NOT_DETERMINISTIC_SAYS = (
    "Recomputations of one unit gave different results: the program is not a pure function of its inputs and seed."
)
NOT_DETERMINISTIC_REMEDY = "Take time, randomness without the unit's seed, and the order of sets out of the program."
MEASURED_KEPT = 64  # states whose metrics are remembered: a check asks for the round before, a redo for a few more


class OwnUnits:
    def __init__(self, driver: JobDriver) -> None:
        self.driver = driver
        self._tries: dict[tuple[bytes, int], int] = {}
        self._broken: Failure | None = None  # the newest failure that is this machine's fault
        self._measured: OrderedDict[tuple[bytes, bytes], dict[str, float]] = OrderedDict()  # (state, data) -> metrics
        self._measuring: dict[tuple[bytes, bytes], trio.Event] = {}
        self._evaluated: tuple[int, bytes] | None = None  # (round, state) up to which all are measured

    @property
    def available(self) -> bool:
        """Whether this node can run the job's units at all."""
        return self.driver.tools.executor is not None

    @property
    def numeric_class(self) -> bytes:
        """Inside which this node's own bits say something of the job's; b"" for none."""
        return b"" if self.driver.book.order.gpus else self.driver.tools.numeric_class()

    @property
    def judges(self) -> bool:
        """Whether it runs them as the workers do: only inside one numeric class are bits the same."""
        leased = next((held.lease.numeric_class for held in self.driver.book.all()), b"")
        return self.available and not self.driver.book.order.gpus and leased == self.numeric_class

    @property
    def tries(self) -> bool:
        """Whether a unit that failed elsewhere may be tried here, to see whose fault it is."""
        return self.available and not self.driver.book.order.gpus

    def checks(self, held: Held) -> bool:
        """Whether outputs of this seat get a loss check on arrival."""
        return self.available and self.driver.book.training

    def problems(self) -> list[Problem]:
        if self._broken is None:
            return []
        return [Problem(code="own_sandbox", sentence=f"This node cannot run units: {self._broken.sentence}")]

    def reconcile(self) -> None:
        driver, book = self.driver, self.driver.book
        for held in book.all():
            if self.available and held.state in AT_WORK and held.unchecked and not held.convicted:
                for position in sorted(held.unchecked):
                    driver.doing.start(("loss", held.id, position), self._check, held, position)
        self._evaluate_next()

    # Running.

    async def run(self, unit: Unit, work_ms: int) -> Outcome:
        """Failure where it gives no output."""
        tools, book = self.driver.tools, self.driver.book
        assert tools.executor is not None
        try:
            inputs = {name: tools.blobs.path(name) for name in names_of(unit)}
        except KeyError as error:
            raise Failure("inputs", f"An input is not in this node's store: {error}") from None
        if book.order.gpus:
            unit = msgspec.structs.replace(unit, profile=profile.profile_hash())
        async with self.driver.own_limit:
            outcome = await tools.executor.run(book.id, unit, inputs, limits_of(book.order, work_ms, tools.parameters))
        self._broken = None
        return outcome

    async def try_unit(self, unit: Unit, work_ms: int) -> Failure | None:
        """The Failure that says that the program is at fault, or None where it ran here."""
        try:
            await self.run(unit, work_ms)
        except Failure as failure:
            if failure.code in OURS:
                self._broken = failure
                raise LocalError("own_sandbox", failure.sentence) from None
            return failure
        return None

    # Recomputation.

    async def recompute(self, held: Held, position: int, draws: tuple[int, ...]) -> None:
        """As the verdict of `draws`. A program that fails here where the worker claims an output is a mismatch.

        Another result than the worker's is computed once more before anybody is accused: where this node contradicts
        itself, or the unit does not end within its limits, the program answers for it and the job ends."""
        claimed = held.audits[position].subject.end
        unit = held.units[position]  # auditors may decide meanwhile, and then it is forgotten
        try:
            end = await self._end(held, unit)
            steady = end == claimed or await self._end(held, unit) == end
            problem = Ending("failed", NOT_DETERMINISTIC, NOT_DETERMINISTIC_SAYS, NOT_DETERMINISTIC_REMEDY)
        except Failure as failure:
            if failure.code in OURS:
                self._broken = failure
                raise LocalError("own_sandbox", failure.sentence) from None
            steady = False
            sentence = f"A unit that a worker has done cannot be checked on this node: {failure.sentence}"
            problem = Ending("failed", failure.code, sentence, LIMITS_REMEDY)
        if steady:
            await self.driver.tools.blobs.sync()
            await self.driver.commit(Recomputed(held.id, position, end, draws))
            return
        found: list[Record] = [Unsteady(held.id, position)]
        if self.driver.book.ending is None:
            found.append(problem)
        await self.driver.commit(*found)

    async def _end(self, held: Held, unit: Unit) -> bytes:
        """NO_OUTPUT where the program itself gives none. Failure where that is somebody else's fault."""
        try:
            return (await self.run(unit, held.lease.work_ms)).output
        except Failure as failure:
            if failure.code == "program":
                return NO_OUTPUT
            raise

    # Loss checks.

    async def _check(self, held: Held, position: int) -> None:
        unit, end = held.units[position], BlobId(held.seat.openings[position].end)
        form, sentence = False, ""
        try:
            before, after = await self._losses_of(held, unit, end)
        except Failure as failure:
            tries = self._tries[held.id, position] = self._tries.get((held.id, position), 0) + 1
            if failure.code in OURS:
                self._broken = failure
                if tries < ATTEMPTS:
                    raise LocalError("own_sandbox", failure.sentence) from None
                self.driver.events.add("warning", sentence=f"An output was not checked: {failure.sentence}")
            elif failure.code in ("form", "limits") or held.nodes[position].stage != CLIENT:
                form, sentence = True, f"Its form is wrong: {failure.sentence}"
            # Else the user's own loss failed on one batch: that is no worker's fault, and training would show it.
        else:
            if not math.isfinite(after) or after > LOSS_FACTOR * before + LOSS_MARGIN:
                sentence = f"The loss went from {before:.4g} to {after:.4g}."
        if position in held.unchecked:
            await self.driver.commit(Checked(held.id, position, bool(sentence), sentence))
        if form:
            await self.driver.watching.give_up(held, "form", sentence, position)

    async def _losses_of(self, held: Held, unit: Unit, end: BlobId) -> tuple[float, float]:
        spec, work_ms = self.driver.book.spec, held.lease.work_ms
        if any(item.name == "data" for item in unit.inputs):
            outcome = await self.run(side.loss_check(spec, unit, end), work_ms)
            metrics = json.loads(outcome.metrics)
            return float(metrics.get("loss_before", math.inf)), float(metrics.get("loss_after", math.nan))
        # An aggregate has no data of its own: it is measured as a round's state is, on the held-out data or a shard.
        try:
            before = await self._loss(unit.input("state"), work_ms)
        except Failure as failure:
            if failure.code in OURS:
                raise
            return math.inf, 0.0  # the user's loss fails on good states too: nothing can be said this way
        return before, await self._loss(end, work_ms)

    async def _loss(self, state: BlobId, work_ms: int) -> float:
        data = self._yardstick
        return (await self._measure(state, data, work_ms)).get("loss", math.nan)

    async def _measure(self, state: BlobId, data: BlobId, work_ms: int) -> dict[str, float]:
        """Once for all who ask: an aggregate's check and its round's metrics are the same unit."""
        key = (state, data)
        while key not in self._measured:
            if key in self._measuring:
                await self._measuring[key].wait()  # if that try fails, the next one is ours
                continue
            done = self._measuring[key] = trio.Event()
            try:
                outcome = await self.run(side.evaluate(self.driver.book.spec, state, data), work_ms)
                found = {name: float(value) for name, value in json.loads(outcome.metrics).items()}
                self._remember(state, data, found)
            finally:
                del self._measuring[key]
                done.set()
        return self._measured[key]

    def _remember(self, state: BlobId, data: BlobId, metrics: dict[str, float]) -> None:
        self._measured[state, data] = metrics
        while len(self._measured) > MEASURED_KEPT:
            self._measured.popitem(last=False)

    @property
    def _yardstick(self) -> BlobId:
        spec = self.driver.book.spec
        return BlobId(spec.test if spec.test != ZERO32 else spec.inputs[participants(spec, 0)[0]])

    # Metrics of rounds.

    @property
    def measured(self) -> bool:
        """Whether the newest state's metrics are known, or cannot be had."""
        book = self.driver.book
        if not self.available or not book.training or book.spec.test == ZERO32:
            return True
        known = book.evaluated.get(book.plan.rounds_done)
        return known is not None and known[0] == book.plan.state

    def _evaluate_next(self) -> None:
        """One round after the other; a round that was done again is measured again."""
        book = self.driver.book
        if (
            not book.training
            or not book.plan.rounds_done
            or self._evaluated == (book.plan.rounds_done, book.plan.state)
        ):
            return
        for number, state in enumerate(book.plan.checkpoints()):
            if number and (number not in book.evaluated or book.evaluated[number][0] != state):
                self.driver.doing.start(("evaluate", number, state), self._evaluate, number, state)
                return
        self._evaluated = (book.plan.rounds_done, book.plan.state)

    async def _evaluate(self, number: int, state: BlobId) -> None:
        book = self.driver.book
        metrics: dict[str, float] = {}
        if self.available and book.spec.test != ZERO32:
            try:
                metrics = await self._measure(state, BlobId(book.spec.test), book.spec.stages[0].work_ms)
            except Failure as failure:
                if self.driver.doing.failures(("evaluate", number, state)) < ATTEMPTS:
                    raise LocalError("not_measured", f"Round {number}: {failure.sentence}") from None
                self.driver.events.add("warning", sentence=f"Round {number} was not measured: {failure.sentence}")
                self._remember(state, self._yardstick, {})  # checks must not try for ever what cannot be had
        await self.driver.commit(Evaluated(number, state, json.dumps(metrics, sort_keys=True).encode()))
