"""What `trainer=`, `aggregator=` and `batched=` may be, looked at in the submitter's process before another is started.

A class can be checked only where its base was imported, which a program that subclasses it has done: this module
imports no torch.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any, Final, NamedTuple

from tallymesh.errors import CallerError
from tallymesh_learning import options


class Role(NamedTuple):
    """What a class of the program may stand in for."""

    base: str
    method: str
    arguments: tuple[str, ...]


ROLES: Final = {
    "trainer": Role("ClientTrainer", "train", ("model", "data", "ctx")),
    "aggregator": Role("ServerAggregator", "aggregate", ("updates", "ctx")),
}


def check(what: str, given: Any, algorithm: str) -> Any:
    """`given` where it is a class that can do the work, None where it is the one that does so anyway.

    CallerError with the lines to write otherwise."""
    if given is None:
        return None
    role = ROLES[what]
    base = getattr(sys.modules.get("tallymesh_learning.federated"), role.base, None)
    code, name = f"bad_{what}", getattr(given, "__qualname__", type(given).__qualname__)
    lines = (
        f"    from tallymesh_learning import {role.base}\n    class Mine({role.base}):\n"
        f"        def {role.method}(self, {', '.join(role.arguments)}):\n            …"
    )
    if base is not None and isinstance(given, base):
        raise CallerError(
            code, f"{what}= is a {name} that exists already; each unit makes its own.", remedy=f"Pass {what}={name}."
        )
    if base is None or not isinstance(given, type) or not issubclass(given, base):
        raise CallerError(
            code, f"{what}= is {name}, which is no subclass of {role.base}.", remedy=f"Write one and pass it:\n{lines}"
        )
    if given is base:
        return None
    if algorithm == "sequential":
        raise CallerError(
            code,
            f"{what}= is for federated rounds, and algorithm='sequential' has none.",
            remedy="Leave it out, or use algorithm='fedavg'.",
        )
    method = getattr(given, role.method)
    for function, arguments, called in (
        (given, (), f"{name}()"),
        (method, ("self", *role.arguments), f"{name}().{role.method}({', '.join(role.arguments)})"),
    ):
        try:
            inspect.signature(function).bind(*arguments)
        except (TypeError, ValueError) as error:
            raise CallerError(
                code, f"A unit calls {called}, and that does not take it: {error}.", remedy=f"Write:\n{lines}"
            ) from None
    if any(found(method) for found in (inspect.iscoroutinefunction, inspect.isgeneratorfunction)):
        raise CallerError(
            code, f"{name}.{role.method} is async or a generator: a call gives no value.", remedy="Write it with def."
        )
    return given


def check_batched(local: options.Local, trainer: Any, algorithm: str) -> None:
    """CallerError where clients cannot be computed together (cohort.py), for reasons that are seen without trying."""
    remedy = "Leave out batched=True: the clients are computed one by one, and the result has its hash."
    if algorithm == "sequential":
        raise CallerError(
            "bad_batched", "batched=True is for federated rounds, and algorithm='sequential' has none.", remedy=remedy
        )
    if trainer is not None:
        raise CallerError(
            "bad_batched", "batched=True computes plain training; a trainer= of your own is a loop.", remedy=remedy
        )
    if local.optimizer != "sgd":
        raise CallerError(
            "bad_batched",
            f"batched=True knows SGD (momentum, nesterov, weight_decay, clip, schedules), not {local.optimizer}.",
            remedy=f"Use local=dict(optimizer='sgd'). {remedy}",
        )
