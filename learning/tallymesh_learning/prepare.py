"""From `train(model, loss, data, …)` to a job package: program, shards, checkpoint 0, declared work.

Called in the submitter's process. Nothing is computed there: the data is read in a fork, and the model is made, tried
and timed in child processes under the numeric profile, through the very steps that workers run. So a model or a loss
that cannot work fails here, before any money moves.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from tallymesh import prepare as preparing
from tallymesh import wheels
from tallymesh.capture import capture
from tallymesh.errors import CallerError
from tallymesh.ids import ZERO32, BlobId, blob_id
from tallymesh.plan import derive_seed
from tallymesh.prepare import PreparedJob
from tallymesh.units import Input, JobSpec, Stage, Unit, encode
from tallymesh.wheels import Packages
from tallymesh_learning import options, reading, replacing, side
from tallymesh_learning import partition as partitions
from tallymesh_learning.runtime import profile
from tallymesh_learning.runtime.pool import Done, UnitPool
from tallymesh_learning.runtime.work import UnitFailure

ALGORITHMS: Final = ("fedavg", "sequential")
# A job is tried here on the CPU, whatever it will run on: under the strict numeric profile no GPU is shown.
_NO_GPU: Final = (
    "Units compute on the CPU: leave out .cuda() and .to('cuda'), or ask torch.cuda.is_available() first. (Of a job "
    "with Require(gpu=1) model and batches are moved to the card for you; it is tried here first, on the CPU.)"
)
TIMED_STEPS: Final = 10  # of the unit that is timed: enough for a mean, few enough for a large model
MAX_ROUNDS: Final = 100_000
MAX_CLIENTS: Final = 2_000  # an aggregation unit names each of them (units.MAX_UNIT_BYTES)


def prepare_training(
    model: Any,
    loss: Any,
    data: Any,
    test: Any = None,
    *,
    rounds: int = 10,
    clients: int = 10,
    partition: str = "iid",
    algorithm: str = "fedavg",
    segments: int = 20,
    per_round: int = 0,
    local: Mapping[str, Any] | None = None,
    seed: int = 0,
    work: float | None = None,
    name: str = "",
    prepare: Any = None,
    trainer: Any = None,
    aggregator: Any = None,
    batched: bool = False,
    packages: Packages = wheels.NONE,
    pool: UnitPool | None = None,
    gpu: bool = False,
) -> PreparedJob:
    """A training job.

    ``fedavg``: `rounds` rounds over `clients` shards (or `per_round` of them, drawn by the seed). ``sequential``:
    `local["epochs"]` passes over the data, cut into at most `segments` units. `work` declares the reference-seconds of
    a training unit; without it one is timed (by `pool` where the caller has one already). `prepare(batch)` changes
    each batch that is trained on. `trainer` and `aggregator` are subclasses of `ClientTrainer` and `ServerAggregator`
    (federated.py). `batched` tries whether clients can be computed together (cohort.py); the package is the same.
    `packages` travel with the job. With `gpu` its units compute on GPUs; here it is tried on the CPU all the same, and
    work is in reference-seconds of a core.

    CallerError where something is wrong with what was passed, the user's own exceptions included.
    """
    method = _check(model, loss, prepare, rounds, clients, partition, algorithm, segments, per_round)
    roles = {
        "trainer": replacing.check("trainer", trainer, algorithm),
        "aggregator": replacing.check("aggregator", aggregator, algorithm),
    }
    given = options.local(local)
    if batched:
        replacing.check_batched(given, roles["trainer"], algorithm)
    preparing.check_seed(seed)
    objects = {"model": model, "loss": loss, "prepare": prepare, **roles}
    named = [name for name, each in objects.items() if each is not None]
    captured = capture(*(objects[name] for name in named), packages=packages.modules)
    entries = dict(zip(named, captured.entries, strict=True))
    own = UnitPool(1) if pool is None else None
    units = pool or own
    assert units is not None
    try:
        units.start()  # imports torch while the data is read
        count = 1 if algorithm == "sequential" else clients
        shards = reading.read(data, test, clients=count, method=method, seed=seed)
        builder = _Builder(units, captured.archive, entries, shards, given, seed, packages)
        if algorithm == "sequential":
            spec = builder.sequential(segments, work)
        else:
            if per_round > len(shards.shards):
                raise CallerError("bad_per_round", f"{per_round} of {len(shards.shards)} clients cannot be drawn.")
            spec = builder.federated(rounds, 0 if per_round == len(shards.shards) else per_round, work)
        builder.measure(spec)
        if batched:
            builder.together(spec)
        if gpu:
            spec = replace(spec, profile=profile.profile_hash(profile.GPU))
        title = name or getattr(model, "__qualname__", "model")
        return PreparedJob(replace(spec, name=title), builder.blobs)
    finally:
        if own is not None:
            own.close()


class _Builder:
    """Runs what must be known before the template can be written."""

    def __init__(
        self,
        pool: UnitPool,
        archive: bytes,
        entries: Mapping[str, str],
        shards: reading.Shards,
        local: options.Local,
        seed: int,
        packages: Packages,
    ) -> None:
        self.blobs = {**shards.blobs, **packages.blobs}
        self._packages = wheels.inputs(packages.wheels)
        self._pool = pool
        self._shards = shards
        self._local = local
        self._seed = seed
        self._profile = profile.profile_hash()
        self._entries = entries
        self._program = self._put(archive)
        for blob in self.blobs.values():
            pool.put(blob)
        first = side.initialise(self._program, self._profile, entries["model"], seed, self._packages)
        made = self._run(first, "The model cannot be made")
        self._initial = self._put(made.output)

    def federated(self, rounds: int, per_round: int, work: float | None) -> JobSpec:
        config = self._config()
        aggregation = options.encode(options.Aggregation(aggregator=self._entries.get("aggregator", "")))
        stages = (
            Stage("client", "tallymesh:client", options.encode(config), 1),
            Stage("aggregate", "tallymesh:aggregate", aggregation, 1),
        )
        spec = self._spec("federated", stages, rounds, per_round)
        total = self._local.epochs * self._steps(self._mean())
        seconds, update = self._timed(spec, config, total, "train")
        names = [blob for blob, _ in self._shards.shards][: per_round or None]
        inputs = (Input("state", self._initial), *(Input(f"update/{blob.hex()}", update) for blob in names))
        inputs += self._packages
        unit = Unit(
            self._program, stages[1].entry, inputs, aggregation, derive_seed(self._seed, "timed"), self._profile
        )
        again = self._reference(self._run(unit, "The updates cannot be averaged").cpu_s)
        return self._declare(spec, seconds if work is None else work, again)

    def sequential(self, segments: int, work: float | None) -> JobSpec:
        total = self._local.epochs * self._steps(self._shards.shards[0][1])
        steps = -(-total // min(segments, total))
        config = self._config(steps=steps, total=total)
        stage = Stage("segment", "tallymesh:segment", options.encode(config), 1)
        spec = self._spec("sequential", (stage,), -(-total // steps), 0)
        seconds, _ = self._timed(spec, config, steps, "train")
        return self._declare(spec, seconds if work is None else work)

    def measure(self, spec: JobSpec) -> None:
        """The held-out data as after each round: what cannot be measured would end a job that is half paid for."""
        if self._shards.test is not None:
            self._run(side.evaluate(spec, self._initial), "The model and the loss cannot be measured on test=")

    def together(self, spec: JobSpec) -> None:
        """A short round of two clients, computed together and compared with the loop."""
        first = spec.stages[0]
        short = replace(options.decode(first.config), steps=TIMED_STEPS)
        trial = replace(
            spec,
            stages=(replace(first, config=options.encode(short)), *spec.stages[1:]),
            inputs=spec.inputs[:2],
            rounds=1,
            per_round=0,
            test=ZERO32,
        )
        self._run(side.batched(trial, self._pool.put(encode(trial))), "batched=True does not work for this job")

    def _timed(self, spec: JobSpec, config: options.Config, steps: int, what: str) -> tuple[float, BlobId]:
        """Reference-seconds of a unit of `steps` steps, from a short one, and what that one returned."""
        # A trainer of the program's own may make any number of steps: it is timed whole.
        short = steps if config.trainer else min(steps, TIMED_STEPS)
        changed = options.encode(config if config.trainer else replace(config, steps=short))
        shard = min(self._shards.shards, key=lambda row: abs(row[1] - self._mean()))[0]
        inputs = (Input("state", self._initial), Input("data", shard), *self._packages)
        seed = derive_seed(self._seed, "timed")
        unit = Unit(self._program, spec.stages[0].entry, inputs, changed, seed, self._profile)
        began = time.perf_counter()
        done = self._run(unit, f"The model and the loss cannot {what}")
        # CPU seconds: a machine that is busy with other things does not make its job dearer.
        share = min(1.0, done.cpu_s / (time.perf_counter() - began))
        compute = min(done.cpu_s, done.seconds["compute"] * share)
        seconds = done.cpu_s + compute * (steps / short - 1)
        return self._reference(seconds), self._pool.put(done.output)

    def _reference(self, seconds: float) -> float:
        return seconds * self._pool.cpu_score / 1000

    def _run(self, unit: Unit, problem: str) -> Done:
        try:
            return self._pool.run(unit)
        except UnitFailure as failure:
            remedy = _NO_GPU if "CUDA" in failure.sentence.partition("\n")[0] else ""
            raise CallerError("bad_program", f"{problem}: {failure.sentence}", remedy=remedy) from None

    def _put(self, data: bytes) -> BlobId:
        self.blobs[blob_id(data)] = data
        return self._pool.put(data)

    def _config(self, **more: int) -> options.Config:
        return options.Config(
            model=self._entries["model"],
            loss=self._entries["loss"],
            prepare=self._entries.get("prepare", ""),
            trainer=self._entries.get("trainer", ""),
            local=self._local,
            seed=self._seed,
            **more,
        )

    def _mean(self) -> int:
        counts = [count for _, count in self._shards.shards]
        return round(sum(counts) / len(counts))

    def _steps(self, examples: int) -> int:
        return options.steps_per_epoch(examples, self._local.batch)

    def _spec(self, kind: str, stages: tuple[Stage, ...], rounds: int, per_round: int) -> JobSpec:
        return JobSpec(
            kind=kind,
            program=self._program,
            profile=self._profile,
            seed=self._seed,
            stages=stages,
            inputs=tuple(blob for blob, _ in self._shards.shards),
            shared=self._packages,
            initial=self._initial,
            rounds=rounds,
            per_round=per_round,
            test=self._shards.test or ZERO32,
        )

    def _declare(self, spec: JobSpec, *seconds: float) -> JobSpec:
        stages = [
            replace(stage, work_ms=preparing.work_ms(each)) for stage, each in zip(spec.stages, seconds, strict=True)
        ]
        return replace(spec, stages=tuple(stages))


def _check(
    model: Any,
    loss: Any,
    prepare: Any,
    rounds: int,
    clients: int,
    text: str,
    algorithm: str,
    segments: int,
    per_round: int,
) -> partitions.Method:
    module = getattr(sys.modules.get("torch"), "nn", None)
    if module is not None and isinstance(model, module.Module):
        made = type(model).__name__
        place = "torch.nn." if type(model).__module__.startswith("torch.nn.") else ""
        raise CallerError(
            "model_instance",
            f"model= is a {made} that exists already; each worker has to make its own.",
            remedy=f"Write two lines and pass the function:\n    def model():\n        return {place}{made}(...)",
        )
    if module is not None and isinstance(loss, module.Module):
        made = type(loss).__name__
        raise CallerError(
            "loss_instance",
            f"loss= is a {made} that exists already, and an object cannot travel.",
            remedy="Write two lines and pass the function:\n    def loss(net, batch):\n"
            f"        return torch.nn.{made}()(net(batch[0]), batch[1])",
        )
    for what, function in (("model", model), ("loss", loss), ("prepare", prepare)):
        if function is None and what == "prepare":
            continue
        if module is not None and what == "prepare" and isinstance(function, module.Module):
            raise CallerError(
                "prepare_instance",
                f"prepare= is a {type(function).__name__} that exists already, and an object cannot travel.",
                remedy="Make it at the top level of your module, and pass a function that calls it:\n"
                "    def prepare(batch):\n        return [transform(batch[0]), batch[1]]",
            )
        if not callable(function):
            raise CallerError("not_a_function", f"{what}= is a {type(function).__qualname__}, not a function.")
        _check_call(what, function)
    if algorithm not in ALGORITHMS:
        raise CallerError(
            "bad_algorithm", f"algorithm={algorithm!r} is unknown.", remedy=f"Use one of: {', '.join(ALGORITHMS)}."
        )
    for what, number, most in (
        ("rounds", rounds, MAX_ROUNDS),
        ("clients", clients, MAX_CLIENTS),
        ("segments", segments, MAX_ROUNDS),
    ):
        if type(number) is not int or not 1 <= number <= most:
            raise CallerError(f"bad_{what}", f"{what}={number!r} is not a whole number from 1 to {most}.")
    if type(per_round) is not int or per_round < 0:
        raise CallerError("bad_per_round", f"per_round={per_round!r} is not a whole number from 0.")
    return partitions.parse("iid" if algorithm == "sequential" else text)


def _check_call(what: str, function: Any) -> None:
    """A call that Python would refuse is refused before a process is started for it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # it has none; capturing it says better what is wrong with it
    given = {"model": (), "loss": ("net", "batch"), "prepare": ("batch",)}[what]
    try:
        signature.bind(*given)
    except TypeError as error:
        name = getattr(function, "__name__", what)
        remedy = f"Write a function that takes just these:\n    def {what}({', '.join(given)}):\n        return …"
        raise CallerError(
            "bad_arguments",
            f"train calls {name}({', '.join(given)}), and that does not take it: {error}.",
            remedy=remedy,
        ) from None
