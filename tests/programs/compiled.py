"""Map functions that look at torch's compiler from inside a unit, before and after they ask for it."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import torch


def trained(compiled: bool) -> dict[str, Any]:
    """Whether the compiler was imported after three steps of eager training, and the weights."""
    if compiled:
        torch.compile(lambda x: x + 1, backend="eager")
    torch.manual_seed(5)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.GELU(), torch.nn.Linear(7, 2))
    optimizer = torch.optim.AdamW(net.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(9, 5)).square().sum().backward()
        optimizer.step()
    here = "torch._inductor.config" in sys.modules
    return {"compiler": here, **{name: weight.detach() for name, weight in net.named_parameters()}}


def compiles(_: Any) -> dict[str, Any]:
    """A function that goes through the compiler, and what the compiler knows of what came before it."""
    optimizer = torch.optim.SGD(torch.nn.Linear(3, 1).parameters(), 0.1)
    told = import_module("torch._inductor.config").deterministic
    found = torch.compile(lambda x: torch.sin(x) * 2, backend="eager")(torch.ones(2))
    dynamo = import_module("torch._dynamo")
    import_module("torch._dynamo.config")
    step = torch.optim.Optimizer.add_param_group.__wrapped__
    optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})
    return {
        "found": found,
        "deterministic": told,
        "checked": torch.are_deterministic_algorithms_enabled(),
        "one": dynamo is torch._dynamo,
        "real": bool(dynamo.__file__),
        "left alone": getattr(step, "__dynamo_disable") is not step,
    }
