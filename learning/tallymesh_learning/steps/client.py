"""A participant's part of a federated round: the global model, trained on one shard."""

from __future__ import annotations

from typing import Final

import torch

from tallymesh_learning import training
from tallymesh_learning.runtime.work import Result, Work
from tallymesh_learning.steps import common

EXAMPLES: Final = "examples"  # in an update: how many examples stand behind it, int64


def run(work: Work) -> Result:
    """Inputs: ``state``, ``data``. Output: the whole model after `local.epochs` passes, and the number of examples.

    The optimizer starts anew in each round (McMahan et al., "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", 2017). Seeds and data order come from the unit's seed.
    """
    loaded = common.load(work)
    config = loaded.config
    with work.timed("compute"):
        trainer = common.trainer(loaded, seed=work.unit.seed)
    total = config.local.epochs * trainer.steps_per_epoch
    until = min(total, config.steps) if config.steps else total
    seen = common.watch(work, trainer, until, total)
    with work.timed("save"):
        examples = loaded.shard.examples
        update = {**training.model_tensors(trainer.net), EXAMPLES: torch.tensor(examples, dtype=torch.int64)}
        output = training.encode_state(update)
    return Result(output, {"loss": seen.loss, EXAMPLES: float(examples)}, until, seen.probe)
