"""Checkpoint 0: the user's model function, called once under the job's seed."""

from __future__ import annotations

import torch

from tallymesh_learning import training
from tallymesh_learning.runtime.work import Result, Work
from tallymesh_learning.steps import common


def run(work: Work) -> Result:
    """No inputs. Output: the model's parameters and buffers, at step 0."""
    config = common.read_config(work)
    with work.timed("import"):
        make = common.resolve(config.model)
    with work.timed("compute"):
        net = training.build_model(make, config.seed)
    with work.timed("save"):
        state = {**training.model_tensors(net), training.STEP: torch.tensor(0, dtype=torch.int64)}
        parameters = float(sum(parameter.numel() for parameter in net.parameters()))
        return Result(training.encode_state(state), {"parameters": parameters})
