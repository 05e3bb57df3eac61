"""What a program's own `ClientTrainer` or `ServerAggregator` gives back, looked at before anybody relies on it: a wrong
type, shape or number is the program's fault, told with the line of the method."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from tallymesh import program
from tallymesh_learning import tensors, training
from tallymesh_learning.runtime.work import UnitFailure
from tallymesh_learning.steps import common

T = TypeVar("T")


def find(entry: str, base: type[T]) -> type[T]:
    """The subclass of `base` at `entry`; `base` itself where there is none."""
    if not entry:
        return base
    found = common.resolve(entry)
    if not isinstance(found, type) or not issubclass(found, base):
        raise UnitFailure("program", f"{entry} is not a subclass of {base.__name__}.")
    return found


def update(kind: type, returned: Any, wanted: tensors.Tensors, examples: int) -> tuple[dict[str, torch.Tensor], int]:
    """Weights under their names in a state, and the number of examples, out of what ``kind.train`` returned."""
    what = _method(kind, "train")
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise UnitFailure(
            "program",
            f"{what} returned a {_kind(returned)}, not weights and a number of examples: end it with "
            "return model.state_dict(), len(data).",
        )
    given, count = returned
    if type(count) is not int or not 1 <= count <= examples:
        raise UnitFailure(
            "program",
            f"{what} returned {str(count)[:40]} ({_kind(count)}) for the number of examples, which is a whole number "
            f"from 1 to {examples}, as many as there are: return len(data).",
        )
    return weights(what, given, wanted, "return model.state_dict(), len(data)"), count


def state(
    kind: type, returned: Any, wanted: tensors.Tensors, memory: Any
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights under their names in a state, out of what ``kind.aggregate`` returned, and what it is to remember."""
    what = _method(kind, "aggregate")
    kept = memory if isinstance(memory, dict) else {}
    for name, tensor in kept.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or not tensors.can_hold(tensor):
            raise UnitFailure(
                "program", f"{what} left {name!r:.60} ({_kind(tensor)}) in ctx.memory, which holds tensors under names."
            )
        if tensors.first_not_finite({name: tensor}):
            raise UnitFailure("program", f"{what} left NaN or infinity in ctx.memory[{name!r}].")
    found = weights(what, returned, wanted, "return a dict with a tensor for each name in ctx.weights")
    return found, {name: tensor.detach() for name, tensor in kept.items()}


def weights(what: str, given: Any, wanted: tensors.Tensors, remedy: str) -> dict[str, torch.Tensor]:
    """`given` under its names in a state, once it has the form of `wanted` and is finite."""
    if not isinstance(given, Mapping):
        raise UnitFailure("program", f"{what} returned a {_kind(given)} for the weights: {remedy}.")
    found: dict[str, torch.Tensor] = {}
    for name, tensor in given.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise UnitFailure("program", f"{what} returned a {_kind(tensor)} under {name!r:.60}: {remedy}.")
        found[training.MODEL + name] = tensor.detach()
    wrong = tensors.same_form(found, wanted)
    if wrong:
        shown = wrong.removeprefix(training.MODEL)
        raise UnitFailure("program", f"{what} returned weights of another form: {shown}; {remedy}.")
    infinite = tensors.first_not_finite(found).removeprefix(training.MODEL)
    if infinite:
        raise UnitFailure("program", f"{what} returned NaN or infinity in {infinite}: a lower learning rate may help.")
    return found


def _method(kind: type, name: str) -> str:
    """``clinic.py:12: Prox.train``: where the method begins that was called."""
    code = getattr(inspect.unwrap(getattr(kind, name)), "__code__", None)
    where = f"{code.co_filename.removeprefix(program.PREFIX)}:{code.co_firstlineno}: " if code is not None else ""
    return f"{where}{kind.__qualname__}.{name}"


def _kind(value: Any) -> str:
    return f"{value.dtype} tensor" if isinstance(value, torch.Tensor) else type(value).__qualname__
