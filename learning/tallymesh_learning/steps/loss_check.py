"""The payer's cheap look at what a worker returned: form, finiteness, and the loss on one batch before and after.

It catches garbage anywhere in a state for one forward pass. It convicts nobody: a wrong form refuses the unit, a bad
loss only forces an audit.
"""

from __future__ import annotations

import math

import torch

from tallymesh import values
from tallymesh_learning import data, tensors, training
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import Result, UnitFailure, Work
from tallymesh_learning.steps import common
from tallymesh_learning.steps.client import EXAMPLES


def run(work: Work) -> Result:
    """Inputs: ``state`` (what the unit started from), ``end`` (what it returned), ``data`` (its shard).

    Output and metrics: ``loss_before`` and ``loss_after`` on one batch drawn by the unit's seed. Failure ``form``
    (a sentence says what is wrong) where ``end`` is not a state of this model or not finite."""
    loaded = common.load(work)
    with work.timed("load"):
        end = _end(work.input("end"), loaded.state)
        check = _segment if loaded.config.total else _update
        check(loaded, end)
    with work.timed("compute"):
        net = training.build_model(loaded.model, loaded.config.seed)
        size = min(loaded.config.batch, loaded.shard.examples)
        rows = data.order(loaded.shard.examples, work.unit.seed, 0)[:size]
        metrics = {}
        for name, state in (("loss_before", loaded.state), ("loss_after", end)):
            training.load_model(net, state)
            metrics[name] = _loss(net, loaded.loss, loaded.shard.batch(rows), work.unit.seed)
    return Result(values.encode(metrics), {name: value for name, value in metrics.items() if math.isfinite(value)})


def _end(blob: bytes, start: tensors.Tensors) -> dict[str, torch.Tensor]:
    try:
        end = tensors.decode(blob)
    except tensors.BadTensors as error:
        raise UnitFailure("form", str(error)) from None
    wanted = {name: tensor for name, tensor in start.items() if name.startswith(training.MODEL)}
    wrong = tensors.same_form({name: t for name, t in end.items() if name.startswith(training.MODEL)}, wanted)
    infinite = tensors.first_not_finite(end)
    if wrong or infinite:
        raise UnitFailure("form", f"{wrong or infinite + ' holds NaN or infinity'}.")
    return end


def _update(loaded: common.Loaded, end: dict[str, torch.Tensor]) -> None:
    """What `aggregate` takes from a client: one that it does not take would fail there, on somebody else's machine,
    and a made-up number of examples would outweigh everybody. A trainer of the program's own may use fewer of them."""
    _only(end, (EXAMPLES,))
    count, most = end[EXAMPLES], loaded.shard.examples
    least = 1 if loaded.config.trainer else most
    if count.dtype != torch.int64 or count.dim() or not least <= int(count) <= most:
        allowed = str(most) if least == most else f"from 1 to {most}"
        raise UnitFailure("form", f"{EXAMPLES} is not {allowed}, as many as the shard holds.")


def _segment(loaded: common.Loaded, end: dict[str, torch.Tensor]) -> None:
    """What the next segment resumes from, at the step and the place in the data where this one had to end."""
    _only(end, (training.STEP, training.EPOCH, training.POSITION), training.OPTIMIZER)
    config = loaded.config
    trainer = common.trainer(loaded, seed=config.seed)
    step, epoch, position = training.place(loaded.state)
    steps = min(config.steps, config.total - step)
    begun, place = divmod(epoch * trainer.steps_per_epoch + position + steps, trainer.steps_per_epoch)
    try:
        trainer.resume(end)
    except UnitFailure as failure:
        raise UnitFailure("form", failure.sentence) from None
    if training.place(end) != (step + steps, begun, place):
        raise UnitFailure("form", f"It stands at step {trainer.step}, not at {step + steps}.")


def _only(end: dict[str, torch.Tensor], names: tuple[str, ...], prefix: str = training.MODEL) -> None:
    extra = sorted(name for name in end if not name.startswith((training.MODEL, prefix)))
    if extra != sorted(names):
        shown = ", ".join(extra)[:200] or "nothing"
        raise UnitFailure("form", f"{shown} stands where {' and '.join(sorted(names))} belong.")


def _loss(net: torch.nn.Module, loss: training.Loss, batch: object, seed: int) -> float:
    net.eval()
    numeric.reseed(seed, "evaluate", 0)
    with torch.no_grad():
        value = loss(net, batch)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise UnitFailure("program", "The loss is not a scalar tensor.")
    return float(value)
