"""A training loop whose every step can be started cold: model, optimizer and place in the data are one named state.

The state's bytes are what is hashed, committed to and continued from. Each step is reseeded from (seed, step), the
data's order is a permutation from the seed, and there is one thread: the same state and options give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch

from tallymesh_learning import data, tensors
from tallymesh_learning.options import Local
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import UnitFailure

MODEL: Final = "model."
OPTIMIZER: Final = "optimizer."
STEP: Final = "step"  # steps (or federated rounds) done, int64
# What each optimizer keeps for a parameter, all of its shape but the number of its steps.
OPTIMIZER_KEYS: Final = {
    "sgd": ("momentum_buffer",),
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
}
EPOCH, POSITION = "data.epoch", "data.position"  # the cursor: pass, and batch within it, of the next step

Loss = Callable[[torch.nn.Module, Any], torch.Tensor]
Prepare = Callable[[Any], Any]
OnStep = Callable[[int, float], None]


def build_model(make: Callable[[], Any], seed: int) -> torch.nn.Module:
    """Call the user's function or class under the job's seed. UnitFailure where it gives no usable module."""
    numeric.reseed(seed, "model")
    net = make()
    if not isinstance(net, torch.nn.Module):
        raise UnitFailure("program", f"The model function returned a {type(net).__name__}, not an nn.Module.")
    lazy = [name for name, tensor in net.state_dict().items() if torch.nn.parameter.is_lazy(tensor)]
    if lazy:
        raise UnitFailure(
            "program", f"{lazy[0]} of the model has no shape yet: run a batch through it in the function."
        )
    return net


def model_tensors(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers under their names in a state."""
    return {MODEL + name: tensor.detach() for name, tensor in net.state_dict().items()}


def place(state: tensors.Tensors) -> tuple[int, int, int]:
    """(step, pass over the data, batch in it) where a state stands; a first checkpoint has no place in the data."""
    epoch, position = (_scalar(state, name) if name in state else 0 for name in (EPOCH, POSITION))
    return _scalar(state, STEP), epoch, position


def load_model(net: torch.nn.Module, state: tensors.Tensors) -> None:
    """Put a state's parameters and buffers into `net`. UnitFailure ``inputs`` where they do not fit."""
    found = {name: tensor for name, tensor in state.items() if name.startswith(MODEL)}
    wrong = tensors.same_form(found, model_tensors(net))
    if wrong:
        raise UnitFailure("inputs", f"The state is not of this model: {wrong}.")
    net.load_state_dict({name.removeprefix(MODEL): tensor for name, tensor in found.items()})


def to_device(part: Any) -> Any:
    """A batch where the unit computes: tensors and whatever else has `to`, in lists, tuples, named ones too, and dicts.
    On the CPU it is what it was; texts stay texts anywhere."""
    device = numeric.device()
    if device.type == "cpu":
        return part
    if callable(getattr(part, "to", None)):
        return part.to(device)
    if isinstance(part, dict):
        return {name: to_device(each) for name, each in part.items()}
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(to_device(each) for each in part))
    return type(part)([to_device(each) for each in part]) if type(part) in (list, tuple) else part


