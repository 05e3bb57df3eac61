"""Makes a fork start warm: imports torch and runs one step of each kind of model and optimizer (`warm`), or imports
alone where the forks will use a card (`load`): an optimizer's first step asks CUDA for devices, and no fork could use
them then.

The first import of torch takes a second and the first step of each kind of layer some milliseconds. The results of
units do not depend on it (a test holds that). Torch's compiler stays out (`compiler`): a unit that compiles loads it.
"""

from __future__ import annotations

from importlib import import_module


def load() -> None:
    """Import what units use and compute nothing. Call once, before the first fork."""
    import torch

    from tallymesh_learning.runtime import canary, numeric, profile, runner

    assert canary.STEPS
    numeric.apply()
    for kind in profile.KINDS:
        profile.profile_hash(kind)
    for step in ("map", *runner.STEPS):
        import_module(f"tallymesh_learning.steps.{step}")
    assert not torch.cuda.is_initialized(), "a fork could not use the card"


def warm() -> None:
    """Import what units use and run forward, backward and step once each. Call once, before the first fork."""
    import torch

    from tallymesh_learning.runtime import canary, numeric, profile, runner

    numeric.apply()
    profile.profile_hash()  # reads package metadata, which takes longer than a small unit
    for step in ("map", *runner.STEPS):
        import_module(f"tallymesh_learning.steps.{step}")
    for make in (canary.mlp, canary.cnn, canary.gpt, canary.lstm):
        net, batch = make()
        for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
            optimizer = kind(net.parameters(), 0.01)
            optimizer.zero_grad()
            canary.loss_of(net, batch).backward()
            optimizer.step()
