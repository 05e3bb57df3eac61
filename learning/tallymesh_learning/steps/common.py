"""What the training steps share: reading config, program and inputs, and watching a run for losses and the probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch

from tallymesh import program
from tallymesh_learning import data, options, tensors, training
from tallymesh_learning.runtime.work import UnitFailure, Work, probe_of, probe_step

REPORTS: Final = 8  # live loss values of one unit at most: rounds make the curve, and each value is an event of the job


class Loaded(NamedTuple):
    config: options.Config
    model: Callable[[], Any]
    loss: training.Loss
    prepare: training.Prepare | None  # of what is trained on; what is measured on stays as it is
    state: dict[str, torch.Tensor]
    shard: data.Shard


def load(work: Work) -> Loaded:
    """Config, functions, the input ``state`` and the input ``data``."""
    with work.timed("load"):
        config = read_config(work)
        state = training.decode_state(work.input("state"), "state")
        try:
            shard = data.decode(work.input("data"))
        except tensors.BadTensors as error:
            raise UnitFailure("inputs", f"The data cannot be read: {error}") from None
    with work.timed("import"):
        prepare = resolve(config.prepare) if config.prepare else None
        return Loaded(config, resolve(config.model), resolve(config.loss), prepare, state, shard)


def trainer(loaded: Loaded, *, seed: int) -> training.Trainer:
    """One that starts from the loaded state's weights."""
    config, model, loss, prepare, state, shard = loaded
    return training.Trainer(config, model, loss, shard, state, seed=seed, prepare=prepare)


def read_config(work: Work) -> options.Config:
    try:
        return options.decode(work.unit.config)
    except ValueError as error:
        raise UnitFailure("inputs", f"The config cannot be read: {error}") from None


def resolve(entry: str) -> Any:
    found = program.resolve(entry)
    if not callable(found):
        raise UnitFailure("program", f"{entry} is a {type(found).__name__}, not a function.")
    return found


class Watched(NamedTuple):
    """What was seen while training."""

    loss: float  # mean over the last pass
    probe: bytes


def watch(work: Work, trainer: training.Trainer, until: int, total: int) -> Watched:
    """Train up to step `until`, reporting losses and taking the probe where one was asked for."""
    first = trainer.step
    count = until - first
    probe_at = first + probe_step(work.probe_key, count) if work.probe_key else -1
    every = -(-count // REPORTS)
    last_pass = until - min(count, trainer.steps_per_epoch)
    total_loss, seen, probe = 0.0, 0, b""
    with work.timed("compute"):
        for loss in trainer.run(until, total):
            if trainer.step > last_pass:
                total_loss, seen = total_loss + loss, seen + 1
            if trainer.step == until or (trainer.step - first) % every == 0:
                work.emit("metric", ["loss", loss])
            if trainer.step == probe_at:
                probe = probe_of(work.probe_key, training.encode_state(trainer.state()))
    return Watched(total_loss / seen, probe)
