"""A segment of sequential training: from one checkpoint to the next, whoever made the first."""

from __future__ import annotations

from tallymesh_learning import training
from tallymesh_learning.runtime.work import Result, UnitFailure, Work
from tallymesh_learning.steps import common


def run(work: Work) -> Result:
    """Inputs: ``state``, ``data``. Output: the state `config.steps` steps later, at most at step `config.total`.

    Seeds and data order come from the job's seed and the step's number: how a training is cut into segments does not
    change a bit of it.
    """
    loaded = common.load(work)
    config = loaded.config
    with work.timed("compute"):
        trainer = common.trainer(loaded, seed=config.seed)
        trainer.resume(loaded.state)
    until = min(trainer.step + config.steps, config.total)
    count = until - trainer.step
    if count < 1:
        raise UnitFailure("inputs", f"The training of {config.total} steps is over at step {trainer.step}.")
    seen = common.watch(work, trainer, until, config.total)
    with work.timed("save"):
        output = training.encode_state(trainer.state())
    assert seen.loss is not None, "a segment has a step"
    return Result(output, {"loss": seen.loss}, count, seen.probe)
