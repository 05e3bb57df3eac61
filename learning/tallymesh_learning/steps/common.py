"""What the training steps share: reading config, program and inputs, and watching a run for losses and the probe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch

from tallymesh import program
from tallymesh_learning import data, options, tensors, training
from tallymesh_learning.runtime import numeric
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
    return training.Trainer(
        model(loaded), loaded.config.local, loaded.loss, loaded.shard, seed=seed, prepare=loaded.prepare
    )


def model(loaded: Loaded) -> torch.nn.Module:
    """One with the loaded state's weights."""
    net = training.build_model(loaded.model, loaded.config.seed)
    training.load_model(net, loaded.state)
    device = numeric.device()
    return net if device.type == "cpu" else net.to(device)


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


class Watch:
    """Follows a run of `steps` steps, `per_pass` of them a pass over the data: losses, live and at the end, and the
    probe where one was asked for."""

    def __init__(self, work: Work, steps: int, per_pass: int) -> None:
        self._work = work
        self._steps = steps
        self._every = -(-steps // REPORTS)
        self._told = 0
        self._last: deque[float] = deque(maxlen=min(steps, per_pass))
        self._losses = 0
        self._probe_at = probe_step(work.probe_key, steps) if work.probe_key else 0
        self.steps = 0
        self.probe = b""

    def lost(self, loss: float) -> None:
        """The loss of the step that was just made."""
        self._losses += 1
        self._last.append(loss)
        if self._told < REPORTS and (self._losses % self._every == 0 or self._losses == self._steps):
            self._told += 1
            self._work.emit("metric", ["loss", loss])

    def stepped(self, state: Callable[[], tensors.Tensors]) -> None:
        """A step was made, and `state()` is all that it left."""
        self.steps += 1
        if self.steps == self._probe_at:
            self.probe = probe_of(self._work.probe_key, training.encode_state(state()))

    @property
    def loss(self) -> float | None:
        """The mean over the last pass; None where no step told one."""
        if not self._last:
            return None
        total = 0.0
        for loss in self._last:
            total += loss
        return total / len(self._last)


def watch(work: Work, trainer: training.Trainer, until: int, total: int) -> Watch:
    """Train up to step `until`, reporting losses and taking the probe where one was asked for."""
    seen = Watch(work, until - trainer.step, trainer.steps_per_epoch)
    with work.timed("compute"):
        for loss in trainer.run(until, total):
            seen.lost(loss)
            seen.stepped(trainer.state)
    return seen
