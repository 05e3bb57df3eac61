"""Metrics of a checkpoint on held-out data. Run by the payer's own node; nobody is paid for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tallymesh import values
from tallymesh_learning import data, training
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import Result, Work
from tallymesh_learning.steps import common


def run(work: Work) -> Result:
    """Inputs: ``state``, ``data``. Output and metrics: loss, examples, and accuracy where it can be had."""
    loaded = common.load(work)
    with work.timed("compute"):
        net = training.build_model(loaded.model, loaded.config.seed)
        training.load_model(net, loaded.state)
        metrics = measure(net, loaded.loss, loaded.shard, loaded.config.batch, loaded.config.seed)
    return Result(values.encode(metrics), metrics)


def measure(net: torch.nn.Module, loss: training.Loss, shard: data.Shard, size: int, seed: int) -> dict[str, float]:
    """Mean loss over the examples; accuracy where the net's answer to the first column is two-dimensional and the
    second column holds one whole number an example."""
    net.eval()
    summed, right, judged = 0.0, 0, 0
    with torch.no_grad():
        for step, (start, end) in enumerate(data.spans(shard.examples, size)):
            numeric.reseed(seed, "evaluate", step)
            batch = shard.batch(range(start, end))
            with _answers(net, batch) as answers:
                summed += training.check_loss(loss(net, batch), "on the held-out data") * (end - start)
            found = _count_right(answers[0], batch) if answers else None
            if found is not None:
                right, judged = right + found, judged + end - start
    metrics = {"loss": summed / shard.examples, "examples": float(shard.examples)}
    if judged == shard.examples:
        metrics["accuracy"] = right / judged
    return metrics


class _answers:
    """Collects what the net answers to the batch's first column while the loss is computed: no second forward."""

    def __init__(self, net: torch.nn.Module, batch: Any) -> None:
        self._net = net
        self._first = batch[0] if isinstance(batch, list) else None
        self._found: list[Any] = []
        self._remove: Callable[[], None] = lambda: None

    def __enter__(self) -> list[Any]:
        def keep(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and inputs[0] is self._first:
                self._found.append(output)

        self._remove = self._net.register_forward_hook(keep).remove
        return self._found

    def __exit__(self, *exception: object) -> None:
        self._remove()


def _count_right(answer: Any, batch: Any) -> int | None:
    if len(batch) < 2 or not isinstance(answer, torch.Tensor) or not isinstance(batch[1], torch.Tensor):
        return None
    labels = batch[1]
    if answer.dim() != 2 or not answer.is_floating_point() or labels.dim() != 1 or labels.is_floating_point():
        return None
    if labels.dtype == torch.bool or answer.shape[0] != labels.shape[0]:
        return None
    return int((answer.argmax(1) == labels).sum())
