"""A participant's part of a federated round: the global model, trained on one shard."""

from __future__ import annotations

from typing import Final

import torch

from tallymesh_learning import options, training
from tallymesh_learning.federated import ClientContext, ClientTrainer
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import Result, Work
from tallymesh_learning.steps import common, replaced

EXAMPLES: Final = "examples"  # in an update: how many examples stand behind it, int64


def run(work: Work) -> Result:
    """Inputs: ``state``, ``data``. Output: the whole model after the trainer's work (config: `trainer`), and the number
    of examples behind it.

    Plain training is `ClientTrainer` as it stands. Seeds and data order come from the unit's seed."""
    loaded = common.load(work)
    config, shard = loaded.config, loaded.shard
    with work.timed("import"):
        kind = replaced.find(config.trainer, ClientTrainer)
    with work.timed("compute"):
        net = common.model(loaded)
        net.train()
        ctx = ClientContext(
            round=training.place(loaded.state)[0] + 1,
            seed=work.unit.seed,
            local=config.local,
            loss=loaded.loss,
            prepare=loaded.prepare,
            model=net,
            watcher=(seen := common.Watch(work, *_length(loaded))),
            limit=config.steps,
        )
        numeric.reseed(work.unit.seed, "train")
        returned = kind().train(net, shard, ctx)
    with work.timed("save"):
        wanted = {name: tensor for name, tensor in loaded.state.items() if name.startswith(training.MODEL)}
        weights, examples = replaced.update(kind, returned, wanted, shard.examples)
        output = training.encode_state({**weights, EXAMPLES: torch.tensor(examples, dtype=torch.int64)})
    metrics = {EXAMPLES: float(examples), **({} if seen.loss is None else {"loss": seen.loss})}
    return Result(output, metrics, seen.steps, seen.probe)


def _length(loaded: common.Loaded) -> tuple[int, int]:
    """Steps of plain training, and of one pass."""
    config = loaded.config
    passes = options.steps_per_epoch(loaded.shard.examples, config.local.batch)
    total = config.local.epochs * passes
    return (min(total, config.steps) if config.steps else total), passes