class Trainer:
    """One model in training. `seed` rules data order and steps; `total` is the length of the whole training in steps
    (for the schedule); `state()` after any step is all that a successor needs."""

    def __init__(
        self,
        net: torch.nn.Module,
        local: Local,
        loss: Loss,
        shard: data.Shard,
        *,
        seed: int,
        prepare: Prepare | None = None,
    ) -> None:
        self.net = net
        self._loss = loss
        self._prepare = prepare
        self._local = local
        self._shard = shard
        self._seed = seed
        self._spans = data.spans(shard.examples, local.batch)
        self._optimizer = make_optimizer(net, local)
        self._rows: tuple[int, list[int]] = (-1, [])
        self.step = 0
        self.epoch = 0
        self.position = 0

    @property
    def steps_per_epoch(self) -> int:
        return len(self._spans)

    def resume(self, state: tensors.Tensors) -> None:
        """Continue where `state` stands: step, place in the data, optimizer. (A client starts anew instead.)"""
        self.step, self.epoch, self.position = place(state)
        if self.step < 0 or self.epoch < 0 or not 0 <= self.position < self.steps_per_epoch:
            raise UnitFailure("inputs", "The state's place in the data does not exist.")
        parameters = dict(self.net.named_parameters())
        plain = self._local.optimizer == "sgd" and not self._local.momentum
        kept = () if plain else OPTIMIZER_KEYS[self._local.optimizer]
        owners = set()
        for name in sorted(name for name in state if name.startswith(OPTIMIZER)):
            owner, _, key = name.removeprefix(OPTIMIZER).rpartition(".")
            if owner not in parameters:
                raise UnitFailure("inputs", f"The state holds {name}, but the model has no such parameter.")
            shape = () if key == "step" else parameters[owner].shape
            if key not in kept or state[name].shape != shape or not state[name].is_floating_point():
                raise UnitFailure("inputs", f"The state holds {name}, which this optimizer does not keep so.")
            # The number of steps stays on the CPU, where the optimizers count it; the rest is beside the parameter.
            kept_at = state[name].device if key == "step" else parameters[owner].device
            self._optimizer.state[parameters[owner]][key] = state[name].clone().to(kept_at)
            owners.add(owner)
        for owner in sorted(owners):
            if set(self._optimizer.state[parameters[owner]]) != set(kept):
                raise UnitFailure("inputs", f"The state of the optimizer lacks a part for {owner}.")

    def state(self) -> dict[str, torch.Tensor]:
        """Everything: parameters, buffers, optimizer, step, place in the data."""
        found = model_tensors(self.net)
        for name, parameter in self.net.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                if value is not None:
                    found[f"{OPTIMIZER}{name}.{key}"] = torch.as_tensor(value)
        for name, number in ((STEP, self.step), (EPOCH, self.epoch), (POSITION, self.position)):
            found[name] = torch.tensor(number, dtype=torch.int64)
        return found

    def run(self, until: int, total: int) -> Iterator[float]:
        """Steps up to number `until`, yielding the loss of each after it was made."""
        self.net.train()
        while self.step < until:
            numeric.reseed(self._seed, "step", self.step)
            batch = self._shard.batch(self._next_rows())
            if self._prepare is not None:
                # Under the step's seed, as the loss is: its random numbers are checked, too.
                batch = self._prepare(batch)
            batch = to_device(batch)
            for group in self._optimizer.param_groups:
                group["lr"] = self._local.lr_at(self.step, total)
            self._optimizer.zero_grad(set_to_none=True)
            value = self._loss(self.net, batch)
            number = check_loss(value, f"at step {self.step + 1}")
            value.backward()
            if self._local.clip:
                torch.nn.utils.clip_grad_norm_(self.net.parameters(), self._local.clip)
            self._optimizer.step()
            self.step += 1
            yield number

    def _next_rows(self) -> list[int]:
        if self._rows[0] != self.epoch:
            self._rows = (self.epoch, data.order(self._shard.examples, self._seed, self.epoch))
        start, end = self._spans[self.position]
        rows = self._rows[1][start:end]
        self.position += 1
        if self.position == len(self._spans):
            self.epoch, self.position = self.epoch + 1, 0
        return rows


def make_optimizer(net: torch.nn.Module, local: Local) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not parameters:
        raise UnitFailure("program", "The model has nothing to train: no parameter requires a gradient.")
    if local.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, local.lr, momentum=local.momentum, weight_decay=local.weight_decay, nesterov=local.nesterov
        )
    kind = torch.optim.Adam if local.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, local.lr, weight_decay=local.weight_decay)


def check_loss(value: Any, where: str) -> float:
    """The number in a loss, which must be a finite scalar tensor; UnitFailure ``program`` otherwise."""
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.is_floating_point():
        kind = f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        hint = (
            "return its .mean()"
            if isinstance(value, torch.Tensor)
            else "return the tensor itself, and nothing beside it"
        )
        raise UnitFailure("program", f"The loss {where} is {kind}, not a scalar tensor: {hint}.")
    return check_number(float(value.detach()), where)


def check_number(number: float, where: str) -> float:
    """A loss, which must be finite; UnitFailure ``program`` otherwise."""
    if not math.isfinite(number):
        raise UnitFailure("program", f"The loss {where} is {number}: a lower learning rate may help.")
    return number


def encode_state(state: tensors.Tensors) -> bytes:
    """Canonical bytes of a state. UnitFailure ``program`` where it holds NaN or infinity."""
    wrong = tensors.first_not_finite(state)
    if wrong:
        raise UnitFailure("program", f"{wrong} holds NaN or infinity: a lower learning rate may help.")
    return tensors.encode(state)


def decode_state(blob: bytes, what: str) -> dict[str, torch.Tensor]:
    """The state in `blob`; UnitFailure ``inputs`` where it is none, or holds NaN or infinity."""
    try:
        state = tensors.decode(blob)
    except tensors.BadTensors as error:
        raise UnitFailure("inputs", f"The {what} cannot be read: {error}") from None
    wrong = tensors.first_not_finite(state)
    if wrong:
        raise UnitFailure("inputs", f"{wrong} of the {what} holds NaN or infinity.")
    return state


def _scalar(state: tensors.Tensors, name: str) -> int:
    tensor = state.get(name)
    if tensor is None or tensor.dtype != torch.int64 or tensor.dim():
        raise UnitFailure("inputs", f"The state has no whole number {name}.")
    return int(tensor)
